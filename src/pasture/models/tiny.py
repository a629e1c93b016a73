"""Models small enough to make on the spot: one of each common shape, and the meadow's own."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

Shape: TypeAlias = Literal["llama", "qwen", "gpt2", "neox"]

UNKNOWN = "<unk>"
PAD = "<pad>"
END = "<eos>"


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    r"""A tokenizer whose tokens are `words`, whatever blanks stand between them, and the line break.

    Ids: 0 is the unknown word, then `words` in order, then the line break where `words` lacks it, then pad and end.
    Decoding puts one blank between words and none around a line break. Text that spells out a special token, such as
    "<eos>", is read as an unknown word: a prompt cannot end itself.

    Raises:
        ValueError: if a word is empty, holds white space (the lone "\n" excepted), occurs twice or is a special token.
    """
    spelled = list(words) if "\n" in words else [*words, "\n"]
    for word in spelled:
        if word != "\n" and (not word or word.split() != [word]):
            raise ValueError(f"a word must be non-empty and free of white space, got {word!r}")
    vocabulary = {word: number for number, word in enumerate([UNKNOWN, *spelled])}
    if len(vocabulary) != len(spelled) + 1 or PAD in vocabulary or END in vocabulary:
        raise ValueError(f"words must be distinct and none of {UNKNOWN}, {PAD}, {END}")
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"), pre_tokenizers.Split("\n", "isolated")]
    )
    # tokenizers has no decoder that joins with blanks and goes on; WordPiece does when no word has its prefix.
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="\x00", cleanup=False), decoders.Fuse(), decoders.Replace(Regex(" ?\n ?"), "\n")]
    )
    tokenizer.add_special_tokens([PAD, END])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=END,
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def tiny_model(shape: Shape, vocab_size: int, seed: int, *, hidden_size: int = 32, layers: int = 2) -> PreTrainedModel:
    """A causal language model with random weights, in evaluation mode; the same weights for the same arguments.

    The weights are drawn wide enough that its predictions differ clearly from token to token.
    """
    common: dict[str, Any] = {"vocab_size": vocab_size, "initializer_range": 0.2} | _NO_SPECIAL_IDS
    decoder = common | {
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }
    configs = {
        "llama": lambda: LlamaConfig(**decoder, num_key_value_heads=4),
        "qwen": lambda: Qwen3Config(**decoder, num_key_value_heads=2, head_dim=hidden_size // 4),
        "gpt2": lambda: GPT2Config(**common, n_embd=hidden_size, n_layer=layers, n_head=4, n_positions=256),
        "neox": lambda: GPTNeoXConfig(**decoder),
    }
    return _seeded(configs[shape](), seed)


def new_meadow_model(vocab_size: int, seed: int) -> PreTrainedModel:
    """An untrained Llama of about 0.7M parameters, in evaluation mode: what the meadow's base model grows from."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        **_NO_SPECIAL_IDS,
    )
    return _seeded(config, seed)


_NO_SPECIAL_IDS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
"""Families preset ids of their own vocabularies; ours are written when model and tokenizer are saved together."""


def _seeded(config: Any, seed: int) -> PreTrainedModel:
    # transformers draws initial weights from torch's global generator; the fork gives it back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()
