"""How far tokens reach: what configs say is held to what the models do with rows on both sides of it."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
)

from pasture.core.errors import ModelError
from pasture.models.load import save_model, within_context
from pasture.models.reach import beyond_plain_attention, context
from pasture.models.sample import SamplerConfig, sample
from pasture.models.tiny import word_tokenizer

SMALL = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2} | {
    "num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16} | {
    "short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 5.0], "partial_rotary_factor": 1.0,
}  # fmt: skip
OF_OLD = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
LOCAL = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
}


def stretched():
    config = Phi3Config(**SMALL, original_max_position_embeddings=16, rope_parameters=dict(LONGROPE))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def test_longrope_reads_rows_alike_up_to_the_context_and_not_beyond_it():
    model = stretched()
    assert context(model.config) == 16
    ids = torch.arange(3, 3 + 17)[None]

    def first_tokens(length):
        with torch.no_grad():
            return model(input_ids=ids[:, :length]).logits[:, :8]

    # The oracle: no token sees what comes after it, so a longer row must leave the first ones as they are.
    torch.testing.assert_close(first_tokens(16), first_tokens(8), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(first_tokens(17), first_tokens(8), atol=1e-2)


def test_longrope_limits_training_and_drawing_to_what_is_read_alike(tmp_path, caplog):
    model, tokenizer = stretched(), word_tokenizer([f"w{n}" for n in range(28)])
    save_model(model, tokenizer, tmp_path)
    assert within_context(tmp_path, 12) == 12
    assert "LongRoPE" not in caplog.text
    assert within_context(tmp_path, 1000) == 16
    assert "prompt and answer are held to 16 tokens; beyond them LongRoPE" in caplog.text
    config = SamplerConfig(max_new_tokens=6)
    # By hand: 10 tokens and an answer of 6 are 16, the 11 of another prompt one too many.
    sample(model, 1, [[3] * 10], [0], config)
    with pytest.raises(ModelError, match=r"LongRoPE.*holds 16\. Lower max_new_tokens, or leave out prompts over 10"):
        sample(model, 1, [[3] * 10, [4] * 11], [0, 1], config)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(**SMALL), 64),
        (LlamaConfig(**SMALL, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}), 64),
        (GPT2Config(n_positions=48), 48),
        (Phi3Config(**SMALL), 64),
        # As published folders have it: beside the factors, under the names of old.
        (Phi3Config(**SMALL, original_max_position_embeddings=16, rope_scaling=OF_OLD), 16),
        (BloomConfig(), None),
    ],
)  # fmt: skip
def test_contexts_are_those_of_the_configs(config, expected):
    assert context(config) == expected


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
