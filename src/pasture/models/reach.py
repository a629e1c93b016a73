"""How far a model's tokens reach, as its config says: which of them attention sees."""

from transformers import PreTrainedConfig

_WINDOWS = ("sliding_window", "window_size", "attention_window_size")
"""What families call the number of tokens that attention looks back on; GPT-Neo has one that no layer need use."""


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
