"""Answers behind a shared prompt are read as each alone: oracle is the model itself on one answer at a time."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, GPTNeoConfig, MambaConfig, MistralConfig

from pasture.formulas.logprobs import selected_logprobs
from pasture.models import shared_prompt
from pasture.models.encode import EncodedPair
from pasture.models.response import ResponseModel
from pasture.models.shared_prompt import AnswerLayout, hidden_states, obstacle_to_sharing
from pasture.models.tiny import tiny_model

PAD = 0
_attention = shared_prompt._attention
SHAPES = ["llama", "qwen", "gpt2", "neox"]


def groups(seed=0):
    """Groups of one to four answers with prompts and answers of many lengths, one answer without a token."""
    rng = np.random.default_rng(seed)

    def words(low, high):
        return rng.integers(1, 32, int(rng.integers(low, high))).tolist()

    found = []
    for size in (2, 1, 4, 3, 2):
        prompt = words(1, 9)
        found.append([EncodedPair(prompt, words(1, 12)) for _ in range(size)])
    found[2][1] = EncodedPair(found[2][1].prompt_ids, [])
    return found


def alone(model, answer):
    """Log-probabilities of an answer's tokens, and the hidden state of its last token."""
    with torch.no_grad():
        ids = torch.tensor([answer.ids])
        begin = len(answer.prompt_ids) - 1
        logits = model(input_ids=ids).logits[0, begin:-1]
        hidden = model.base_model(input_ids=ids).last_hidden_state[0, -1]
    return selected_logprobs(logits, torch.tensor(answer.response_ids, dtype=torch.long)), hidden


def check(model, layout):
    responder = ResponseModel(model)
    rows = layout.rows(groups())
    with torch.no_grad():
        logprobs = responder.answer_logprobs(rows)
        sums = rows.answer_sums(logprobs)
        last = hidden_states(model.base_model, rows)[rows.last_A]
    expected = [alone(model, answer) for group in groups() for answer in group]
    np.testing.assert_allclose(logprobs, torch.cat([one for one, _ in expected]), atol=1e-5)
    np.testing.assert_allclose(sums, [float(one.sum()) for one, _ in expected], atol=1e-5)
    np.testing.assert_allclose(last, torch.stack([hidden for _, hidden in expected]), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_answer_is_read_as_if_it_were_alone(shape, shares, attention):
    model = tiny_model(shape, 32, seed=0)
    model.set_attn_implementation(attention)
    layout = AnswerLayout(model.base_model, PAD)
    assert layout.shares_prompts
    layout.shares_prompts = shares
    check(model, layout)


def test_a_model_in_bfloat16_shares_as_well():
    assert obstacle_to_sharing(tiny_model("llama", 32, seed=0).to(torch.bfloat16).base_model) is None


@pytest.mark.parametrize(
    "fault",
    [
        # An answer that sees the one before it; positions that count through the row; a prompt that is not seen.
        lambda owner, dtype: _attention(torch.where(owner == 2, 1, owner), dtype),
        lambda owner, dtype: _attention(torch.zeros_like(owner), dtype),
        lambda owner, dtype: _attention(torch.where(owner == 0, 9, owner), dtype),
    ],
)
def test_attention_to_the_wrong_tokens_is_caught_before_training(monkeypatch, fault):
    monkeypatch.setattr(shared_prompt, "_attention", fault)
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_model("llama", 32, seed=0).to(dtype)
        assert "reads them otherwise" in str(obstacle_to_sharing(model.base_model))


def test_wrong_positions_are_caught_before_training():
    model = tiny_model("llama", 32, seed=0)
    forward = model.base_model.forward

    def without_positions(input_ids, position_ids=None, attention_mask=None, **more):
        return forward(input_ids=input_ids, attention_mask=attention_mask, **more)

    model.base_model.forward = without_positions
    assert "reads them otherwise" in str(obstacle_to_sharing(model.base_model))
    layout = AnswerLayout(model.base_model, PAD)
    assert not layout.shares_prompts
    check(model, layout)


def test_models_that_forget_what_is_far_away_do_not_share():
    # A window longer than any test: equal on short rows, and wrong on long ones.
    config = MistralConfig(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=4096,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    assert "do not attend to all" in str(obstacle_to_sharing(model.base_model))
    check(model, AnswerLayout(model.base_model, PAD))


def test_models_that_forget_by_a_window_of_another_name_do_not_share():
    # GPT-Neo has one in every other layer, of 256 tokens as published, which by places in a row ends too early.
    config = GPTNeoConfig(
        vocab_size=32, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]],
        window_size=16, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    check(model, AnswerLayout(model.base_model, PAD))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (MambaConfig(vocab_size=32, hidden_size=32, num_hidden_layers=1, state_size=4), "do not attend to all"),
        (BloomConfig(vocab_size=32, hidden_size=32, n_layer=1, n_head=2), "takes no positions"),
    ],
)
def test_models_without_attention_or_positions_of_ones_own_do_not_share(config, said):
    model = AutoModelForCausalLM.from_config(config).eval()
    assert said in str(obstacle_to_sharing(model.base_model))
    check(model, AnswerLayout(model.base_model, PAD))


def test_a_row_may_be_longer_than_the_models_context():
    # By hand: prompt of 4 and five answers of 4 make rows of 24 tokens, but no position beyond 7, of 16.
    config = GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=2, n_positions=16)
    model = AutoModelForCausalLM.from_config(config).eval()
    layout = AnswerLayout(model.base_model, PAD)
    long = [[EncodedPair([1, 2, 3, 4], [5, 6, 7, number]) for number in range(5)], [EncodedPair([1], [2])]]
    rows = layout.rows(long)
    assert rows.inputs["input_ids"].shape == (2, 24)
    with torch.no_grad():
        found = ResponseModel(model).answer_logprobs(rows)
    expected = [alone(model, answer)[0] for group in long for answer in group]
    np.testing.assert_allclose(found, torch.cat(expected), atol=1e-5)


def test_answers_to_different_prompts_cannot_share_one():
    layout = AnswerLayout(tiny_model("llama", 32, seed=0).base_model, PAD)
    with pytest.raises(ValueError, match="only if they have one"):
        layout.rows([[EncodedPair([1, 2], [3]), EncodedPair([1, 4], [3])]])


def test_token_counts_are_those_of_the_rows():
    layout = AnswerLayout(tiny_model("llama", 32, seed=0).base_model, PAD)
    pair = [EncodedPair([1, 2, 3], [4] * 5), EncodedPair([1, 2, 3], [4, 5])]
    for shares, count in ((True, 3 + 5 + 2), (False, 2 * (3 + 5))):
        layout.shares_prompts = shares
        assert layout.token_count(pair) == layout.rows([pair]).inputs["input_ids"].numel() == count


def test_rows_without_a_pad_keep_their_own_attention():
    # Rows as long as each other, in the reverse order of a dictionary, whose prompts end at different places.
    model = tiny_model("llama", 32, seed=0)
    layout = AnswerLayout(model.base_model, PAD)
    long = [
        [EncodedPair([9, 8, 7], [6, 5]), EncodedPair([9, 8, 7], [4])],
        [EncodedPair([3], [1, 2]), EncodedPair([3], [5, 6, 7])],
    ]
    responder, rows = ResponseModel(model), layout.rows(long)
    assert bool(rows.rows.own_BT.all())
    with torch.no_grad():
        found = responder.answer_logprobs(rows)
    expected = [alone(model, answer)[0] for group in long for answer in group]
    np.testing.assert_allclose(found, torch.cat(expected), atol=1e-5)
