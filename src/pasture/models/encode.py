"""Text to tokens and back, the same way wherever a model is trained, sampled or asked for a score.

Prompt and completion are tokenized apart, so that what a model is trained to continue is, token for token, what it is
asked to continue. Text cannot forge a control token: what reads like the end token in an instruction or an answer
never becomes it. Where a model was trained to be asked with a control token after the prompt, it is asked so.
"""

import copy
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from pasture.core.errors import DataError
from pasture.core.hostile import on_one_line, shortened
from pasture.core.records import Completion, Instruction
from pasture.core.templates import PromptTemplate
from pasture.models.chat import Trimming, chat_frame, end_answers_with_turn
from pasture.models.control_tokens import answer_prefix_ids, control_ids, control_token_id, text_ids

_TOLD_CHARACTERS = 60
NO_LIMIT = 2**40
"""`max_tokens` of an encoder that cuts nothing."""


@dataclass(frozen=True)
class EncodedPair:
    """A prompt and its completion as token ids."""

    prompt_ids: list[int]
    """With the control token last, where there is one."""
    response_ids: list[int]
    """With the end token last, unless the completion was cut."""

    @property
    def ids(self) -> list[int]:
        """Prompt and response as one sequence."""
        return self.prompt_ids + self.response_ids

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


class Encoder:
    """A tokenizer, as `load_tokenizer` gives it, and a prompt format, held together."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, *, max_tokens: int) -> None:
        """Take both; where the template is a user's turn, the end of a turn becomes the tokenizer's end token.

        Raises:
            ModelError: if the tokenizer lacks the chat template that a turn needs.
        """
        opening, closing, self._trimming = self._frame(tokenizer, template)
        self.tokenizer = tokenizer
        self.template = template
        self.max_tokens = max_tokens
        """Most tokens of prompt and completion together."""
        self.end_id = int(tokenizer.eos_token_id)
        self.pad_id = int(tokenizer.pad_token_id)
        self._control_ids = control_ids(tokenizer)
        # Tokenizing costs more than looking up, and a prompt comes again with every answer to it.
        self._prompts: dict[str, list[int]] = {}
        self._opening_ids, self._closing_ids = opening, closing
        self._answer_prefix_ids = answer_prefix_ids(tokenizer)

    def asking_with(self, control_token: str) -> "Encoder":
        """This encoder with `control_token` after every prompt, whatever the tokenizer was saved with.

        Raises:
            ModelError: if it is no control token.
        """
        other = copy.copy(self)
        other._answer_prefix_ids = [control_token_id(self.tokenizer, control_token)]
        other._prompts = {}
        other._control_ids = control_ids(self.tokenizer)  # the token may be newer than this encoder
        return other

    @staticmethod
    def _frame(tokenizer: PreTrainedTokenizerBase, template: PromptTemplate) -> tuple[list[int], list[int], Trimming]:
        """Token ids before and after a prompt's text, and which white space is left out around it."""
        if template.is_turn:
            frame = chat_frame(tokenizer)
            end_answers_with_turn(tokenizer, frame)
            return frame.before_ids, frame.after_ids, frame.trimming
        return opening_ids(tokenizer), [], Trimming()

    def prompt(self, instruction: Instruction) -> list[int]:
        """Token ids of the rendered prompt, in the tokenizer's frame of a text or of a turn, and the control token.

        Raises:
            DataError: if the prompt leaves no room for an answer.
        """
        text = self._trimming.of(self.template.render(instruction))
        if text not in self._prompts:
            self._prompts[text] = [
                *self._opening_ids,
                *self._text_ids(text),
                *self._closing_ids,
                *self._answer_prefix_ids,
            ]
        ids = self._prompts[text]
        if not ids or len(ids) >= self.max_tokens:
            begins = on_one_line(shortened(text, _TOLD_CHARACTERS))
            raise DataError(
                f"instruction {instruction.id!r}, {begins!r}: expected a prompt of 1 to {self.max_tokens - 1} tokens, "
                f"got {len(ids)}. Shorten it; or raise max_tokens or max_prompt_tokens, or lower max_new_tokens, as "
                "far as the model's context goes; or leave such rows out: leave_out_long under [data] of a recipe, "
                "--leave-out-long of a command."
            )
        return list(ids)

    def pair(self, instruction: Instruction, completion: Completion) -> EncodedPair:
        """Prompt and completion, cut to `max_tokens`.

        The end token follows unless the completion ran into a length limit, there or here: a cut answer is no
        example of how to stop.

        Raises:
            DataError: if the prompt leaves no room for an answer.
        """
        prompt_ids = self.prompt(instruction)
        response_ids = self._text_ids(completion.text)
        if completion.finish_reason != "length":
            response_ids = [*response_ids, self.end_id]
        return EncodedPair(prompt_ids, response_ids[: self.max_tokens - len(prompt_ids)])

    def text(self, token_ids: list[int]) -> str:
        """What the tokens say, control tokens left out."""
        kept = [token for token in token_ids if token not in self._control_ids]
        return str(self.tokenizer.decode(kept, clean_up_tokenization_spaces=False))

    def _text_ids(self, text: str) -> list[int]:
        return [token for token in text_ids(self.tokenizer, text) if token not in self._control_ids]


def opening_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a text; what it may put behind one is left out, and is often the same token."""
    framed, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    begins = [at for at in range(len(framed)) if framed[at : at + len(bare)] == bare]
    return list(framed[: begins[0]]) if begins else []
