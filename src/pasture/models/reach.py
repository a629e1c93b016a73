"""How far a model's tokens reach, as its config says: how many there may be, and which of them attention sees."""

from typing import Any

from transformers import PreTrainedConfig

_WINDOWS = ("sliding_window", "window_size", "attention_window_size")
"""What families call the number of tokens that attention looks back on; GPT-Neo has one that no layer need use."""


def context(config: PreTrainedConfig) -> int | None:
    """How many tokens of prompt and answer a model reads the same in whatever company; None where nothing says.

    That is its context, but for LongRoPE, which turns every position of a batch otherwise as soon as one of its rows
    is longer than the context of before it was stretched: there that shorter one is the limit.

    Source: Ding et al. 2024, https://arxiv.org/abs/2402.13753 (LongRoPE)
    """
    settings = config.get_text_config()
    most: int | None = getattr(settings, "max_position_embeddings", None)
    short = unstretched_context(config)
    return most if short is None else min(short, short if most is None else most)


def unstretched_context(config: PreTrainedConfig) -> int | None:
    """Up to how many tokens a model with LongRoPE takes the factors of short rows; None for other models."""
    rope: dict[str, Any] = getattr(config.get_text_config(), "rope_parameters", None) or {}
    by_kind = [rope, *(one for one in rope.values() if isinstance(one, dict))]  # of layers, where they differ
    shorts = [one["original_max_position_embeddings"] for one in by_kind if one.get("rope_type") == "longrope"]
    return min(shorts, default=None)


def beyond_plain_attention(config: PreTrainedConfig) -> str | None:
    """What of a model's attention is no plain one, in which a token sees all that came before it and nothing else.

    None where all of it is plain. Otherwise a mask of one's own would take the place of the model's, which only rows
    longer than a test's would show.
    """
    settings = config.get_text_config()
    kinds = set(getattr(settings, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or any(getattr(settings, name, None) is not None for name in _WINDOWS):
        return f"{settings.model_type} has layers that do not attend to all that came before"
    if getattr(settings, "alibi", False):
        return f"{settings.model_type} reads places off a mask of its own kind"
    return None
