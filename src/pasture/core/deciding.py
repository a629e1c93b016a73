"""Which settings of a method, and of drawing, a result depends on; work may go on with others of the rest."""

from collections.abc import Mapping
from typing import Any

NO_PART_OF_THE_RESULT: dict[str, Any] = {
    "micro_batch_tokens": True,
    "checkpoint_steps": True,
    "weights": {"gradient_checkpointing": True},
    "rollouts": {"url": True, "api_key_env": True, "in_flight": True, "timeout_seconds": True, "most_difference": True},
}
"""How much is computed at once and what of it again, how often it is kept, where a server is that draws, and what is
put up with: by key, as pydantic's `exclude` takes them. Rounding differs with some, as it does with the machine."""

_NO_PART_OF_THE_ANSWERS: dict[str, Any] = {"batch_tokens": True}
"""Likewise of how answers are drawn."""


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a method that its result depends on, from plain JSON."""
    return _without(config, NO_PART_OF_THE_RESULT)


def deciding_answers(decoding: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of how answers are drawn that they depend on, from plain JSON."""
    return _without(decoding, _NO_PART_OF_THE_ANSWERS)


def _without(table: Mapping[str, Any], left_out: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in table.items():
        inner = left_out.get(name)
        if inner is not True:
            kept[name] = _without(value, inner) if inner and isinstance(value, Mapping) else value
    return kept
