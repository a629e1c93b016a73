"""The faults that such code is known for, planted one by one: the checks that guard against each must fail."""

import pytest
import torch

from pasture.formulas import advantages, divergence, masks
from pasture.learn import ppo, rollouts, sft
from pasture.models.encode import EncodedPair, Encoder
from tests.formulas.test_advantages import (
    test_advantages_match_the_sum_term_by_term_and_pads_have_none as check_advantages,
)
from tests.formulas.test_advantages import (
    test_rewards_match_plain_loops_and_pads_earn_exactly_nothing as check_rewards,
)
from tests.formulas.test_masks import (
    test_sums_and_means_match_plain_loops_whatever_the_pads_hold as check_means,
)
from tests.learn import toy
from tests.learn.claims import check_sft_logprobs


def _caught(check, *arguments, **more):
    with pytest.raises(AssertionError):
        check(*arguments, **more)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_shifted_mask_is_caught(monkeypatch, base, shift):
    def shifted(prompt_lengths, lengths, width):
        return masks.response_mask(prompt_lengths + shift, lengths, width)

    check_sft_logprobs(base)
    monkeypatch.setattr(sft, "response_mask", shifted)
    _caught(check_sft_logprobs, base)


def test_predicting_a_token_from_itself_is_caught(monkeypatch, base):
    monkeypatch.setattr(sft, "prediction_mask", lambda mask: mask[:, :-1])
    _caught(check_sft_logprobs, base)


def test_a_counted_pad_is_caught_in_the_loss(monkeypatch, base):
    def to_the_edge(prompt_lengths, lengths, width):
        return masks.response_mask(prompt_lengths, torch.full_like(lengths, width), width)

    monkeypatch.setattr(sft, "response_mask", to_the_edge)
    _caught(check_sft_logprobs, base)


def test_a_counted_pad_is_caught_in_the_mean(monkeypatch):
    monkeypatch.setattr("tests.formulas.test_masks.masked_mean", lambda x, mask: torch.where(mask, x, 0.0).mean())
    _caught(check_means, 0, 1e30)


def test_masking_by_multiplication_is_caught(monkeypatch):
    monkeypatch.setattr("tests.formulas.test_masks.masked_sum", lambda x, mask: (x * mask).sum())
    _caught(check_means, 0, float("nan"))


def test_a_dropped_end_token_is_caught(monkeypatch, base):
    with_end = Encoder.pair

    def without_end(self, instruction, completion):
        pair = with_end(self, instruction, completion)
        return EncodedPair(pair.prompt_ids, [token for token in pair.response_ids if token != self.end_id])

    monkeypatch.setattr(Encoder, "pair", without_end)
    _caught(check_sft_logprobs, base)


def test_a_wrong_sign_of_the_divergence_is_caught(monkeypatch):
    right = advantages.shaped_rewards
    monkeypatch.setattr(
        "tests.formulas.test_advantages.shaped_rewards", lambda score, kl, mask, beta: right(score, kl, mask, -beta)
    )
    _caught(check_rewards, 0, 0.0)


def test_a_wrong_direction_of_the_divergence_is_caught(monkeypatch):
    monkeypatch.setattr(
        "tests.formulas.test_divergence.k1", lambda logprob, reference: divergence.k1(reference, logprob)
    )
    from tests.formulas.test_divergence import test_estimators_match_their_definitions as check

    _caught(check)


def _advantages_with(next_value):
    """The recursion with another choice of the value that follows token t."""

    def faulty(reward, value, mask, *, discount, decay):
        reward, value = masks.zero_masked(reward, mask), masks.zero_masked(value, mask)
        result, following = torch.zeros_like(reward), torch.zeros_like(reward[:, 0])
        for t in range(reward.shape[1] - 1, -1, -1):
            delta = reward[:, t] + discount * next_value(value, t) - value[:, t]
            following = torch.where(mask[:, t], delta + discount * decay * following, 0.0)
            result[:, t] = following
        return result

    return faulty


def _shift(value, t, by):
    inside = 0 <= t + by < value.shape[1]
    return value[:, t + by] if inside else torch.zeros_like(value[:, 0])


@pytest.mark.parametrize("by", [0, 2, -1])
def test_an_advantage_that_looks_at_the_wrong_next_value_is_caught(monkeypatch, by):
    name = "tests.formulas.test_advantages.generalized_advantages"
    monkeypatch.setattr(name, _advantages_with(lambda value, t: _shift(value, t, 1)))
    check_advantages(0, 0.99, 0.95, 0.0)  # the recursion without a fault passes
    monkeypatch.setattr(name, _advantages_with(lambda value, t: _shift(value, t, by)))
    _caught(check_advantages, 0, 0.99, 0.95, 0.0)


def test_a_reward_paid_at_the_first_token_is_caught(monkeypatch):
    def first(score, kl, mask, beta):
        reward = masks.zero_masked(-beta * kl, mask)
        return reward.scatter_add(1, mask.int().argmax(1)[:, None], score[:, None])

    monkeypatch.setattr("tests.formulas.test_advantages.shaped_rewards", first)
    _caught(check_rewards, 0, 0.0)


def test_old_logprobs_of_the_wrong_tokens_are_caught_before_training(monkeypatch, tmp_path, imitator, taste):
    from pasture.core.errors import TrainingError
    from tests.learn.test_ppo import CONFIG

    right = rollouts.collect

    def off_by_one(*arguments, **more):
        found = right(*arguments, **more)
        found.sampler_logprob_BT.copy_(found.sampler_logprob_BT.roll(1, dims=1))
        return found

    monkeypatch.setattr(ppo, "collect", off_by_one)
    environment = rollouts.Environment(toy.instructions(20), toy.TEMPLATE, toy.count_liked)
    with pytest.raises(TrainingError, match="does not draw from the policy"):
        ppo.train(
            CONFIG,
            start=imitator,
            value_start=taste,
            environment=environment,
            folder=tmp_path,
            seed=0,
            progress=toy.quiet,
        )
