import dataclasses
import math

import numpy as np
import pytest
import torch

from pasture.learn import grpo
from tests.formulas import oracles
from tests.learn import alone

CONFIG = grpo.Config(
    rollout_batch_size=24,
    group_size=4,
    kl_coefficient=0.05,
    clip_low=0.2,
    clip_high=0.3,
    max_prompt_tokens=16,
    max_new_tokens=8,
)
OPTIONS = [(scale, weight) for scale in ("group_deviation", "none") for weight in ("answer", "token", "constant")]


@pytest.fixture(scope="module")
def models(imitator):
    return alone.policies(imitator, moved=1.5)


@pytest.fixture(scope="module")
def rollouts(imitator, models):
    return alone.in_groups(imitator, models[0])


def check_loss(models, rollouts, scale="group_deviation", weight="answer"):
    """The loss of a minibatch, token by token in float64, from rows alone and unpadded."""
    config = CONFIG.model_copy(update={"advantage_scale": scale, "length_weight": weight})
    policy, reference, moved = models
    numbers = [0, 3, 7, 12, 13, 22]
    experience = grpo.evaluate(config, policy, reference, rollouts)
    found = float(grpo.accumulate_gradients(config, moved, experience, numbers)[0])
    alone.gradients(moved.model.parameters())
    scores = np.reshape(rollouts.score_B.tolist(), (6, 4))
    advantage = oracles.group_standardized(scores, scaled=scale == "group_deviation").flatten()
    lengths = [len(rollouts.rows[number].response_ids) for number in numbers]
    terms = []
    for number, length in zip(numbers, lengths, strict=True):
        row = rollouts.rows[number]
        now, old, other = (alone.token_logprobs(one.model, row) for one in (moved, policy, reference))
        divisor = {"answer": length, "token": np.mean(lengths), "constant": config.max_new_tokens}[weight]
        for t in range(length):
            log_r = other[t] - now[t]
            penalty = math.exp(log_r) - 1 - log_r
            loss = oracles.clipped(now[t] - old[t], advantage[number], 0.2, 0.3) + 0.05 * penalty
            terms.append(loss / divisor / len(numbers))
    assert found == pytest.approx(math.fsum(terms), abs=2e-5)


@pytest.mark.parametrize(("scale", "weight"), OPTIONS)
def test_loss_of_real_answers_matches_plain_loops(models, rollouts, scale, weight):
    check_loss(models, rollouts, scale, weight)


def test_loss_of_a_token_matches_its_definition_to_a_millionth():
    rng = np.random.default_rng(0)
    now, old, reference = (rng.normal(-3, 0.4, 60) for _ in range(3))
    advantage = rng.normal(0, 1, 60)
    now_N, old_N, reference_N, advantage_N = map(torch.from_numpy, (now, old, reference, advantage))
    found = grpo.grpo_loss(now_N, old_N, reference_N, advantage_N, CONFIG)
    expected = [
        oracles.clipped(n - o, a, 0.2, 0.3) + 0.05 * (math.exp(r - n) - 1 - (r - n))
        for n, o, r, a in zip(now, old, reference, advantage, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_penalty_pulls_toward_the_reference():
    # By hand: with no advantage, d/dlogprob of beta (r - 1 - log r) is beta (1 - r), which pulls up where r > 1.
    now = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss = grpo.grpo_loss(now, now.detach(), torch.tensor([-2.0, -1.0]), torch.zeros(2), CONFIG)
    [gradient] = torch.autograd.grad(loss.sum(), [now])
    np.testing.assert_allclose(gradient, [0.05 * (1 - math.exp(-1)), 0.05 * (1 - math.exp(1))], rtol=1e-5)


def test_an_answer_of_any_length_weighs_the_same_and_dr_grpo_has_every_token_weigh_the_same():
    length = torch.tensor([2.0, 8.0])
    weights = {
        name: grpo.token_weights(length, CONFIG.model_copy(update={"length_weight": name}))
        for name in ("answer", "token", "constant")
    }
    # By hand, two answers of 2 and 8 tokens, at most 8 new tokens.
    np.testing.assert_allclose(weights["answer"], [1 / 4, 1 / 16], rtol=1e-6)
    np.testing.assert_allclose(weights["token"], [1 / 10, 1 / 10], rtol=1e-6)
    np.testing.assert_allclose(weights["constant"], [1 / 16, 1 / 16], rtol=1e-6)


@pytest.mark.parametrize("weight", ["answer", "token", "constant"])
@pytest.mark.parametrize("rows_at_once", [1, 4, 16])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch(models, rollouts, rows_at_once, weight):
    policy, reference, moved = models
    experience = grpo.evaluate(CONFIG, policy, reference, rollouts)
    longest = max(len(row) for row in rollouts.rows)
    results = []
    for budget in (rows_at_once * longest, 10_000):
        config = CONFIG.model_copy(update={"micro_batch_tokens": budget, "length_weight": weight})
        sums = grpo.accumulate_gradients(config, moved, experience, list(range(1, 24)))
        results.append((sums, alone.gradients(moved.model.parameters())))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    alone.check_equal_gradients(results[0][1], results[1][1])


def test_tokens_of_another_sampler_count_by_their_capped_ratio(models, rollouts):
    drawn_elsewhere = dataclasses.replace(rollouts, sampler_logprob_BT=rollouts.sampler_logprob_BT * 1.3)
    config = CONFIG.model_copy(update={"sampler_ratio_cap": 2.0})
    experience = grpo.evaluate(config, models[0], models[1], drawn_elsewhere)
    row = rollouts.rows[2]
    own = alone.token_logprobs(models[0].model, row)
    # By hand: the sampler's log-probability is 1.3 times the policy's, so the ratio is exp(-0.3 log pi).
    found = experience.weight_BT[2][rollouts.mask_BT[2]]
    np.testing.assert_allclose(found, np.minimum(np.exp(-0.3 * own), 2.0), rtol=1e-4)
    kept = rollouts.mask_BT & (experience.weight_BT < 2.0)
    assert 0 < int(kept.sum()) < int(rollouts.mask_BT.sum())
    # With ratios of 1: each token's -A and penalty, times its weight, in the mean over the answer.
    log_r = alone.token_logprobs(models[1].model, row) - own
    terms = 0.05 * (np.exp(log_r) - 1 - log_r) - float(experience.advantage_B[2])
    loss = float(grpo.accumulate_gradients(config, models[0], experience, [2])[0])
    alone.gradients(models[0].model.parameters())
    assert loss == pytest.approx(np.mean(np.minimum(np.exp(-0.3 * own), 2.0) * terms), abs=2e-5)


def test_groups_that_agree_are_reported_and_teach_nothing(models, rollouts):
    equal = dataclasses.replace(rollouts, score_B=torch.tensor([1.0] * 4 + [0.0, 1.0] * 10))
    experience = grpo.evaluate(CONFIG, models[0], models[1], equal)
    assert float(experience.figures["frac_reward_zero_std"]) == pytest.approx(1 / 6)
    assert torch.all(experience.advantage_B[:4] == 0.0)
    assert torch.all(experience.advantage_B[4:] != 0.0)
