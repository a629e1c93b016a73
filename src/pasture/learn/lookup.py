"""A method by the name that a recipe calls it: one of Pasture's, or a file of the user's own."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from pasture.core.errors import DataError, RecipeError
from pasture.core.own_file import OWN_FILE_SUFFIX, load_file
from pasture.learn import METHODS
from pasture.machine.distributed import count

KIND = "method"

HANDED: Mapping[str, tuple[str, ...]] = {
    "scores": ("start", "environment", "folder", "seed", "progress"),
    "preferences": ("start", "feedback", "template", "folder", "seed", "progress"),
}
"""The keywords that `train` of a file is handed behind its config, by what the file says that it learns from."""

_EXAMPLE = "examples/my_method.py is one that works."


def method_named(name: str, code: str | None = None) -> Any:
    """The module of a method, with its `Config` and its `train`.

    A name that ends in `.py` is a file, which runs as part of this process; `code` is the SHA-256 that it must have.

    Raises:
        RecipeError: if there is no such method, the file is another than was planned with, or it lacks a part.
    """
    if not name.endswith(OWN_FILE_SUFFIX):
        if name not in METHODS:
            raise RecipeError(unknown(name))
        return METHODS[name]
    return load_file(Path(name), KIND, _check_parts, code)


def unknown(name: str) -> str:
    """The sentence that says there is no such method, and which was probably meant."""
    close = difflib.get_close_matches(name, METHODS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    methods = ", ".join(METHODS)
    return f"there is no method {name!r}.{hint} Methods: {methods}; one of your own is a file that ends in .py."


def keywords_of(module: Any) -> set[str]:
    """What a method's `train` asks for by keyword; where it takes **any, all that its kind of method is handed."""
    parameters = inspect.signature(module.train).parameters.values()
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    return {one.name for one in parameters} | set(HANDED[module.LEARNS_FROM] if takes_any else ())


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


def check_ratings(name: str, module: Any, feedback: Sequence[tuple[object, ...]]) -> None:
    """See that a method takes ratings of single answers, where there are any.

    Raises:
        DataError: if it learns from pairs alone.
    """
    ratings = sum(len(row) == 1 for row in feedback)
    if ratings and not getattr(module, "TAKES_RATINGS", False):
        takers = ", ".join(name for name, one in METHODS.items() if getattr(one, "TAKES_RATINGS", False))
        raise DataError(
            f"{name} learns from pairs, and the feedback holds {ratings:,} answers that were rated alone. Methods that "
            f"learn from those: {takers}."
        )


def _check_parts(path: Path, module: ModuleType) -> None:
    """See that a file has what a method needs.

    Raises:
        RecipeError: naming the part that is missing or does not fit.
    """
    config, train = getattr(module, "Config", None), getattr(module, "train", None)
    learns_from = str(getattr(module, "LEARNS_FROM", None))
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        what = "a class Config that derives from pydantic.BaseModel"
        found = "none" if config is None else repr(config)
    elif not callable(train):
        what, found = "a function train", "none" if train is None else repr(train)
    elif learns_from not in HANDED:
        what = " or ".join(f'LEARNS_FROM = "{kind}"' for kind in HANDED)
        found = "none" if learns_from == "None" else repr(learns_from)
    else:
        _check_signature(path, train, learns_from)
        return
    raise RecipeError(f"method {str(path)!r}: expected {what}, and found {found}. {_EXAMPLE}")


def _check_signature(path: Path, train: Callable[..., object], learns_from: str) -> None:
    """See that `train` can be called with a config and the keywords of its kind of method, hours before it is."""
    handed = HANDED[learns_from]
    try:
        inspect.signature(train).bind("config", **dict.fromkeys(handed))
    except TypeError as error:
        raise RecipeError(
            f"method {str(path)!r}: train cannot be called as it will be ({error}). A method that learns from "
            f"{learns_from} is called as train(config, *, {', '.join(handed)}); **more may stand for what it has no "
            "use for."
        ) from error
