"""AlpacaEval's prompt files: ChatML or plain text with slots, repeated once for each pair of a batch.

AlpacaEval fills slots one after another, so that a text can be taken for a slot; here the file is split into turns
and slots first, and every text comes out as it went in.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pasture.annotate.render import Rendered, ShownPair
from pasture.core.errors import RecipeError
from pasture.core.requests import Message, Role
from pasture.core.templates import SLOT, slots

SLOTS = ("instruction", "input", "output_1", "output_2")
DUMMY = ShownPair("1+1=", "", "2", "3")
"""What fills the places of a batch that has fewer pairs, as in AlpacaEval; its verdict is dropped."""

_TURN = re.compile(r"<\|im_start\|>([^\n]*)\n(.*?)<\|im_end\|>", re.DOTALL)
_HUMAN = re.compile(r"\n\n(Human|Assistant):", re.DOTALL)


@dataclass(frozen=True)
class PromptFile:
    """A prompt, split into turns; one turn without a role is a text to be continued."""

    turns: tuple[tuple[Role | Literal[""], str], ...]
    batch_size: int

    @property
    def slots(self) -> list[str]:
        """Slots in order of occurrence, over all turns."""
        return [name for _, text in self.turns for name in slots(text)]

    def render(self, pairs: Sequence[ShownPair]) -> Rendered:
        """The turns with the n-th occurrence of each slot filled from the n-th pair, short batches padded."""
        padded = [*pairs, *(DUMMY for _ in range(self.batch_size - len(pairs)))]
        seen = dict.fromkeys(SLOTS, 0)

        def filled(match: re.Match[str]) -> str:
            pair = padded[seen[match[1]]]
            seen[match[1]] += 1
            return dict(zip(SLOTS, pair.texts, strict=True))[match[1]]

        texts = [(role, SLOT.sub(filled, text)) for role, text in self.turns]
        messages = tuple(Message(role=role, content=text) for role, text in texts if role)
        return Rendered(messages, None) if messages else Rendered(None, texts[0][1])


def read_prompt(text: str, batch_size: int, *, human_markup: bool = False) -> PromptFile:
    """The prompt file, checked: only known slots, each as often as the batch has pairs.

    With `human_markup`, a text without ChatML is split at "Human:" and "Assistant:", as old Claude prompts were.

    Raises:
        RecipeError: naming the slot or the role that cannot be honored.
    """
    turns = _chatml(text) if "<|im_start|>" in text else _human(text) if human_markup else ((("", text)),)
    prompt = PromptFile(turns, batch_size)
    unknown = next((name for name in prompt.slots if name not in SLOTS), None)
    if unknown is not None:
        raise RecipeError(f"prompt_template: slot {{{unknown}}} cannot be honored. Known: {', '.join(SLOTS)}.")
    for name in SLOTS:
        count = prompt.slots.count(name)
        if count != batch_size and (count or name.startswith("output")):
            raise RecipeError(
                f"prompt_template: slot {{{name}}} occurs {count} times, expected batch_size = {batch_size} times."
            )
    return prompt


def _chatml(text: str) -> tuple[tuple[Role | Literal[""], str], ...]:
    turns: list[tuple[Role | Literal[""], str]] = []
    for role, content in _TURN.findall(text):
        name = role.strip()
        if name not in get_args(Role):
            raise RecipeError(f"prompt_template: turn {name!r} cannot be honored. Roles: {', '.join(get_args(Role))}.")
        turns.append((name, content.strip()))
    if not turns or _TURN.sub("", text).strip():
        raise RecipeError("prompt_template: expected nothing but turns from <|im_start|>role to <|im_end|>.")
    return tuple(turns)


def _human(text: str) -> tuple[tuple[Role | Literal[""], str], ...]:
    parts = _HUMAN.split(f"\n\n{text.lstrip()}")
    if len(parts) < 3:
        return (("user", text.strip()),)
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    before: list[tuple[Role | Literal[""], str]] = [("system", parts[0].strip())] if parts[0].strip() else []
    said = [(roles[who], what.strip()) for who, what in zip(parts[1::2], parts[2::2], strict=True)]
    return (*before, *((role, what) for role, what in said if what))
