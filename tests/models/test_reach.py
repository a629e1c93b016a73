"""How far tokens reach: what configs say of attention."""

import pytest
from transformers import (
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from pasture.models.reach import beyond_plain_attention

SMALL = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2} | {
    "num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip
LOCAL = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (MistralConfig(**SMALL, sliding_window=8), "do not attend to all"),
        (Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=8, max_window_layers=1), "do not attend to all"),
        (Gemma2Config(**SMALL, sliding_window=8), "do not attend to all"),
        (GPTNeoConfig(**LOCAL), "do not attend to all"),
        (Llama4TextConfig(**SMALL, attention_chunk_size=8), "do not attend to all"),
        (FalconConfig(alibi=True), "off a mask"),
        (MistralConfig(**SMALL, sliding_window=None), None),
        (Qwen2Config(**SMALL, use_sliding_window=False, sliding_window=8), None),
        (FalconConfig(alibi=False), None),
        (LlamaConfig(**SMALL), None),
        (GPT2Config(), None),
    ],
)
def test_attention_that_is_not_plain_is_told_by_the_config(config, said):
    found = beyond_plain_attention(config)
    assert found is None if said is None else said in str(found)
