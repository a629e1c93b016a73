"""Oracles: the formulas of the papers and of TRL's DPO trainer, by hand in NumPy's float64."""

from functools import partial

import numpy as np
import pytest
import torch

from pasture.formulas.preference_losses import (
    conservative_weights,
    hinge_loss,
    logistic_loss,
    preference_loss,
    squared_loss,
    unbiased_weights,
)

MARGINS = np.array([-7.0, -0.5, 0.0, 0.3, 2.0, 11.0])


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


def oracle(kind, margin, beta, e):
    """The losses of TRL's dpo_loss by name, for a pair whose first answer was preferred."""
    logits = margin
    return {
        "sigmoid": -log_sigmoid(beta * logits) * (1 - e) - log_sigmoid(-beta * logits) * e,
        "robust": (-log_sigmoid(beta * logits) * (1 - e) + log_sigmoid(-beta * logits) * e) / (1 - 2 * e),
        "hinge": np.maximum(0, 1 - beta * logits),
        "ipo": (logits - 1 / (2 * beta)) ** 2,
    }[kind]


def found(loss, weights, beta, e, preferred=1.0):
    margin = torch.from_numpy(MARGINS)
    weight = weights(torch.full_like(margin, preferred), e)
    return preference_loss(partial(loss, beta=beta), margin, weight).numpy()


@pytest.mark.parametrize(
    ("kind", "loss", "weights", "e"),
    [
        ("sigmoid", logistic_loss, conservative_weights, 0.0),
        ("sigmoid", logistic_loss, conservative_weights, 0.25),
        ("robust", logistic_loss, unbiased_weights, 0.25),
        ("robust", logistic_loss, unbiased_weights, 0.0),
        ("hinge", hinge_loss, conservative_weights, 0.0),
        ("ipo", squared_loss, conservative_weights, 0.0),
    ],
)
@pytest.mark.parametrize("beta", [0.1, 1.0, 2.5])
def test_losses_match_the_formulas_of_the_papers(kind, loss, weights, e, beta):
    np.testing.assert_allclose(found(loss, weights, beta, e), oracle(kind, MARGINS, beta, e), atol=1e-6)
    mirrored = oracle(kind, -MARGINS, beta, e)
    np.testing.assert_allclose(found(loss, weights, beta, e, preferred=0.0), mirrored, atol=1e-6)


@pytest.mark.parametrize("loss", [logistic_loss, hinge_loss, squared_loss])
@pytest.mark.parametrize("weights", [conservative_weights, unbiased_weights])
def test_a_tie_is_half_of_each_whatever_the_noise(loss, weights):
    margin = torch.from_numpy(MARGINS)
    half = (loss(margin, 0.7) + loss(-margin, 0.7)) / 2
    np.testing.assert_allclose(found(loss, weights, 0.7, 0.3, preferred=0.5), half, atol=1e-6)


@pytest.mark.parametrize("loss", [logistic_loss, hinge_loss, squared_loss])
def test_unbiased_weights_give_the_noiseless_loss_on_average_over_the_noise(loss):
    # By hand: of labels that are truly 1, a share of 0.2 says 0.
    noisy = 0.8 * found(loss, unbiased_weights, 0.5, 0.2) + 0.2 * found(loss, unbiased_weights, 0.5, 0.2, preferred=0.0)
    np.testing.assert_allclose(noisy, found(loss, conservative_weights, 0.5, 0.0), atol=1e-6)


def test_the_conservative_loss_is_least_where_the_model_doubts_as_much_as_the_labels():
    margin = torch.linspace(-3, 6, 9001)
    weight = conservative_weights(torch.ones_like(margin), 0.25)
    least = margin[preference_loss(partial(logistic_loss, beta=1.0), margin, weight).argmin()]
    assert float(least) == pytest.approx(np.log(0.75 / 0.25), abs=2e-3)


def test_margins_that_overflow_an_exponential_leave_the_loss_finite():
    loss = logistic_loss(torch.tensor([-1e4, 1e4]), 1.0)
    assert loss.tolist() == [1e4, 0.0]


@pytest.mark.parametrize("probability", [0.5, 0.7, -0.1])
def test_labels_that_say_nothing_cannot_be_put_right(probability):
    with pytest.raises(ValueError, match=r"must be in \[0, 0.5\)"):
        unbiased_weights(torch.ones(1), probability)
