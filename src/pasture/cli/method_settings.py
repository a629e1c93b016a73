"""The settings of a method: what each may be, what it is where nobody says so, and what it means."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

_BOUNDS = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< "}
_KINDS = {"integer": "integer", "number": "number", "boolean": "true, false", "string": "text", "array": "list"}
_WITHIN_A_SENTENCE = re.compile(r"(?<!^)(?<!\. )\bNone\b")


@dataclass(frozen=True, slots=True)
class Setting:
    """One of them."""

    name: str
    """Dotted, as it is written in `name=value`."""
    default: str
    """Empty where there is none, and the setting must be given."""
    values: str
    meaning: str
    """Empty where the name says it."""


def settings_of(config: type[BaseModel]) -> list[Setting]:
    """The settings in their order; those of a table, such as `weights`, by dotted names in its place."""
    schema = config.model_json_schema()
    return list(_listed(schema, schema.get("$defs", {}), ""))


def settings_list(settings: Sequence[Setting]) -> RenderableType:
    """What a terminal shows: each as a recipe would have it, what else it may be, and below what it means."""
    written = [f"{setting.name} = {setting.default}".rstrip() for setting in settings]
    width = max(map(len, written), default=0)
    lines: list[RenderableType] = []
    for setting, line in zip(settings, written, strict=True):
        lines.append(Text.assemble((line.ljust(width), "bold"), "  ", (setting.values, "dim")))
        if setting.meaning:
            lines.append(Padding(Text(setting.meaning), (0, 0, 0, 4)))
    return Group(*lines)


def _listed(schema: Mapping[str, Any], tables: Mapping[str, Any], prefix: str) -> Iterator[Setting]:
    for key, entry in schema["properties"].items():
        options = [option for option in entry.get("anyOf", [entry]) if option.get("type") != "null"]
        inner = [tables[option["$ref"].rpartition("/")[2]] for option in options if "$ref" in option]
        meaning = _WITHIN_A_SENTENCE.sub("none", " ".join(entry.get("description", "").split()))
        if not inner:
            default = _shown(entry["default"]) if "default" in entry else ""
            yield Setting(prefix + key, default, ", ".join(map(_values, options)), meaning)
        elif entry.get("default") is None:
            yield Setting(prefix + key, _shown(None), "a table of what follows", meaning)
        for one in inner:
            yield from _listed(one, tables, f"{prefix}{key}.")


def _values(option: Mapping[str, Any]) -> str:
    if "const" in option:
        return _shown(option["const"])
    if "enum" in option:
        return ", ".join(map(_shown, option["enum"]))
    bounds = [f"{sign}{_shown(option[name])}" for name, sign in _BOUNDS.items() if name in option]
    return f"{_KINDS.get(option.get('type', ''), 'any value')} {', '.join(bounds)}".rstrip()


def _shown(value: Any) -> str:
    """A value as a recipe would have it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
