import numpy as np
import pytest
import torch

from pasture.formulas import logprobs
from pasture.formulas.logprobs import (
    entropy,
    head_logprobs,
    head_logprobs_with_entropy,
    head_logprobs_with_kl,
    selected_logprobs,
)
from tests.formulas import oracles
from tests.formulas.batches import normal

ROWS, HIDDEN, WORDS = 23, 8, 17


def _case(seed=0):
    logits = 4 * normal(seed, ROWS, WORDS)
    targets = np.random.default_rng(seed).integers(0, WORDS, ROWS)
    return logits, targets


def test_selected_logprobs_match_plain_loops():
    logits, targets = _case()
    result = selected_logprobs(torch.tensor(logits, dtype=torch.float32), torch.from_numpy(targets))
    np.testing.assert_allclose(result.numpy(), oracles.selected_logprobs(logits, targets), rtol=1e-6, atol=1e-6)


def test_selected_logprobs_survive_logits_that_overflow_an_exponential():
    # By hand: with one logit 1000 above the other, its probability is 1 and the other's log-probability is -1000.
    result = selected_logprobs(torch.tensor([[1000.0, 0.0], [1000.0, 0.0]]), torch.tensor([0, 1]))
    assert result.tolist() == [0.0, -1000.0]


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.zeros(1, 4096, dtype=torch.bfloat16)
    # By hand: uniform over 4,096 tokens. In bfloat16 the sum of 4,096 ones stops at 256.
    assert float(selected_logprobs(logits, torch.tensor([7]))) == pytest.approx(-np.log(4096), abs=1e-6)


def test_entropy_matches_plain_loops():
    logits, _ = _case()
    result = entropy(torch.tensor(logits, dtype=torch.float32))
    np.testing.assert_allclose(result.numpy(), oracles.entropy(logits), rtol=1e-6, atol=1e-6)


def test_a_token_that_is_ruled_out_adds_no_entropy():
    # By hand: two tokens at 1/2 each, one impossible: log 2.
    assert float(entropy(torch.tensor([[0.0, 0.0, -torch.inf]]))) == pytest.approx(np.log(2), abs=1e-7)


@pytest.mark.parametrize("chunk", [WORDS, 5 * WORDS, 1 << 20])
def test_the_head_in_chunks_gives_the_values_and_gradients_of_the_head_in_one_piece(monkeypatch, chunk):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", chunk)
    weight = torch.tensor(normal(1, WORDS, HIDDEN), requires_grad=True)
    hidden = torch.tensor(normal(2, ROWS, HIDDEN), requires_grad=True)
    targets = torch.from_numpy(_case()[1])
    weighting = torch.arange(ROWS, dtype=torch.float32)
    result = head_logprobs(hidden, lambda x: x @ weight.T, targets, WORDS)
    expected = oracles.selected_logprobs((hidden @ weight.T).tolist(), targets.tolist())
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-6, atol=1e-6)
    gradients = torch.autograd.grad((weighting * result).sum(), [hidden, weight])
    whole = torch.log_softmax(hidden @ weight.T, -1)[torch.arange(ROWS), targets]
    for gradient, wanted in zip(
        gradients, torch.autograd.grad((weighting * whole).sum(), [hidden, weight]), strict=True
    ):
        np.testing.assert_allclose(gradient.numpy(), wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("chunk", [3 * WORDS, 1 << 20])
def test_entropy_from_the_logits_at_hand_is_the_entropy(monkeypatch, chunk):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", chunk)
    weight, hidden = torch.tensor(normal(1, WORDS, HIDDEN)), torch.tensor(normal(2, ROWS, HIDDEN), requires_grad=True)
    targets = torch.from_numpy(_case()[1])
    values, entropies = head_logprobs_with_entropy(hidden, lambda x: x @ weight.T, targets, WORDS)
    logits = (hidden @ weight.T).tolist()
    np.testing.assert_allclose(
        values.detach().numpy(), oracles.selected_logprobs(logits, targets.tolist()), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(entropies.numpy(), oracles.entropy(logits), rtol=1e-6, atol=1e-6)
    assert not entropies.requires_grad


@pytest.mark.parametrize("chunk", [WORDS, 5 * WORDS, 1 << 20])
@pytest.mark.parametrize("shared", [WORDS, WORDS - 4])
def test_divergence_beside_the_logprobs_is_exact_over_the_shared_tokens(monkeypatch, chunk, shared):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", chunk)
    weight = torch.tensor(normal(1, WORDS, HIDDEN), requires_grad=True)
    hidden = torch.tensor(normal(2, ROWS, HIDDEN), requires_grad=True)
    reference_weight, reference = torch.tensor(normal(3, WORDS, HIDDEN)), torch.tensor(normal(4, ROWS, HIDDEN))
    targets = torch.from_numpy(_case()[1])
    found, divergence = head_logprobs_with_kl(
        (hidden, lambda x: x @ weight.T), (reference, lambda x: x @ reference_weight.T), targets, shared
    )
    logits, reference_logits = hidden @ weight.T, reference @ reference_weight.T
    expected = oracles.selected_logprobs(logits.tolist(), targets.tolist())
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6, atol=1e-6)
    # The plain loops see the shared tokens alone, as if there were no others.
    kl = oracles.exact_kl(logits[:, :shared].tolist(), reference_logits[:, :shared].tolist())
    np.testing.assert_allclose(divergence.detach().numpy(), kl, rtol=1e-5, atol=1e-6)
    weighting = torch.arange(ROWS, dtype=torch.float32)
    gradients = torch.autograd.grad((weighting * divergence).sum(), [hidden, weight])
    own = torch.log_softmax((hidden @ weight.T)[:, :shared], -1)
    whole = (own.exp() * (own - torch.log_softmax(reference_logits[:, :shared], -1))).sum(-1)
    for gradient, wanted in zip(
        gradients, torch.autograd.grad((weighting * whole).sum(), [hidden, weight]), strict=True
    ):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-4)
