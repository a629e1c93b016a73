import math

import numpy as np
import pytest
import torch

from pasture.formulas.importance import truncated_importance_weights
from tests.formulas import oracles
from tests.formulas.batches import normal


def test_weights_are_ratios_up_to_the_cap():
    # By hand: pi is 0.5, 0.3, 0.2 where the sampler had 0.25, 0.6, 0.01: ratios 2, 0.5 and 20.
    logprob, sampler = (torch.tensor(x).log() for x in ([0.5, 0.3, 0.2], [0.25, 0.6, 0.01]))
    np.testing.assert_allclose(truncated_importance_weights(logprob, sampler, 3.0), [2.0, 0.5, 3.0], rtol=1e-6)


def test_a_sampler_that_is_the_policy_weighs_every_token_exactly_one():
    logprob = torch.tensor(normal(0, 50), dtype=torch.float32)
    assert torch.all(truncated_importance_weights(logprob, logprob.clone(), 2.0) == 1.0)


def test_without_a_cap_weighted_means_are_the_policys_and_with_one_they_lean_to_the_sampler():
    logits, other = normal(0, 1, 6), normal(1, 1, 6)
    pi, sampler = (oracles.probabilities(x[0]) for x in (logits, other))
    worth = normal(2, 6)
    expected = math.fsum(p * w for p, w in zip(pi, worth, strict=True))
    logprob, sampler_logprob = (torch.tensor(x, dtype=torch.float64).log() for x in (pi, sampler))

    # The expectation under the sampler, summed over all six tokens instead of sampled.
    def mean(cap):
        weights = truncated_importance_weights(logprob, sampler_logprob, cap).numpy()
        return float(np.sum(np.array(sampler) * weights * worth))

    assert mean(math.inf) == pytest.approx(expected, abs=1e-9)
    assert mean(0.5) != pytest.approx(expected, abs=1e-2)


def test_a_token_that_the_sampler_held_impossible_counts_the_cap():
    assert float(truncated_importance_weights(torch.tensor([-1.0]), torch.tensor([-1e4]), 2.0)[0]) == 2.0
