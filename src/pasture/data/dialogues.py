"""Dialogues in the layouts that preference data comes in, as one prompt and one answer each.

An `Instruction` holds one text. A dialogue of one user turn becomes that turn; a longer one becomes a transcript,
"User: ...", "Assistant: ..." and so on, with blank lines between.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pasture.core.errors import DataError

_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class Turn:
    """What one side said at a time."""

    role: str
    """`system`, `user` or `assistant`."""
    text: str


def is_messages(value: object) -> bool:
    """Whether `value` is a list of chat messages, each with `role` and `content`."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, Mapping) and {"role", "content"} <= set(message) for message in value)
    )


def turns_of_messages(messages: object, where: str) -> list[Turn]:
    """The turns in a list of chat messages.

    Raises:
        DataError: if it is none, a role is unknown, or a content is no text.
    """
    if not isinstance(messages, list) or not is_messages(messages):
        raise DataError(f"{where}: expected a list of messages with 'role' and 'content', got {_short(messages)}.")
    turns = []
    for message in messages:
        if message["role"] not in _SPEAKERS or not isinstance(message["content"], str):
            raise DataError(
                f"{where}: expected a message of role {', '.join(_SPEAKERS)} with text as its content, "
                f"got role {_short(message['role'])} with {type(message['content']).__name__}."
            )
        turns.append(Turn(message["role"], message["content"]))
    return turns


def is_hh_dialogue(value: object) -> bool:
    """Whether `value` is a text in the layout of Anthropic's HH-RLHF."""
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def turns_of_hh_dialogue(text: str) -> list[Turn]:
    """The turns of a text in that layout: two line breaks, "Human:" or "Assistant:", what was said, and so on.

    Source: Bai et al. 2022, https://github.com/anthropics/hh-rlhf
    """
    pieces = _HH_TURN.split(text)
    return [Turn(_HH_ROLES[role], said.strip()) for role, said in zip(pieces[1::2], pieces[2::2], strict=True)]


def prompt_text(turns: Sequence[Turn]) -> str:
    """The turns before an answer as the text of an instruction."""
    if len(turns) == 1:
        return turns[0].text
    return "\n\n".join(f"{_SPEAKERS[turn.role]}: {turn.text}" for turn in turns)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
