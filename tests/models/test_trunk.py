"""Packed tokens are read as their rows are: oracle is the model itself on one row at a time, without padding."""

import copy
import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BioGptConfig,
    FalconConfig,
    GraniteConfig,
    MistralConfig,
    OPTConfig,
    XGLMConfig,
)

from pasture.models import trunk
from pasture.models.sample import SamplerConfig, sample
from pasture.models.tiny import tiny_model
from pasture.models.trainable import compute_layers_again
from pasture.models.trunk import Rows, Trunk

LENGTHS = (5, 9, 1, 7)
SMALL = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2} | {
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None, "initializer_range": 0.2,
}  # fmt: skip

FALCON = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True}


def rows(pad=0):
    """Ids, which of them are the rows' own, and every other place of these, the last of all rows among them."""
    own_BT = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    drawn = torch.from_numpy(np.random.default_rng(0).integers(1, 32, own_BT.shape))
    drawn[0, :3] = drawn[3, :3] = drawn[1, :3]
    drawn[0, 3] = drawn[1, 3]
    places = [9 * row + t for row, length in enumerate(LENGTHS) for t in range(length) if (length - 1 - t) % 2 == 0]
    return torch.where(own_BT, drawn, pad), own_BT, torch.tensor(places)


def read(model, hidden_KH):
    """Hidden states, and the gradients of a fixed combination of them."""
    weight_KH = torch.from_numpy(np.random.default_rng(1).normal(size=tuple(hidden_KH.shape))).float()
    (hidden_KH * weight_KH).sum().backward()
    gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    return hidden_KH.detach(), gradients


def alone(model):
    ids_BT, _, at_K = rows()
    states = [model(input_ids=ids_BT[row : row + 1, :n]).last_hidden_state[0] for row, n in enumerate(LENGTHS)]
    padded = [torch.cat([one, one.new_zeros(9 - len(one), one.shape[1])]) for one in states]
    return read(model, torch.cat(padded)[at_K])


def packed(model, *, found=None, pad=0):
    found = Trunk(model) if found is None else found
    ids_BT, own_BT, at_K = rows(pad)
    return read(model, found.hidden(Rows(ids_BT, own_BT, own_BT), at_K))


def assert_same(one, other):
    np.testing.assert_allclose(one[0], other[0], atol=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        np.testing.assert_allclose(gradient, other[1][name], atol=1e-5 * float(gradient.abs().max() + 1), err_msg=name)


@pytest.mark.parametrize(("shape", "ends_early"), [("llama", True), ("qwen", True), ("gpt2", False), ("neox", False)])
def test_hidden_states_and_gradients_are_those_of_rows_alone(shape, ends_early):
    model = tiny_model(shape, 32, seed=0).base_model
    expected = alone(model)
    found = Trunk(model)
    assert found.packs
    assert found.ends_early == ends_early
    assert_same(expected, packed(model, found=found))
    assert_same(expected, alone(model))  # and the model itself is as it was


def test_what_rows_begin_with_is_read_once():
    # By hand: 5, 9, 1 and 7 tokens, of which the first row shares 4 and the last 3 with the second.
    ids_BT, own_BT, at_K = rows()
    seen = []
    model = tiny_model("llama", 32, seed=0).base_model
    found = Trunk(model)
    model.embed_tokens.register_forward_hook(lambda module, given, made: seen.append(made.shape[1]))
    found.hidden(Rows(ids_BT, own_BT, own_BT), at_K)
    assert seen == [5 + 9 + 1 + 7 - 4 - 3]
    seen.clear()
    found.hidden(Rows(ids_BT, own_BT, torch.zeros_like(own_BT)), at_K)
    assert seen == [5 + 9 + 1 + 7]


def test_a_second_trunk_of_one_backbone_leaves_the_first_right():
    model = tiny_model("llama", 32, seed=0).base_model
    expected, first = alone(model), Trunk(model)
    second = Trunk(model)
    assert second.ends_early
    for one in (first, second):
        assert_same(expected, packed(model, found=one))


def test_what_stands_at_pads_changes_nothing():
    model = tiny_model("llama", 32, seed=0).base_model
    one, other = packed(model, pad=0), packed(model, pad=17)
    assert torch.equal(one[0], other[0])
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.mark.parametrize(
    "fault",
    [
        # Pads that hand gradients on to the tokens they see; tokens that rows share, with the gradient of one of them;
        # a token read one place off; a layer that ends one off.
        lambda packing: setattr(packing, "left_out_R11", torch.zeros_like(packing.left_out_R11)),
        lambda packing: setattr(packing, "again_D", packing.again_D[:1]),
        lambda packing: setattr(packing, "kept_N", packing.kept_N.roll(1)),
        lambda packing: setattr(packing, "at_K", packing.at_K.roll(1)),
    ],
)
def test_tokens_at_the_wrong_place_are_told_apart(monkeypatch, fault):
    model = tiny_model("llama", 32, seed=0).base_model
    expected, found = alone(model), Trunk(model)
    begin = trunk.Packing.__init__

    def faulty(packing, *settings):
        begin(packing, *settings)
        fault(packing)

    monkeypatch.setattr(trunk.Packing, "__init__", faulty)
    with pytest.raises(AssertionError):
        assert_same(expected, packed(model, found=found))


def test_a_fault_in_packing_is_caught_before_training(monkeypatch, caplog):
    model = tiny_model("llama", 32, seed=0).base_model
    expected = alone(model)
    monkeypatch.setattr(trunk.Packing, "gather", lambda packing, x: x.flatten(0, 1)[: len(packing.kept_N)][None])
    with caplog.at_level("INFO"):
        found = Trunk(model)
    assert not found.packs
    assert "compute otherwise" in caplog.text
    assert_same(expected, packed(model, found=found))


def test_a_layer_that_is_put_together_otherwise_runs_to_its_end():
    # Granite has the parts of a Llama's layer and scales what each adds.
    model = AutoModelForCausalLM.from_config(GraniteConfig(**SMALL, residual_multiplier=0.5)).eval().base_model
    expected, found = alone(model), Trunk(model)
    assert found.packs
    assert not found.ends_early
    assert_same(expected, packed(model, found=found))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (AutoModelForCausalLM.from_config(MistralConfig(**SMALL, sliding_window=4096)), "do not attend to all"),
        (AutoModelForCausalLM.from_config(MistralConfig(**SMALL, sliding_window=None), attn_implementation="eager"),
         "'eager'"),
        (AutoModelForCausalLM.from_config(FalconConfig(**FALCON)), "reads places off a mask"),
    ],
)  # fmt: skip
def test_other_attention_is_left_alone_and_said(model, said, caplog):
    model = model.eval().base_model
    before, expected = model.config._attn_implementation, alone(model)
    with caplog.at_level("INFO"):
        found = Trunk(model)
    assert said in caplog.text
    assert model.config._attn_implementation == before
    assert_same(expected, packed(model, found=found))


def test_layers_that_are_computed_again_give_the_same_gradients():
    model = tiny_model("llama", 32, seed=0)
    expected = alone(model.base_model)
    compute_layers_again(model)
    assert_same(expected, packed(model.base_model))


@pytest.mark.parametrize(
    ("config", "first"),
    [
        # Layers drop out by their own training mode, by which transformers asks whether to compute them again; what
        # holds the layers drops out and leaves layers out by its own.
        (OPTConfig(vocab_size=32, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                   word_embed_proj_dim=32, max_position_embeddings=64, dropout=0.5, layerdrop=0.5, init_std=0.2),
         "decoder.layers.0.fc1"),
        (XGLMConfig(vocab_size=32, d_model=32, ffn_dim=64, num_layers=2, attention_heads=4, dropout=0.5,
                    max_position_embeddings=64, layerdrop=0.5, init_std=0.2), "layers.0.fc1"),
        (BioGptConfig(vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                      max_position_embeddings=64, hidden_dropout_prob=0.5, layerdrop=0.5, initializer_range=0.2),
         "layers.0.fc1"),
    ],
)  # fmt: skip
def test_layers_that_are_computed_again_drop_nothing_out(config, first):
    model = AutoModelForCausalLM.from_config(config).eval().base_model
    ids_BT = torch.tensor([[3, 9, 4, 17, 5]])

    def gradients():
        model(input_ids=ids_BT).last_hidden_state.square().mean().backward()
        found = {name: one.grad.clone() for name, one in model.named_parameters()}
        model.zero_grad()
        return found

    expected = gradients()
    compute_layers_again(model)
    calls = []
    model.get_submodule(first).register_forward_hook(lambda *_: calls.append(1))
    for name, gradient in gradients().items():
        np.testing.assert_allclose(gradient, expected[name], atol=1e-6, err_msg=name)
    assert len(calls) == 2  # forwards, and again on the way back


def test_a_copy_of_a_model_reads_with_its_own_weights():
    model = tiny_model("llama", 32, seed=0).base_model
    Trunk(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.layers[-1].parameters():
            weight.zero_()
    expected = alone(tiny_model("llama", 32, seed=0).base_model)
    assert_same(expected, packed(twin))


def test_a_packing_model_draws_and_is_saved_as_any_other(tmp_path):
    plain, model = tiny_model("llama", 32, seed=0), tiny_model("llama", 32, seed=0)
    Trunk(model.base_model)
    prompts, config = [[3, 4, 5], [6]], SamplerConfig(max_new_tokens=6)
    assert sample(model, 1, prompts, [0, 1], config) == sample(plain, 1, prompts, [0, 1], config)
    model.save_pretrained(tmp_path)
    assert "pasture" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
