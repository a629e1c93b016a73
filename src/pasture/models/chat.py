"""A tokenizer's own chat template, taken apart: what it writes around what is said, and what ends an answer.

The template is rendered around stand-ins, and what the messages say is read apart from it: a message that spells out
the end of its turn says so, it does not end it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from pasture.core.errors import ModelError
from pasture.core.requests import Message, Role
from pasture.models.control_tokens import control_ids, text_ids

_MARK = "5f1c6a0e-what-is-said-{}-9b7d3e42"
"""Stands for a message, with its place in the conversation."""
_ANY_MARK = re.compile(_MARK.format(r"(\d+)"))

_BLANKS = ("\t", "\n")
"""Before and after a message, to see which a template leaves out; two kinds, so that they tell messages apart."""

# Some templates write today's date, or a place to think, unless they are told otherwise.
_FIXED = {"date_string": "26 Jul 2024", "enable_thinking": False}

_OTHER_PROMPT = (
    "Name another prompt template (--template plain or alpaca; model.template in a recipe), or a chat model."
)


@dataclass(frozen=True)
class Trimming:
    """Which white space around a message a template leaves out."""

    leading: bool = False
    trailing: bool = False

    def of(self, text: str) -> str:
        """The message as the template writes it."""
        text = text.lstrip() if self.leading else text
        return text.rstrip() if self.trailing else text


@dataclass(frozen=True)
class ChatFrame:
    """Token ids around one turn of a user."""

    before_ids: list[int]
    after_ids: list[int]
    """Up to where the answer begins."""
    end_id: int
    """The token that ends the answer's turn."""
    trimming: Trimming
    """Of what the user says."""


def chat_frame(tokenizer: PreTrainedTokenizerBase) -> ChatFrame:
    """How the tokenizer's chat template frames a conversation of one turn.

    Raises:
        ModelError: if it has none, or one that does not keep what is said.
    """
    written = _written(tokenizer, ["user"], generation=True, advice=_OTHER_PROMPT)
    before, after = written[0]
    if not after:
        raise ModelError(
            f"{tokenizer.name_or_path}: its chat template does not say where an answer begins. {_OTHER_PROMPT}"
        )
    texts, places = _written(tokenizer, ["user", "assistant"], generation=False, advice=_OTHER_PROMPT)
    end_ids = _ids(tokenizer, texts[places.index(1) + 1])[:1]
    ends = end_ids and end_ids[0] in control_ids(tokenizer)
    return ChatFrame(
        before_ids=_ids(tokenizer, before),
        after_ids=_ids(tokenizer, after),
        end_id=end_ids[0] if ends else int(tokenizer.eos_token_id),
        trimming=_trimming(tokenizer, ["user"], *written)[0],
    )


def conversation_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, advice: str) -> list[int]:
    """Token ids of a conversation up to where the next answer begins, by the tokenizer's chat template.

    Each message stands where the template writes it, which need not be in the order of the conversation.

    Raises:
        ModelError: ending with `advice`, if there is no template, or one that fails, drops a message or repeats it.
    """
    roles = [message.role for message in messages]
    texts, places = _written(tokenizer, roles, generation=True, advice=advice)
    trimming = _trimming(tokenizer, roles, texts, places)
    ids = _ids(tokenizer, texts[0])
    for place, text in zip(places, texts[1:], strict=True):
        ids += text_ids(tokenizer, trimming[place].of(messages[place].content))
        ids += _ids(tokenizer, text)
    return ids


def end_answers_with_turn(tokenizer: PreTrainedTokenizerBase, frame: ChatFrame) -> None:
    """Make the token that ends a turn the tokenizer's end token, as models that were trained to chat expect.

    Raises:
        ModelError: if it is what the tokenizer pads with.
    """
    if frame.end_id == tokenizer.pad_token_id:
        raise ModelError(
            f"{tokenizer.name_or_path} pads with {tokenizer.pad_token!r}, which ends a turn of its chat template. "
            "Set another 'pad_token' in its tokenizer_config.json."
        )
    if frame.end_id != tokenizer.eos_token_id:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(frame.end_id)


def _trimming(
    tokenizer: PreTrainedTokenizerBase, roles: Sequence[Role], texts: Sequence[str], places: Sequence[int]
) -> dict[int, Trimming]:
    """What the template leaves out around each message, by its place: it is rendered once more, with blanks there.

    `texts` and `places` are what it writes without them.
    """
    blank, _ = _written(tokenizer, roles, generation=True, advice=_OTHER_PROMPT, around=_BLANKS)
    before, after = _BLANKS
    return {
        place: Trimming(
            leading=blank[number] in (texts[number], after + texts[number]),
            trailing=blank[number + 1] in (texts[number + 1], texts[number + 1] + before),
        )
        for number, place in enumerate(places)
    }


def _written(
    tokenizer: PreTrainedTokenizerBase,
    roles: Sequence[Role],
    *,
    generation: bool,
    advice: str,
    around: tuple[str, str] = ("", ""),
) -> tuple[list[str], list[int]]:
    """What the template writes before, between and after messages of these roles, and which stand in between.

    Each message says what `around` has before and after it, too.

    Raises:
        ModelError: if there is no template, or it fails, or does not write each message once.
    """
    name = tokenizer.name_or_path
    if tokenizer.chat_template is None:
        raise ModelError(f"{name}: the tokenizer has no chat template. {advice}")
    before, after = around
    turns = [{"role": role, "content": before + _MARK.format(place) + after} for place, role in enumerate(roles)]
    try:
        text = str(tokenizer.apply_chat_template(turns, add_generation_prompt=generation, tokenize=False, **_FIXED))
    except (TemplateError, ValueError, TypeError) as error:
        raise ModelError(f"{name}: its chat template fails ({error}). {advice}") from error
    parts = _ANY_MARK.split(text)
    places = [int(place) for place in parts[1::2]]
    for place, role in enumerate(roles):
        if places.count(place) != 1:
            does = "repeats" if place in places else "drops"
            raise ModelError(f"{name}: its chat template {does} what is said in turn {place + 1} ({role}). {advice}")
    return parts[::2], places


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])
