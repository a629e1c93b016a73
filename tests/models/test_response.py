"""Responses read without what is not asked for; where a family does more to its logits, the whole model is run."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, GraniteConfig

from pasture.models.response import ResponseModel
from pasture.models.tiny import tiny_model

SMALL = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1} | {
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip


def seeded(config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**SMALL, final_logit_softcapping=30.0),
        # Logits below a thousandth, of which a fourth is taken.
        GraniteConfig(**SMALL, initializer_range=1e-5, logits_scaling=4.0),
    ],
)
def test_what_is_done_to_logits_is_not_missed_where_they_are_small_at_first(config):
    model = seeded(config)
    responder = ResponseModel(model)
    ids_BT, at_BT = torch.tensor([[3, 4, 5]]), torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        assert float(model(input_ids=ids_BT).logits.abs().max()) < 1.0
        model.get_output_embeddings().weight.mul_(1000.0)  # as training would, in the end
        expected_NV = model(input_ids=ids_BT).logits[0]
        torch.testing.assert_close(responder.head(responder.hidden(ids_BT, at_BT)), expected_NV)
    assert not responder.takes_shortcut


@pytest.mark.parametrize("shape", ["llama", "qwen", "gpt2", "neox"])
def test_models_that_apply_their_output_layer_and_no_more_skip_it_at_prompts(shape):
    assert ResponseModel(tiny_model(shape, 32, seed=0)).takes_shortcut
    assert ResponseModel(tiny_model(shape, 32, seed=0).to(torch.bfloat16)).takes_shortcut


def test_a_family_that_may_cap_its_logits_and_does_not_skips_it_too():
    assert ResponseModel(seeded(Gemma3TextConfig(**SMALL, final_logit_softcapping=None))).takes_shortcut
