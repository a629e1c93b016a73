import dataclasses
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pasture.learn import rloo
from pasture.models.load import load_causal_lm
from pasture.models.response import ResponseModel
from tests.formulas import oracles
from tests.learn import alone

CONFIG = rloo.Config(rollout_batch_size=24, group_size=4, kl_coefficient=0.05, max_prompt_tokens=16, max_new_tokens=8)


@pytest.fixture(scope="module")
def models(imitator):
    """A policy, and as the reference another model, so that a KL is no zero."""
    policy, reference = (ResponseModel(load_causal_lm(imitator)) for _ in range(2))
    with torch.no_grad():
        reference.model.get_output_embeddings().weight.mul_(0.7)
    return policy, reference


@pytest.fixture(scope="module")
def rollouts(imitator, models):
    return alone.in_groups(imitator, models[0])


def check_advantages(models, rollouts):
    """An answer is worth its score less beta times the summed log-ratio, against the other three of its group."""
    policy, reference = models
    experience = rloo.evaluate(CONFIG, policy, reference, rollouts)
    kl = [
        math.fsum(alone.token_logprobs(policy.model, row) - alone.token_logprobs(reference.model, row))
        for row in rollouts.rows
    ]
    reward = [score - 0.05 * each for score, each in zip(rollouts.score_B.tolist(), kl, strict=True)]
    expected = oracles.leave_one_out(np.reshape(reward, (6, 4)))
    # The models compute in float32 and see other batch shapes; 1e-4 is their rounding, not the formulas'.
    np.testing.assert_allclose(experience.advantage_B, expected.flatten(), atol=1e-4)
    assert experience.kl == pytest.approx(np.mean(kl), abs=1e-4)
    assert min(map(abs, kl)) > 1e-3


def test_advantages_of_real_answers_match_plain_loops(models, rollouts):
    check_advantages(models, rollouts)


@pytest.mark.parametrize("clip_range", ["none", 0.2])
def test_loss_of_an_answer_matches_its_definition(clip_range):
    rng = np.random.default_rng(0)
    log_ratio, advantage = rng.normal(0, 0.3, 40), rng.normal(0, 1, 40)
    old = rng.normal(-20, 3, 40)
    now_B, old_B, advantage_B = map(torch.from_numpy, (old + log_ratio, old, advantage))
    found = rloo.rloo_loss(now_B, old_B, advantage_B, clip_range)
    bound = math.inf if clip_range == "none" else clip_range
    expected = [oracles.clipped(r, a, bound, bound) for r, a in zip(log_ratio, advantage, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_an_answers_ratio_is_that_of_all_its_tokens_and_no_pad(models, rollouts):
    """The loss from summed log-probabilities of rows alone, after the policy has moved away from pi_old."""
    policy, reference = models
    experience = rloo.evaluate(CONFIG, policy, reference, rollouts)
    numbers = [0, 5, 9, 14, 23]
    # The reference plays the policy that has moved; without a clip its far ratios count as they are.
    config = CONFIG.model_copy(update={"clip_range": "none"})
    sums = rloo.accumulate_gradients(config, reference, experience, numbers)
    rows = [rollouts.rows[number] for number in numbers]
    log_ratios = [
        math.fsum(alone.token_logprobs(reference.model, row) - alone.token_logprobs(policy.model, row)) for row in rows
    ]
    advantages = experience.advantage_B[numbers].tolist()
    loss = [-a * math.exp(r) for r, a in zip(log_ratios, advantages, strict=True)]
    assert float(sums[0]) == pytest.approx(math.fsum(loss), rel=1e-4)
    assert float(sums[3]) == pytest.approx(math.fsum(map(math.exp, log_ratios)), rel=1e-4)


@pytest.mark.parametrize("rows_at_once", [1, 4, 16])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch(models, rollouts, rows_at_once):
    policy, reference = models
    experience = rloo.evaluate(CONFIG, policy, reference, rollouts)
    longest = max(len(row) for row in rollouts.rows)
    results = []
    for budget in (rows_at_once * longest, 10_000):
        config = CONFIG.model_copy(update={"micro_batch_tokens": budget})
        sums = rloo.accumulate_gradients(config, policy, experience, list(range(1, 24)))
        results.append((sums, alone.gradients(policy.model.parameters())))
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-4)
    alone.check_equal_gradients(results[0][1], results[1][1])


def test_answers_of_another_sampler_count_by_their_capped_ratio(models, rollouts):
    drawn_elsewhere = dataclasses.replace(rollouts, sampler_logprob_BT=rollouts.sampler_logprob_BT * 1.1)
    config = CONFIG.model_copy(update={"sampler_ratio_cap": 3.0})
    experience = rloo.evaluate(config, models[0], models[1], drawn_elsewhere)
    own = np.array([math.fsum(alone.token_logprobs(models[0].model, row)) for row in rollouts.rows])
    # By hand: the sampler's log-probability is 1.1 times the policy's, so the ratio is exp(-0.1 log pi).
    np.testing.assert_allclose(experience.weight_B, np.minimum(np.exp(-0.1 * own), 3.0), rtol=1e-4)
    assert 0 < int((experience.weight_B == 3.0).sum()) < 24
    plain = rloo.evaluate(CONFIG, models[0], models[1], rollouts)
    losses = [
        float(rloo.accumulate_gradients(c, models[0], e, [3])[0]) for c, e in ((config, experience), (CONFIG, plain))
    ]
    assert losses[0] == pytest.approx(float(experience.weight_B[3]) * losses[1], rel=1e-3)
    alone.gradients(models[0].model.parameters())


def test_a_batch_that_is_no_whole_number_of_groups_is_refused():
    with pytest.raises(ValidationError, match="rollout_batch_size = 10 is no multiple of group_size = 4"):
        rloo.Config(rollout_batch_size=10, group_size=4)
