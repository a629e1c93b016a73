"""Names of models on the hub: which texts are one, and how such a model comes to this machine; free of torch."""

import re
from pathlib import Path

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_name(name: str) -> bool:
    """Whether `name` reads org/name; "runs/model" with a folder "runs" here is a misspelt path, not the hub's."""
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).parent.is_dir()


def how_to_fetch(name: str) -> str:
    """The sentence, after a space, that says how a model of the hub becomes a folder; empty for what is no name of one.

    Commands and recipes take folders alone, whose weights can be told from others by their bytes.
    """
    if not is_hub_name(name):
        return ""
    return f" A model of the hub is downloaded first: hf download {name} --local-dir FOLDER; then name FOLDER."
