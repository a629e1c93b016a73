"""Tables of settings as models: what does not fit is one sentence that names the key, and the one that was meant."""

import difflib
import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pasture.core.errors import RecipeError

S = TypeVar("S", bound=BaseModel)


def check_section(kind: type[S], table: Mapping[str, Any], origin: str, section: str | None = None) -> S:
    """`table` as a checked model of `kind`; `section` is its dotted name in a recipe, empty for all of it.

    Without it the table is no part of a recipe, and `origin` alone says whose keys they are.

    Raises:
        RecipeError: naming the section and key, with the likeliest intended key for an unknown one.
    """
    try:
        # As JSON, where a list may become a tuple and yet "3" or true never becomes 3.
        return kind.model_validate_json(json.dumps(_without_none(kind, table), default=str), strict=True)
    except ValidationError as error:
        raise RecipeError(_explain(kind, table, error, origin, section)) from error


def _without_none(kind: type[BaseModel], table: Mapping[str, Any]) -> dict[str, Any]:
    """`table` without the keys that are "none" where that is what an absent key means: TOML has no word for it."""
    kept = {}
    for key, value in table.items():
        field = kind.model_fields.get(key)
        if field is not None and field.default is None and value == "none":
            continue
        inner = _section_type(field.annotation) if field is not None else None
        kept[key] = _without_none(inner, value) if inner is not None and isinstance(value, Mapping) else value
    return kept


def _explain(
    kind: type[BaseModel], table: Mapping[str, Any], error: ValidationError, origin: str, section: str | None
) -> str:
    path, (first, *others) = _first(error, table)
    if first["type"] == "extra_forbidden":
        home = ".".join(filter(None, [section, *path[:-1]]))
        known = _keys_at(kind, path[:-1])
        if home or section is not None:
            return f"{origin}: {_describe_unknown(path[-1], known, home)}"
        return f"{origin} {_no_key(path[-1], known)}"
    if first["type"] == "value_error":  # a sentence of ours about several keys
        said = first["msg"].removeprefix("Value error, ")
        return ": ".join(filter(None, [origin, ".".join(filter(None, [section, *path])), f"{said}."]))
    came = "" if first["type"] == "missing" else f", got {first['input']!r}"
    said = " or ".join([first["msg"], *(one["msg"].removeprefix("Input should be ") for one in others)])
    return f"{origin}: {'.'.join(filter(None, [section, *path]))}: {said}{came}."


def _first(error: ValidationError, table: Mapping[str, Any]) -> tuple[list[str], list[ErrorDetails]]:
    """The first place where something is wrong, and what: of several kinds of value tried there, what each expected.

    Where one kind went deeper than the others, as a list does whose third entry is wrong, that is what was meant.
    """
    errors = [(_path(one["loc"], table), one) for one in error.errors(include_url=False)]
    outer = errors[0][0]
    path = max((path for path, _ in errors if path[: len(outer)] == outer), key=len)
    return path, [one for place, one in errors if place == path]


def _path(place: Sequence[int | str], table: Mapping[str, Any]) -> list[str]:
    """A place in `table` that pydantic names, without its own names for the kinds of value tried there."""
    found: Any = table
    path = []
    for number, part in enumerate(place, start=1):
        inside = isinstance(part, int) or (isinstance(found, Mapping) and part in found)
        if inside:
            found = found[part]
        if inside or (number == len(place) and isinstance(found, Mapping)):  # a key that is missing
            path.append(str(part))
    return path


def _describe_unknown(key: str, known: Sequence[str], section: str) -> str:
    """The sentence that says `key` is unknown in `section`, and which key was probably meant."""
    place = f"[{section}]" if section else "the recipe"
    return f"{place} {_no_key(key, known)}"


def _no_key(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"has no key {key!r}.{hint} Keys: {', '.join(sorted(known))}."


def _keys_at(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    names = iter(path)
    for name in names:
        field = kind.model_fields.get(name)
        if field is None:
            return []
        annotation = field.annotation
        if get_origin(annotation) is dict:  # of tables by names of the user's
            annotation = get_args(annotation)[1]
            next(names, None)
        inner = _section_type(annotation)
        if inner is None:
            return []
        kind = inner
    return list(kind.model_fields)


def _section_type(annotation: Any) -> type[BaseModel] | None:
    """The model class in an annotation that may be a union with None."""
    options = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
