"""Where a recipe's first model lies."""

from importlib.resources import files
from pathlib import Path

from pasture.core.errors import ModelError
from pasture.recipe import BUILT_IN, UNTRAINED


def start_folder(start: str) -> Path:
    """The folder of the model that a recipe calls `start`: the built-in base model, or a folder of the user's.

    Raises:
        ModelError: if there is no such folder.
    """
    if start == BUILT_IN:
        return Path(str(files("pasture.world") / "base_model"))
    folder = Path(start)
    if not folder.is_dir():
        raise ModelError(
            f"model.start: {start!r} is no folder. Expected {BUILT_IN!r}, {UNTRAINED!r} or a folder that "
            "save_pretrained wrote (config.json, model.safetensors, tokenizer.json)."
        )
    return folder
