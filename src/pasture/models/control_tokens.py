"""Control tokens: they stand between prompt and answer, say which kind of answer is wanted, and no text can spell them.

A model that was trained with them is asked with one of them ever after. Which one is written in its
tokenizer_config.json, under `answer_prefix`, so that it travels with the model folder.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from pasture.core.errors import ModelError

ANSWER_PREFIX = "answer_prefix"
"""Key of tokenizer_config.json: the control token that follows every prompt."""


def control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids of all tokens that structure a text and are none of it.

    Some tokenizers name few of them, and mark the rest as special in the vocabulary. The unknown token stands for words
    of the text, unless it ends or pads one too, as in GPT-2's.
    """
    marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    structure = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    return marked.union(tokenizer.all_special_ids) - ({tokenizer.unk_token_id} - structure)


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text: what reads like a control token in it is no such token."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def add_control_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> None:
    """Make `tokens` control tokens of `tokenizer`; those that it has already stay as they are.

    A model loaded with this tokenizer gets a row for each that it has none for, the mean of its other rows.

    Raises:
        ModelError: if one is a word of the vocabulary, which any text could spell.
    """
    control = {tokenizer.convert_ids_to_tokens(number) for number in control_ids(tokenizer)}
    spelled = sorted(set(tokens) & set(tokenizer.get_vocab()) - control)
    if spelled:
        raise ModelError(f"{spelled[0]!r} is a word of the tokenizer, so text could forge it. Take another name.")
    new = [token for token in tokens if token not in control]
    tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)


def set_answer_prefix(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Let `token` follow every prompt from now on, and wherever the tokenizer is loaded after it was saved.

    Raises:
        ModelError: if it is no control token of `tokenizer`.
    """
    control_token_id(tokenizer, token)
    tokenizer.init_kwargs[ANSWER_PREFIX] = token


def answer_prefix_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What follows every prompt of the model that `tokenizer` was loaded with: one control token, or nothing.

    Raises:
        ModelError: if its tokenizer_config.json names one that is no control token.
    """
    token = tokenizer.init_kwargs.get(ANSWER_PREFIX)
    return [] if token is None else [control_token_id(tokenizer, str(token))]


def control_token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of a control token.

    Raises:
        ModelError: if it is none.
    """
    other_use = {tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token}
    control = map(tokenizer.convert_ids_to_tokens, sorted(control_ids(tokenizer)))
    usable = [one for one in control if one not in other_use]
    if token not in usable:
        raise ModelError(
            f"{token!r} cannot follow a prompt: the tokenizer's control tokens are {', '.join(usable) or 'none'}. "
            f"Name one of them as {ANSWER_PREFIX!r} in tokenizer_config.json, or remove that key."
        )
    return int(tokenizer.convert_tokens_to_ids(token))
