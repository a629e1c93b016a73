"""A method by the name that a recipe calls it: one of Pasture's, or a file of the user's own."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from pasture.core.errors import RecipeError
from pasture.learn import METHODS
from pasture.machine.distributed import count

OWN_FILE_SUFFIX = ".py"


def method_named(name: str, code: str | None = None) -> Any:
    """The module of a method, with its `Config` and its `train`.

    A name that ends in `.py` is a file, which runs as part of this process; `code` is the SHA-256 that it must have.

    Raises:
        RecipeError: if there is no such method, the file is another than was planned with, or it lacks a part.
    """
    if not name.endswith(OWN_FILE_SUFFIX):
        if name not in METHODS:
            raise RecipeError(f"there is no method {name!r}. Methods: {', '.join(METHODS)}.")
        return METHODS[name]
    path = Path(name)
    found = file_hash(path)
    if code is not None and found != code:
        raise RecipeError(f"{path} has changed since the run was planned. Start the run again.")
    module_name = f"pasture_own_{found[:16]}"
    if module_name not in sys.modules:
        sys.modules[module_name] = _loaded(path, module_name)
    return sys.modules[module_name]


def file_hash(path: Path) -> str:
    """SHA-256 of a method's file.

    Raises:
        RecipeError: if it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RecipeError(f"method {str(path)!r}: cannot be read ({error.strerror}).") from error


def check_several(name: str, module: Any) -> None:
    """See that a method may be trained by several processes, where there are several.

    Raises:
        RecipeError: if it trains nothing, or is a file that does not say that it may.
    """
    if count() == 1:
        return
    if not hasattr(module, "train"):
        raise RecipeError(f"{name} trains nothing that several processes could share. Start it without a launcher.")
    if name.endswith(OWN_FILE_SUFFIX) and not getattr(module, "SEVERAL_PROCESSES", False):
        raise RecipeError(
            f"{name} does not say that its loop shares work between processes, and gradients are summed over them: "
            "each would count its whole batch. Take micro-batches from pasture.machine.distributed.share, sum figures "
            "with total, and set SEVERAL_PROCESSES = True; or start one process."
        )


def _loaded(path: Path, module_name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"method {str(path)!r}: not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pydantic look their module up while it runs
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise RecipeError(f"method {str(path)!r}: running it raised {type(error).__name__}: {error}") from error
    config = getattr(module, "Config", None)
    complete = isinstance(config, type) and issubclass(config, BaseModel) and callable(getattr(module, "train", None))
    if not complete or getattr(module, "LEARNS_FROM", None) not in ("scores", "preferences"):
        del sys.modules[module_name]
        raise RecipeError(
            f"method {str(path)!r}: expected a pydantic Config, a function train, and "
            'LEARNS_FROM = "scores" or "preferences", as in examples/my_method.py.'
        )
    return module
