"""The output layer in blocks, against the layer itself."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from pasture.models import output_layer
from pasture.models.output_layer import output_in_blocks
from pasture.models.sample import SamplerConfig, sample
from pasture.models.tiny import tiny_model


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks that even a tiny model has several of, and a last one that is not whole."""
    monkeypatch.setattr(output_layer, "BLOCK", 10)
    monkeypatch.setattr(output_layer, "LEAST_BLOCKS", 4)


def states(model, *shape):
    return torch.randn(*shape, model.config.hidden_size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("biased", [False, True])
def test_blocks_give_what_the_layer_gives(biased):
    model = tiny_model("llama", 43, seed=0)
    layer = model.get_output_embeddings()
    if biased:
        layer.bias = nn.Parameter(torch.linspace(-1, 1, 43))
    hidden_BTH = states(model, 3, 5)
    with torch.inference_mode():
        expected_BTV = layer(hidden_BTH)
        with output_in_blocks(model):
            assert "forward" in vars(layer)
            torch.testing.assert_close(layer(hidden_BTH), expected_BTV)
        assert "forward" not in vars(layer)


def test_the_layer_is_itself_again_after_an_error():
    model = tiny_model("llama", 43, seed=0)
    with pytest.raises(RuntimeError, match="out of memory"), output_in_blocks(model):
        raise RuntimeError("out of memory")
    assert "forward" not in vars(model.get_output_embeddings())


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_small_vocabulary_another_precision_and_an_adapter_are_left_alone():
    model = tiny_model("llama", 39, seed=0)
    with output_in_blocks(model):
        assert "forward" not in vars(model.get_output_embeddings())
    half = tiny_model("llama", 43, seed=0).to(torch.bfloat16)
    with output_in_blocks(half):
        assert "forward" not in vars(half.get_output_embeddings())
    adapted = get_peft_model(tiny_model("llama", 43, seed=0), LoraConfig(target_modules=["lm_head"]))
    with output_in_blocks(adapted):
        assert "forward" not in vars(adapted.get_output_embeddings())


def test_answers_are_drawn_through_it(monkeypatch):
    model = tiny_model("llama", 43, seed=0)
    used = []
    real = output_layer.multiply_in_blocks

    def watched(layer, hidden_BTH):
        used.append(layer)
        return real(layer, hidden_BTH)

    monkeypatch.setattr(output_layer, "multiply_in_blocks", watched)
    drawn = sample(model, [99], [[1, 2], [3]], [0, 1], SamplerConfig(max_new_tokens=5))
    assert len(used) == 5
    monkeypatch.setattr(output_layer, "LEAST_BLOCKS", 100)
    plain = sample(model, [99], [[1, 2], [3]], [0, 1], SamplerConfig(max_new_tokens=5))
    assert [one.token_ids for one in drawn] == [one.token_ids for one in plain]
    assert len(used) == 5
