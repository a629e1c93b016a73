"""Scalar models, against the backbone run by transformers on unpadded rows and a product in NumPy."""

import numpy as np
import pytest
import torch

from pasture.core.errors import ModelError
from pasture.models.batches import pad_left, pad_right
from pasture.models.heads import ScalarModel
from pasture.models.load import HEAD_FILE, save_model
from pasture.models.tiny import tiny_model, word_tokenizer

SHAPES = ["llama", "qwen", "gpt2", "neox"]
ROWS = [[3, 1, 4, 1, 5, 9, 2], [6, 5], [3], [5, 8, 9, 7]]


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_the_heads_product_under_either_padding(shape):
    model = tiny_model(shape, 12, seed=0)
    scalar = ScalarModel.from_causal_lm(model).eval()
    scalar.offset.fill_(0.25)
    weight, bias = scalar.head.weight.detach().numpy()[0], scalar.head.bias.item()
    with torch.no_grad():
        left = scalar(*pad_left(ROWS, 0))[:, -1]
        right = scalar(*pad_right(ROWS, 0))[range(len(ROWS)), [len(row) - 1 for row in ROWS]]
        for number, row in enumerate(ROWS):
            hidden_TD = model.base_model(input_ids=torch.tensor([row])).last_hidden_state[0].numpy()
            expected = float(hidden_TD[-1] @ weight + bias - 0.25)
            assert left[number].item() == pytest.approx(expected, abs=1e-5)
            assert right[number].item() == pytest.approx(expected, abs=1e-5)
    assert left.std() > 0.01


def test_the_first_head_has_the_papers_spread_and_one_seed_is_one_head():
    model = tiny_model("llama", 12, seed=0, hidden_size=512)
    head = ScalarModel.from_causal_lm(model, seed=3).head
    assert head.weight.std().item() == pytest.approx(513**-0.5, rel=0.15)
    assert head.bias.item() == 0.0
    assert torch.equal(head.weight, ScalarModel.from_causal_lm(model, seed=3).head.weight)
    assert not torch.equal(head.weight, ScalarModel.from_causal_lm(model, seed=4).head.weight)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_saved_model_loads_to_the_same_bits(shape, tmp_path):
    scalar = ScalarModel.from_causal_lm(tiny_model(shape, 12, seed=0)).eval()
    scalar.offset.fill_(-1.5)
    scalar.save(tmp_path)
    loaded = ScalarModel.load(tmp_path)
    ids_BT, mask_BT = pad_right(ROWS, 0)
    with torch.no_grad():
        assert torch.equal(loaded(ids_BT, mask_BT), scalar(ids_BT, mask_BT))
    assert loaded.offset.item() == -1.5
    assert not loaded.training


def test_offset_is_no_parameter():
    scalar = ScalarModel.from_causal_lm(tiny_model("llama", 12, seed=0))
    assert "offset" not in dict(scalar.named_parameters())
    assert "offset" in scalar.state_dict()


def test_the_head_computes_in_float32_on_a_bfloat16_backbone():
    model = tiny_model("llama", 12, seed=0).to(torch.bfloat16)
    scalar = ScalarModel.from_causal_lm(model)
    value_BT = scalar(*pad_left(ROWS, 0))
    assert value_BT.dtype == torch.float32
    assert np.isfinite(value_BT.detach().numpy()).all()


def test_a_language_model_is_no_scalar_model(tmp_path):
    tokenizer = word_tokenizer(["a"])
    save_model(tiny_model("llama", len(tokenizer), seed=0), tokenizer, tmp_path)
    with pytest.raises(ModelError, match="no reward or value model"):
        ScalarModel.load(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        ScalarModel.load(tmp_path / "nowhere")


def test_a_damaged_head_is_named(tmp_path):
    ScalarModel.from_causal_lm(tiny_model("llama", 12, seed=0)).save(tmp_path)
    (tmp_path / HEAD_FILE).write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match=HEAD_FILE):
        ScalarModel.load(tmp_path)
