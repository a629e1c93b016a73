"""Parts of Pasture that need an extra, for verbs that most people use without it."""

import importlib
from typing import Any

from pasture.core.errors import DependencyError


def training_part(name: str) -> Any:
    """The module `name` of Pasture, which needs torch.

    Raises:
        DependencyError: if the extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name and error.name.split(".")[0] == "pasture":
            raise
        raise DependencyError(
            f"this needs the package {error.name!r}, which is not installed. "
            "Training and sampling come with: pip install 'pasture[train]'"
        ) from error
