"""A tokenizer's own chat template, taken apart: what stands before and after a user's turn, and what ends an answer.

The template is rendered around a stand-in, and what the user says is read apart from it: a text that spells out the end
of its turn says so, it does not end it.
"""

from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from pasture.core.errors import ModelError
from pasture.models.control_tokens import control_ids

_MARK = "5f1c6a0e-what-is-said-9b7d3e42"
_ANSWER_MARK = "c27e84d1-what-is-answered-08f6a5b3"

# Some templates write today's date, or a place to think, unless they are told otherwise.
_FIXED = {"date_string": "26 Jul 2024", "enable_thinking": False}


@dataclass(frozen=True)
class ChatFrame:
    """Token ids around one turn of a user."""

    before_ids: list[int]
    after_ids: list[int]
    """Up to where the answer begins."""
    end_id: int
    """The token that ends the answer's turn."""


def chat_frame(tokenizer: PreTrainedTokenizerBase) -> ChatFrame:
    """How the tokenizer's chat template frames a conversation of one turn.

    Raises:
        ModelError: if it has none, or one that does not keep what is said.
    """
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template. "
            "Name another prompt template (alpaca, plain), or a chat model."
        )
    asked = [{"role": "user", "content": _MARK}]
    answered = [*asked, {"role": "assistant", "content": _ANSWER_MARK}]
    prompt, conversation = _render(tokenizer, asked, generation=True), _render(tokenizer, answered, generation=False)
    before, mark, after = prompt.partition(_MARK)
    _, answer_mark, rest = conversation.partition(_ANSWER_MARK)
    if not mark or not answer_mark or not after:
        raise ModelError(
            f"{tokenizer.name_or_path}: its chat template drops what is said, or does not say where an answer begins. "
            "Name another prompt template (alpaca, plain)."
        )
    end_ids = _ids(tokenizer, rest)[:1]
    ends = end_ids and end_ids[0] in control_ids(tokenizer)
    return ChatFrame(
        before_ids=_ids(tokenizer, before),
        after_ids=_ids(tokenizer, after),
        end_id=end_ids[0] if ends else int(tokenizer.eos_token_id),
    )


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


def _render(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, generation: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(turns, add_generation_prompt=generation, tokenize=False, **_FIXED))
    except (TemplateError, ValueError, TypeError) as error:
        raise ModelError(f"{tokenizer.name_or_path}: its chat template fails ({error}).") from error


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])
