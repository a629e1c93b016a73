"""A Python file of the user's own, taken into this process: a method, a scorer, or an annotator."""

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from importlib.abc import Loader
from pathlib import Path
from types import ModuleType

from pasture.core.errors import RecipeError

OWN_FILE_SUFFIX = ".py"


def load_file(path: Path, what: str, check: Callable[[Path, ModuleType], None], code: str | None = None) -> ModuleType:
    """What the file defines, once `check` has found all parts of it; `code` is the SHA-256 that it must have.

    `what` says in errors what the file stands for. A file is run once in a process.

    Raises:
        RecipeError: if the file cannot be read or run, is another than was planned with, or lacks a part.
    """
    found = file_hash(path)
    if code is not None and found != code:
        raise RecipeError(f"{path} has changed since the run was planned. Start the run again.")
    module_name = f"pasture_own_{found[:16]}"
    if module_name not in sys.modules:
        sys.modules[module_name] = _run(path, what, module_name)
    module = sys.modules[module_name]
    check(path, module)
    return module


def require_function(path: Path, module: ModuleType, kind: str, name: str, example: str, **arguments: object) -> None:
    """See that a file has a function `name` that can be called with `arguments`, in their order.

    Raises:
        RecipeError: naming the `example` that has one, if there is none, or it is called otherwise.
    """
    expected = f"{kind} {str(path)!r}: expected a function {name}({', '.join(arguments)})"
    function = getattr(module, name, None)
    if not callable(function):
        raise RecipeError(f"{expected}, and there is none. {example} is one that works.")
    try:
        inspect.signature(function).bind(*arguments.values())
    except TypeError as error:
        raise RecipeError(f"{expected}; it cannot be called so ({error}). {example} is one that works.") from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        RecipeError: if it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RecipeError(f"{str(path)!r} cannot be read ({error.strerror}).") from error


def _run(path: Path, what: str, module_name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or not isinstance(spec.loader, Loader):
        raise RecipeError(f"{what} {str(path)!r}: not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pydantic look their module up while it runs
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise RecipeError(f"{what} {str(path)!r}: {raised_at(error, path)}") from error
    return module


def raised_at(error: BaseException, path: Path) -> str:
    """What running a file raised, and in which of its lines."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"line {error.lineno} raised {type(error).__name__}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"line {lines[-1]} raised {type(error).__name__}: {error}" if lines else f"{type(error).__name__}: {error}"
