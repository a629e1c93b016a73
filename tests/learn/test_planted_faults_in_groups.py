"""The faults that learning from groups of answers is known for, planted one by one: each must be caught."""

import pytest
import torch

from pasture.formulas import divergence, masks, preference_losses
from pasture.learn import drawing, grpo, judging, online_dpo, rloo, rollouts
from pasture.learn.rollouts import Environment, collect
from pasture.models.load import load_causal_lm
from pasture.models.response import ResponseModel
from pasture.models.sample import SamplerConfig, sample
from tests.learn import alone, toy
from tests.learn.test_grpo import check_loss
from tests.learn.test_online_dpo import check_loss as check_pair_loss
from tests.learn.test_rloo import check_advantages
from tests.learn.test_rollouts import check_end_tokens


@pytest.fixture(scope="module")
def models(imitator):
    found = [ResponseModel(load_causal_lm(imitator)) for _ in range(3)]
    with torch.no_grad():
        for model, factor in zip(found, (1.0, 0.7, 1.5), strict=True):
            model.model.get_output_embeddings().weight.mul_(factor)
    return found


@pytest.fixture
def draw(imitator, models):
    """Draws the answers anew, so that a fault in drawing shows."""

    def drawn():
        environment = Environment(toy.instructions(6), toy.TEMPLATE, alone.any_taste)
        encoder = toy.encoder(imitator)
        return collect(models[0].model, encoder, environment, range(6), max_new_tokens=8, seed=0, group_size=4)

    return drawn


def _check(models, rollouts):
    check_advantages(models[:2], rollouts)
    check_loss(models, rollouts)


def test_without_a_fault_the_checks_pass(models, draw):
    _check(models, draw())


def test_a_baseline_that_includes_the_answer_itself_is_caught(monkeypatch, models, draw):
    monkeypatch.setattr(rloo, "leave_one_out_advantages", lambda reward: reward - reward.mean(1, keepdim=True))
    with pytest.raises(AssertionError):
        check_advantages(models[:2], draw())


@pytest.mark.parametrize("module", [rloo, grpo])
def test_a_wrong_sign_of_the_divergence_is_caught(monkeypatch, models, draw, module):
    name, right = ("k1", divergence.k1) if module is rloo else ("k3", divergence.k3)
    monkeypatch.setattr(module, name, lambda logprob, reference: -right(logprob, reference))
    with pytest.raises(AssertionError):
        _check(models, draw())


def test_a_divergence_from_the_reference_to_the_policy_is_caught(monkeypatch, models, draw):
    monkeypatch.setattr(grpo, "k3", lambda logprob, reference: divergence.k3(reference, logprob))
    with pytest.raises(AssertionError):
        check_loss(models, draw())


def test_a_counted_pad_is_caught(monkeypatch, models, draw):
    def to_the_edge(prompt_lengths, lengths, width):
        return masks.response_mask(prompt_lengths, torch.full_like(lengths, width), width)

    monkeypatch.setattr(rollouts, "response_mask", to_the_edge)
    with pytest.raises((AssertionError, RuntimeError)):
        _check(models, draw())


def test_a_pad_counted_in_an_answers_sum_is_caught(models, draw):
    faulty = draw()
    faulty.sampler_logprob_BT[~faulty.mask_BT] = -3.0
    with pytest.raises(AssertionError):
        check_advantages(models[:2], faulty)


def test_a_shifted_mask_is_caught(monkeypatch, models, draw):
    monkeypatch.setattr(rollouts, "prediction_mask", lambda mask: mask[:, :-1])
    with pytest.raises((AssertionError, RuntimeError)):
        _check(models, draw())


def test_a_dropped_end_token_is_caught(monkeypatch, imitator, draw):
    def without_end(*arguments, **more):
        answers = sample(*arguments, **more)
        for answer in answers:
            if answer.finish_reason == "stop" and len(answer.token_ids) > 1:
                answer.token_ids.pop()
                answer.logprobs.pop()
        return answers

    end_id = toy.encoder(imitator).end_id
    check_end_tokens(draw(), end_id)
    monkeypatch.setattr(drawing, "sample", without_end)
    with pytest.raises(AssertionError):
        check_end_tokens(draw(), end_id)


def test_groups_that_are_not_side_by_side_are_caught(models, draw):
    faulty = draw()
    shuffled = torch.arange(24).view(6, 4).T.flatten()
    faulty.score_B.copy_(faulty.score_B[shuffled])
    rows = [faulty.rows[place] for place in shuffled.tolist()]
    faulty.rows[:] = rows
    with pytest.raises(AssertionError):
        check_advantages(models[:2], faulty)


def test_a_clip_on_the_wrong_side_is_caught(monkeypatch, models, draw):
    def optimistic(logprob, old, advantage, *, clip_low, clip_high):
        ratio = (logprob - old).exp()
        return torch.minimum(-advantage * ratio, -advantage * ratio.clamp(1 - clip_low, 1 + clip_high))

    monkeypatch.setattr(grpo, "clipped_surrogate", optimistic)
    with pytest.raises(AssertionError):
        check_loss(models, draw())


@pytest.fixture
def pairs(imitator, models):
    """Draws pairs of answers anew."""

    def drawn():
        encoder = toy.encoder(imitator)
        return rollouts.draw(
            models[0].model, encoder, toy.instructions(12), SamplerConfig(max_new_tokens=8), seed=0, group_size=2
        )

    return drawn


def test_without_a_fault_the_check_of_pairs_passes(models, pairs):
    check_pair_loss(models[2:0:-1], pairs())


def test_a_preference_taken_the_wrong_way_round_is_caught(monkeypatch, models, pairs):
    monkeypatch.setattr(judging, "_higher", lambda first, second: float(first < second))
    with pytest.raises(AssertionError):
        check_pair_loss(models[2:0:-1], pairs())


def test_a_wrong_sign_of_the_margin_is_caught(monkeypatch, models, pairs):
    right = preference_losses.preference_loss
    monkeypatch.setattr(online_dpo, "preference_loss", lambda loss, margin, weight: right(loss, -margin, weight))
    with pytest.raises(AssertionError):
        check_pair_loss(models[2:0:-1], pairs())


def test_a_reference_left_out_of_the_margin_is_caught(monkeypatch, models, pairs):
    right = rollouts.token_logprobs
    monkeypatch.setattr(online_dpo, "token_logprobs", lambda *arguments: 0 * right(*arguments))
    with pytest.raises(AssertionError):
        check_pair_loss(models[2:0:-1], pairs())


def test_answers_paired_across_prompts_are_caught(monkeypatch, models, pairs):
    faulty = pairs()
    for column in (faulty.rows, faulty.completions):
        column.append(column.pop(0))
    with pytest.raises((AssertionError, ValueError)):
        check_pair_loss(models[2:0:-1], faulty)
