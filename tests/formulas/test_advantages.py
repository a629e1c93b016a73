import numpy as np
import pytest
import torch

from pasture.formulas.advantages import (
    generalized_advantages,
    group_centred_advantages,
    group_standardized_advantages,
    leave_one_out_advantages,
    shaped_rewards,
)
from tests.formulas import oracles
from tests.formulas.batches import GARBAGE, normal, ragged_mask, with_garbage

SEEDS = range(5)


def test_score_is_paid_once_at_the_last_token_and_divergence_at_every_token():
    # By hand: beta 0.1; the second row's answer is its second token alone.
    reward = shaped_rewards(
        torch.tensor([5.0, -1.0]),
        torch.tensor([[1.0, 2.0, 9.0], [9.0, 3.0, 9.0]]),
        torch.tensor([[True, True, False], [False, True, False]]),
        0.1,
    )
    np.testing.assert_allclose(reward, [[-0.1, 4.8, 0.0], [0.0, -1.3, 0.0]], atol=1e-6)


@pytest.mark.parametrize("filler", GARBAGE)
@pytest.mark.parametrize("seed", SEEDS)
def test_rewards_match_plain_loops_and_pads_earn_exactly_nothing(seed, filler):
    mask, divergence, score = ragged_mask(seed), normal(seed, 7, 11), normal(seed + 100, 7)
    result = shaped_rewards(
        torch.from_numpy(score), with_garbage(divergence, mask, filler), torch.from_numpy(mask), 0.07
    ).numpy()
    np.testing.assert_allclose(result, oracles.shaped_rewards(score, divergence, mask, 0.07), atol=1e-12)
    assert np.all(result[~mask] == 0.0)


def test_a_row_without_an_answer_is_refused_rather_than_its_score_lost():
    with pytest.raises(ValueError, match="at least one unmasked token in every row"):
        shaped_rewards(torch.ones(2), torch.zeros(2, 2), torch.tensor([[True, True], [False, False]]), 0.1)


@pytest.mark.parametrize("filler", GARBAGE)
@pytest.mark.parametrize(("discount", "decay"), [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("seed", SEEDS)
def test_advantages_match_the_sum_term_by_term_and_pads_have_none(seed, discount, decay, filler):
    mask, reward, value = ragged_mask(seed), normal(seed, 7, 11), normal(seed + 50, 7, 11)
    result = generalized_advantages(
        with_garbage(reward, mask, filler),
        with_garbage(value, mask, filler),
        torch.from_numpy(mask),
        discount=discount,
        decay=decay,
    ).numpy()
    np.testing.assert_allclose(result, oracles.generalized_advantages(reward, value, mask, discount, decay), atol=1e-12)
    assert np.all(result[~mask] == 0.0)


def test_without_discount_an_advantage_is_the_reward_to_come_less_the_value():
    # By hand: rewards 1, 2, 3 and values 0.5, 1, 2: what is still to come is 6, 5, 3.
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantage = generalized_advantages(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 1.0, 2.0]]), mask, discount=1.0, decay=1.0
    )
    np.testing.assert_allclose(advantage, [[5.5, 4.0, 1.0]], atol=1e-6)


@pytest.mark.parametrize("size", [2, 4, 7])
def test_group_advantages_match_plain_loops(size):
    reward = 3 * normal(size, 5, size) + 100
    tensor = torch.from_numpy(reward)
    np.testing.assert_allclose(leave_one_out_advantages(tensor), oracles.leave_one_out(reward), atol=1e-12)
    centred, scaled = (oracles.group_standardized(reward, scaled=scaled) for scaled in (False, True))
    np.testing.assert_allclose(group_centred_advantages(tensor), centred, atol=1e-12)
    np.testing.assert_allclose(group_standardized_advantages(tensor), scaled, atol=1e-12)


def test_an_answers_own_reward_is_no_part_of_its_leave_one_out_baseline():
    # By hand: 9 against the mean 2 of 1, 2 and 3; with itself in it the baseline would be 3.75.
    assert float(leave_one_out_advantages(torch.tensor([[9.0, 1.0, 2.0, 3.0]]))[0, 0]) == pytest.approx(7.0)


def test_a_group_of_equals_has_no_advantages():
    for advantages in (leave_one_out_advantages, group_centred_advantages, group_standardized_advantages):
        for size in range(2, 12):
            assert torch.all(advantages(torch.full((2, size), 0.1)) == 0.0)


def test_a_group_of_one_is_refused():
    for advantages in (leave_one_out_advantages, group_centred_advantages, group_standardized_advantages):
        with pytest.raises(ValueError, match="at least two answers"):
            advantages(torch.ones(3, 1))
