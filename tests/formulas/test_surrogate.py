import math

import numpy as np
import torch

from pasture.formulas.surrogate import clipped_surrogate, is_clipped, plain_surrogate


def test_clipped_surrogate_is_pessimistic_on_both_sides():
    # By hand, ranges 0.2 and 0.2: a ratio of 1.5 is worth 1.2 at a gain and 1.5 at a loss; 0.5 is worth 0.5 and 0.8.
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.0])
    advantage = torch.tensor([2.0, -2.0, 2.0, -2.0, 3.0])
    loss = clipped_surrogate(ratio.log(), torch.zeros(5), advantage, clip_low=0.2, clip_high=0.2)
    np.testing.assert_allclose(loss, [-2.4, 3.0, -1.0, 1.6, -3.0], rtol=1e-6)


def test_the_upper_range_bounds_gains_and_the_lower_one_losses():
    # By hand, ranges 0.1 and 0.4: 1.5 counts 1.4 at a gain, 0.5 counts 0.9 at a loss.
    ratio, advantage = torch.tensor([1.5, 0.5]), torch.tensor([1.0, -1.0])
    loss = clipped_surrogate(ratio.log(), torch.zeros(2), advantage, clip_low=0.1, clip_high=0.4)
    np.testing.assert_allclose(loss, [-1.4, 0.9], rtol=1e-6)


def test_clipped_surrogate_pushes_up_what_did_better_until_it_is_clipped():
    logprob = torch.tensor([0.0, 0.0, math.log(1.3), math.log(0.7)], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss = clipped_surrogate(logprob, torch.zeros(4), advantage, clip_low=0.2, clip_high=0.2)
    [gradient] = torch.autograd.grad(loss.sum(), [logprob])
    # By hand: -A rho where it is not clipped, 0 where it is.
    np.testing.assert_allclose(gradient, [-1.0, 1.0, 0.0, 0.0], atol=1e-6)


def test_plain_surrogate_has_the_gradient_of_reinforce_and_no_bound():
    logprob = torch.tensor([0.0, 0.0, math.log(3.0)], requires_grad=True)
    loss = plain_surrogate(logprob, torch.zeros(3), torch.tensor([2.0, -1.0, 1.0]))
    np.testing.assert_allclose(loss.detach(), [-2.0, 1.0, -3.0], rtol=1e-6)
    [gradient] = torch.autograd.grad(loss.sum(), [logprob])
    # By hand: -A grad log pi where pi is pi_old, and -A rho in general.
    np.testing.assert_allclose(gradient, [-2.0, 1.0, -3.0], rtol=1e-6)


def test_an_action_is_clipped_where_it_has_gone_too_far_in_the_direction_that_pays():
    # By hand, range 0.8 to 1.4: too low counts where the advantage is negative, too high where it is positive.
    ratio = torch.tensor([0.7, 0.7, 0.9, 1.3, 1.5, 1.5, 1.5])
    advantage = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 0.0])
    clipped = is_clipped(ratio.log(), torch.zeros(7), advantage, clip_low=0.2, clip_high=0.4)
    assert clipped.tolist() == [False, True, False, False, True, False, False]


def test_what_is_clipped_has_no_gradient_and_all_else_has():
    ratio = torch.tensor([0.5, 0.75, 1.0, 1.25, 1.5]).repeat(2)
    advantage = torch.tensor([1.0] * 5 + [-1.0] * 5)
    logprob = ratio.log().requires_grad_()
    clipped_surrogate(logprob, torch.zeros(10), advantage, clip_low=0.2, clip_high=0.3).sum().backward()
    assert logprob.grad is not None
    flat = logprob.grad == 0
    assert (flat == is_clipped(logprob, torch.zeros(10), advantage, clip_low=0.2, clip_high=0.3)).all()
    assert flat.any()
    assert not flat.all()
