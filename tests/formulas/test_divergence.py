import numpy as np
import pytest
import torch

from pasture.formulas.divergence import clamped_k1, exact_kl, k1, k3
from tests.formulas import oracles
from tests.formulas.batches import normal


def test_estimators_match_their_definitions():
    # By hand with r = pi_ref / pi: log pi = -1, log pi_ref = -3 gives log r = -2; the other way round log r = 2.
    logprob, reference = torch.tensor([-1.0, -3.0]), torch.tensor([-3.0, -1.0])
    np.testing.assert_allclose(k1(logprob, reference), [2.0, -2.0], atol=1e-6)
    np.testing.assert_allclose(clamped_k1(logprob, reference), [2.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(k3(logprob, reference), [np.exp(-2) - 1 + 2, np.exp(2) - 1 - 2], rtol=1e-6)


def test_k1_and_k3_average_to_the_exact_divergence_and_the_clamped_one_to_more():
    logits, reference = normal(0, 1, 6), normal(1, 1, 6)
    expected = oracles.exact_kl(logits, reference)[0]
    p, q = (torch.log_softmax(torch.tensor(x[0]), -1) for x in (logits, reference))
    # The expectation under pi, summed over all six tokens instead of sampled.
    for estimator in (k1, k3):
        assert float((p.exp() * estimator(p, q)).sum()) == pytest.approx(expected, abs=1e-9)
    assert float((p.exp() * clamped_k1(p, q)).sum()) > expected + 0.05


def test_k3_is_accurate_where_the_models_nearly_agree():
    # By Taylor: with log r = d, r - 1 - log r = d^2/2 + d^3/6. Subtracting in float32 would leave noise of 1e-7.
    logprob = torch.tensor([-1.0])
    assert float(k3(logprob, logprob + 1e-3)) == pytest.approx(5.00e-7, rel=2e-3)


def test_exact_divergence_matches_plain_loops_and_is_zero_between_equals():
    logits, reference = 3 * normal(0, 20, 9), 3 * normal(1, 20, 9)
    result = exact_kl(torch.tensor(logits, dtype=torch.float32), torch.tensor(reference, dtype=torch.float32))
    np.testing.assert_allclose(result.numpy(), oracles.exact_kl(logits, reference), rtol=1e-6, atol=1e-6)
    assert torch.all(exact_kl(torch.tensor(logits), torch.tensor(logits)) == 0)


def test_exact_divergence_has_the_direction_from_the_policy_to_the_reference():
    # By hand: pi = (1, 0) gives log 2 against (1/2, 1/2); the other direction would be infinite.
    sure, torn = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[0.0, 0.0]])
    assert float(exact_kl(sure, torn)) == pytest.approx(np.log(2), abs=1e-6)
