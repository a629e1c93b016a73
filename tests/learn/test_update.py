"""The optimizer's step: in float32 whatever the model's type, clipped where gradients add up, kept over a kill."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from pasture.learn.update import adamw, cosine_factor, linear_factor, take_step
from pasture.machine.checkpoint import optimizer_tensors, restore_optimizer


def linear(dtype: torch.dtype) -> nn.Linear:
    layer = nn.Linear(3, 2, dtype=torch.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6.0).reshape(2, 3) / 8 + 1)
        layer.bias.zero_()
    return layer.to(dtype)


def pull(layer: nn.Module, size: float = 1.0) -> None:
    for one in layer.parameters():
        torch.autograd.backward((one.float() * size).sum())


def stepped(weight, gradients, *, rate, epsilon, decay):
    """Weights after some steps: Loshchilov & Hutter 2019, Algorithm 2, with betas of 0.9 and 0.999, in NumPy."""
    first, second = np.zeros(weight.shape), np.zeros(weight.shape)
    for count, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        adapted = first / (1 - 0.9**count) / (np.sqrt(second / (1 - 0.999**count)) + epsilon)
        weight = weight - rate * (adapted + decay * weight)
    return weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("epsilon", "decay"), [(1e-8, 0.0), (1e-8, 0.3), (0.1, 0.0)])
def test_steps_are_those_of_the_paper_along_gradients_that_are_clipped_group_by_group(dtype, epsilon, decay):
    layers = linear(dtype), linear(dtype)
    optimizer = adamw(*layers, epsilon=epsilon, weight_decay=decay)
    for size in (0.25, 8.0, 0.5):
        pull(layers[0], size)
        pull(layers[1], 0.25)
        take_step(optimizer, learning_rate=0.01, max_gradient_norm=2.0)
    # By hand: 8 gradients of 8 have norm 8 sqrt(8), of which 2 are left; the others' norms are below 2.
    clipped = [[0.25, 2 / 8**0.5, 0.5], [0.25] * 3]
    for layer, group, gradients in zip(layers, optimizer.param_groups, clipped, strict=True):
        begun = linear(torch.float32)
        for rounded, found, weight in zip(layer.parameters(), group["params"], begun.parameters(), strict=True):
            expected = stepped(weight.detach().numpy(), gradients, rate=0.01, epsilon=epsilon, decay=decay)
            np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=1e-6)
            np.testing.assert_array_equal(rounded.detach().float(), found.detach().to(dtype).float())


def test_rates_rise_in_a_line_and_fall_in_a_line_or_half_a_cosine():
    # By hand: two steps of six in which the rate rises, then four quarters of the way down.
    assert [linear_factor(step, 6, 2) for step in range(6)] == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 1 / 2, 1 / 4])
    fall = [1, (1 + math.sqrt(0.5)) / 2, 1 / 2, (1 - math.sqrt(0.5)) / 2]
    # A warmup longer than the training ends with it.
    assert [linear_factor(step, 3, 5) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [cosine_factor(step, 3, 5) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert linear_factor(0, 1, 5) == 1
    assert [cosine_factor(step, 6, 2) for step in range(6)] == pytest.approx([1 / 3, 2 / 3, *fall])


def test_small_steps_add_up_in_bfloat16():
    # 20 steps of 1e-4 on weights of 1 and more: each is less than half of bfloat16's spacing of 2 ** -7.
    layer = linear(torch.bfloat16)
    optimizer = adamw(layer)
    for _ in range(100):
        pull(layer)
        take_step(optimizer, learning_rate=1e-4, max_gradient_norm=10.0)
    # The oracle: torch's own AdamW on float32 weights, rounded at the end.
    fine = linear(torch.float32)
    oracle = torch.optim.AdamW(fine.parameters(), lr=1e-4, weight_decay=0.0)
    for _ in range(100):
        pull(fine)
        oracle.step()
        oracle.zero_grad()
    assert torch.equal(layer.weight, fine.weight.bfloat16())
    assert not torch.equal(layer.weight, linear(torch.bfloat16).weight)


def test_gradients_of_coarse_weights_add_up_in_float32_and_are_clipped_there():
    layer = linear(torch.bfloat16)
    optimizer = adamw(layer)
    for _ in range(300):
        pull(layer)
    # bfloat16 holds whole numbers up to 256 alone; 8 gradients of 300 have norm 300 sqrt(8).
    [norm] = take_step(optimizer, learning_rate=0.0, max_gradient_norm=1.0)
    torch.testing.assert_close(float(norm), 300 * 8**0.5, rtol=1e-6, atol=0)
    assert all(one.grad is None for one in layer.parameters())


def test_a_checkpoint_brings_back_the_copies_so_that_a_kill_changes_nothing():
    def steps(layer, optimizer, count):
        for number in range(count):
            pull(layer, 1.0 + number)
            take_step(optimizer, learning_rate=1e-4, max_gradient_norm=10.0)

    through, killed = linear(torch.bfloat16), linear(torch.bfloat16)
    first, second = adamw(through), adamw(killed)
    steps(through, first, 30)
    steps(killed, second, 30)
    kept, weights = copy.deepcopy(optimizer_tensors(second)), copy.deepcopy(killed.state_dict())
    resumed = linear(torch.bfloat16)
    resumed.load_state_dict(weights)
    third = adamw(resumed)
    restore_optimizer(third, kept)
    steps(through, first, 30)
    steps(resumed, third, 30)
    assert torch.equal(through.weight, resumed.weight)
    torch.testing.assert_close(optimizer_tensors(first), optimizer_tensors(third), atol=0, rtol=0)


def test_what_is_frozen_is_left_out():
    layer = linear(torch.float32)
    layer.bias.requires_grad_(False)
    optimizer = adamw(layer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
