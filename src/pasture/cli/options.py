"""Options that several verbs share: a dataclass whose fields are options, spread out where a verb takes one."""

import copy
import dataclasses
import functools
import inspect
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer

from pasture.core.errors import RecipeError
from pasture.machine.tracker_settings import TRACKERS

Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track", help=f"Show how trainings go in {', '.join(TRACKERS)}; may be given twice. See docs/metrics.md."
    ),
]

Which = Literal["one", "all"]
"""How pairs are made of several outputs."""


def which_samples(samples: str | None, head2head: Path | None) -> Which | None:
    """The value of --samples, which makes pairs within a file and cannot stand beside --head2head.

    Raises:
        RecipeError: if it does, or is neither of the two.
    """
    if samples is not None and head2head is not None:
        raise RecipeError("choose one: --head2head joins two files' outputs, --samples makes pairs within a file.")
    if samples is None or samples == "one" or samples == "all":  # noqa: PLR1714 - narrows the type
        return samples  # type: ignore[return-value]
    raise RecipeError(f"--samples: expected one or all, got {samples!r}.")


def spread(verb: Callable[..., None]) -> Callable[..., None]:
    """`verb` with an option for each field of its dataclass parameters, in their place and order.

    A field is annotated and named as a parameter of a verb would be, and needs a default. Help shows the options of
    a dataclass together, under its `title`.
    """
    hints = get_type_hints(verb, include_extras=True)
    signature = inspect.signature(verb)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint) and isinstance(hint, type)}
    names = {name: [field.name for field in dataclasses.fields(group)] for name, group in groups.items()}

    def parameters() -> Iterator[inspect.Parameter]:
        for name, parameter in signature.parameters.items():
            if name not in groups:
                yield parameter.replace(annotation=hints[name])
                continue
            options = get_type_hints(groups[name], include_extras=True)
            for field in dataclasses.fields(groups[name]):
                hint = _titled(options[field.name], getattr(groups[name], "title", None))
                yield inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hint
                )

    @functools.wraps(verb)
    def with_options(**values: Any) -> None:
        made = {name: group(**{field: values.pop(field) for field in names[name]}) for name, group in groups.items()}
        verb(**values, **made)

    flat = list(parameters())
    with_options.__signature__ = signature.replace(parameters=flat)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return with_options


def _titled(hint: Any, title: str | None) -> Any:
    """The annotation of an option, shown under `title`."""
    kind, option = get_args(hint)
    shown = copy.copy(option)
    shown.rich_help_panel = title
    return Annotated[kind, shown]


def settings_table(options: Sequence[str]) -> dict[str, Any]:
    """A table of settings such as `batch_size=8` or `options.enforce_eager=true`; what is no TOML value is a text.

    Raises:
        RecipeError: naming the option that is not KEY=VALUE.
    """
    table: dict[str, Any] = {}
    for option in options:
        name, separator, text = option.partition("=")
        *path, last = name.strip().split(".")
        place: Any = table
        for key in path:
            place = place.setdefault(key, {}) if isinstance(place, dict) else None
        if not separator or not last or not all(path) or not isinstance(place, dict):
            raise RecipeError(f"--set {option!r}: expected KEY=VALUE, such as batch_size=8 or device=cuda.")
        place[last] = _value(text.strip())
    return table


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
