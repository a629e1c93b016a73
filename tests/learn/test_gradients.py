"""The gradients that a batch leaves, against torch's own of the paper's loss written out, answers read one by one."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from pasture.learn import dpo, grpo, kto, online_dpo, rloo, simpo
from pasture.learn.ratings import RatedAnswers
from pasture.learn.rollouts import Environment, draw
from pasture.models.sample import SamplerConfig
from tests.learn import alone, pairwise, toy
from tests.learn.alone import any_taste, check_equal_gradients, differentiable_logprobs, gradients, token_logprobs

OWN = {"rollout_batch_size": 24, "max_prompt_tokens": 16, "max_new_tokens": 8}
NUMBERS = [0, 3, 5, 7]
"""Some of a batch, so that a mean over them is no mean over all."""


@pytest.fixture(scope="module")
def models(imitator):
    return alone.policies(imitator, moved=1.05)


@pytest.fixture(scope="module")
def rollouts(imitator, models):
    """As a sampler drew them whose log-probabilities are 1.2 times the policy's."""
    drawn = alone.in_groups(imitator, models[0])
    return dataclasses.replace(drawn, sampler_logprob_BT=drawn.sampler_logprob_BT * 1.2)


def _check(model, loss):
    """What was left in the model is the gradient of `loss`."""
    parameters = list(model.parameters())
    expected = [gradient.numpy() for gradient in torch.autograd.grad(loss, parameters)]
    assert max(np.abs(gradient).max() for gradient in expected) > 1e-2
    check_equal_gradients(gradients(parameters), expected)


def _ratio(model, reference, row):
    """log pi(y|x) - log pi_ref(y|x)."""
    return differentiable_logprobs(model, row).sum() - token_logprobs(reference, row).sum()


def _surrogate(log_ratio, advantage):
    return torch.maximum(-advantage * log_ratio.exp(), -advantage * log_ratio.exp().clamp(0.8, 1.2))


def _preferring(first_preferred, margin):
    """-log sigma(margin), or that of the margin turned around, or half of both."""
    return first_preferred * F.softplus(-margin) + (1 - first_preferred) * F.softplus(margin)


def test_dpo_learns_from_the_mean_loss_per_pair(base):
    judged = pairwise.pairs(base, pairwise.mixed_feedback())
    (policy, layout), (reference, _) = pairwise.policy(base, moved=0.05), pairwise.policy(base)
    reference_P2 = torch.from_numpy(pairwise.sums_alone(reference.model, judged)).float()
    dpo.accumulate_gradients(dpo.Config(beta=0.3), policy, layout, judged, reference_P2)
    ratios = [[_ratio(policy.model, reference.model, answer) for answer in pair.answers] for pair in judged]
    losses = [_preferring(pair.first_preferred, 0.3 * (a - b)) for pair, (a, b) in zip(judged, ratios, strict=True)]
    _check(policy.model, sum(losses) / len(judged))


def test_simpo_learns_from_the_mean_loss_per_pair(base):
    judged = pairwise.pairs(base, pairwise.mixed_feedback())
    policy, layout = pairwise.policy(base, moved=0.05)
    simpo.accumulate_gradients(simpo.Config(beta=2.0, margin=0.0), policy, layout, judged)
    means = [[differentiable_logprobs(policy.model, answer).mean() for answer in pair.answers] for pair in judged]
    losses = [_preferring(pair.first_preferred, 2.0 * (a - b)) for pair, (a, b) in zip(judged, means, strict=True)]
    _check(policy.model, sum(losses) / len(judged))


def test_kto_learns_from_the_mean_loss_per_answer(tmp_path, base, imitator):
    config = kto.Config(beta=0.05, desirable_weight=1.5, undesirable_weight=0.5)
    pairs = [pair for pair in pairwise.pairs(base, pairwise.mixed_feedback()) if pair.first_preferred != 0.5]
    alone = [RatedAnswers(pair.instruction_id, (pair.preferred,), (True,)) for pair in pairs[:3]]
    judged = [*map(RatedAnswers.of_pair, pairs), *alone]
    reference, layout = pairwise.policy(base)
    lent = kto.mismatched_answers(judged, max_tokens=32, seed=0)
    material = kto.prepare(config, reference, layout, judged, lent, folder=tmp_path)
    policy, layout = pairwise.policy(imitator)
    kto.accumulate_gradients(config, policy, layout, material)
    ratios = [_ratio(policy.model, reference.model, answer) for group in lent for answer in group]
    drift = torch.stack(ratios).mean().detach().clamp(min=0)
    loss = torch.zeros(())
    for one in judged:
        for answer, desirable in zip(one.answers, one.desirable, strict=True):
            gain = 0.05 * (_ratio(policy.model, reference.model, answer) - drift)
            loss = loss + (1.5 * (1 - gain.sigmoid()) if desirable else 0.5 * (1 - (-gain).sigmoid()))
    _check(policy.model, loss / (2 * len(pairs) + 3))


def test_online_dpo_learns_from_the_mean_loss_per_pair(imitator, models):
    _, reference, moved = models
    encoder, sampling = toy.encoder(imitator), SamplerConfig(max_new_tokens=8)
    answers = draw(reference.model, encoder, toy.instructions(12), sampling, seed=0, group_size=2)
    environment = Environment(toy.instructions(12), toy.TEMPLATE, any_taste)
    config = online_dpo.Config(beta=0.3, **OWN)
    experience = online_dpo.evaluate(config, reference, environment, answers)
    online_dpo.accumulate_gradients(config, moved, experience, NUMBERS)
    loss = torch.zeros(())
    for number in NUMBERS:
        pair = 2 * experience.pairs[number]
        first, second = (_ratio(moved.model, reference.model, row) for row in answers.rows[pair : pair + 2])
        loss = loss + _preferring(experience.first_preferred[number], 0.3 * (first - second))
    _check(moved.model, loss / len(NUMBERS))


def test_rloo_learns_from_the_mean_loss_per_answer_weighed_by_its_capped_ratio(models, rollouts):
    policy, reference, moved = models
    config = rloo.Config(group_size=4, clip_range=0.2, sampler_ratio_cap=3.0, kl_coefficient=0.05, **OWN)
    experience = rloo.evaluate(config, policy, reference, rollouts)
    rloo.accumulate_gradients(config, moved, experience, NUMBERS)
    loss = torch.zeros(())
    for number in NUMBERS:
        old = token_logprobs(policy.model, rollouts.rows[number]).sum()
        log_ratio = differentiable_logprobs(moved.model, rollouts.rows[number]).sum() - old
        loss = loss + min(np.exp(-0.2 * old), 3.0) * _surrogate(log_ratio, experience.advantage_B[number])
    _check(moved.model, loss / len(NUMBERS))


def test_grpo_learns_from_the_mean_loss_per_answer_its_tokens_weighed_by_their_capped_ratios(models, rollouts):
    policy, reference, moved = models
    clips = {"clip_low": 0.2, "clip_high": 0.2}
    config = grpo.Config(group_size=4, sampler_ratio_cap=1.5, kl_coefficient=0.05, **clips, **OWN)
    experience = grpo.evaluate(config, policy, reference, rollouts)
    grpo.accumulate_gradients(config, moved, experience, NUMBERS)
    loss = torch.zeros(())
    for number in NUMBERS:
        row = rollouts.rows[number]
        old, other = (torch.from_numpy(token_logprobs(one.model, row)).float() for one in (policy, reference))
        now = differentiable_logprobs(moved.model, row)
        terms = _surrogate(now - old, experience.advantage_B[number]) + 0.05 * ((other - now).exp() - 1 - (other - now))
        loss = loss + ((-0.2 * old).exp().clamp(max=1.5) * terms).mean()
    _check(moved.model, loss / len(NUMBERS))
