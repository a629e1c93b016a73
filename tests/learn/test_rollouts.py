import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from pasture.core.errors import TrainingError
from pasture.learn import rollouts
from pasture.learn.rollouts import (
    Environment,
    check_sampler,
    collect,
    old_logprobs,
    sampler_weights,
    token_logprobs,
)
from pasture.models.load import load_causal_lm
from pasture.models.response import ResponseModel
from pasture.models.sample import SamplerConfig
from tests.learn import toy


@pytest.fixture(scope="module")
def policy(imitator):
    return ResponseModel(load_causal_lm(imitator))


@pytest.fixture(scope="module")
def grouped(imitator, policy):
    environment = Environment(toy.instructions(6), toy.TEMPLATE, toy.count_liked)
    return collect(policy.model, toy.encoder(imitator), environment, [4, 1], max_new_tokens=8, seed=0, group_size=3)


def test_a_group_answers_one_instruction_side_by_side_each_answer_drawn_anew(grouped):
    assert [instruction.id for instruction in grouped.instructions] == ["i4"] * 3 + ["i1"] * 3
    assert [answer.instruction_id for answer in grouped.completions] == ["i4"] * 3 + ["i1"] * 3
    for group in (grouped.rows[:3], grouped.rows[3:]):
        assert len({tuple(row.prompt_ids) for row in group}) == 1
        assert len({tuple(row.response_ids) for row in group}) > 1
    assert grouped.rows[0].prompt_ids != grouped.rows[3].prompt_ids


def check_end_tokens(answers, end_id):
    """An answer that came to its end holds the end token, once and last, and its row and mask reach to it."""
    assert 0 < int(answers.finished_B.sum()) < len(answers.rows)
    for place, (row, finished) in enumerate(zip(answers.rows, answers.finished_B.tolist(), strict=True)):
        assert row.response_ids.count(end_id) == int(finished)
        assert (row.response_ids[-1] == end_id) == finished
        predicted = answers.ids_BT[place, 1:][answers.mask_BT[place]].tolist()
        assert predicted == row.response_ids


def test_end_tokens_are_learned_from_and_pads_are_not(imitator, grouped):
    check_end_tokens(grouped, toy.encoder(imitator).end_id)


def test_a_groups_prompt_is_read_once(monkeypatch, imitator, policy):
    read: list[int] = []
    forward = policy.model.forward

    def counting(*arguments: Any, **more: Any):
        ids = more["input_ids"]
        if ids.shape[1] > 1:
            read.append(ids.shape[0])
        return forward(*arguments, **more)

    monkeypatch.setattr(policy.model, "forward", counting)
    rollouts.draw(
        policy.model, toy.encoder(imitator), toy.instructions(4), SamplerConfig(max_new_tokens=4), seed=0, group_size=5
    )
    assert sum(read) == 4


def test_scores_of_cut_answers_can_be_fixed(grouped):
    cut = dataclasses.replace(grouped, finished_B=torch.tensor([True, False] * 3), score_B=torch.arange(6.0))
    assert cut.scores(-5.0).tolist() == [0.0, -5.0, 2.0, -5.0, 4.0, -5.0]
    assert cut.scores(None).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_another_sampler_is_refused_without_a_cap_and_with_one_the_policy_is_asked_again(policy, grouped):
    drawn_elsewhere = dataclasses.replace(grouped, sampler_logprob_BT=grouped.sampler_logprob_BT * 1.1)
    check_sampler(policy, grouped, 1024)
    with pytest.raises(TrainingError, match="sampler_ratio_cap"):
        check_sampler(policy, drawn_elsewhere, 1024)
    asked_again = old_logprobs(policy, drawn_elsewhere, 1024, sampler_ratio_cap=2.0)
    np.testing.assert_array_equal(asked_again, token_logprobs(policy, grouped, 1024))
    assert old_logprobs(policy, grouped, 1024, sampler_ratio_cap=None) is grouped.sampler_logprob_BT


def test_in_bfloat16_the_policy_is_asked_again_as_one_token_at_a_time_is_rounded_otherwise(imitator):
    policy = ResponseModel(load_causal_lm(imitator, dtype=torch.bfloat16))
    environment = Environment(toy.instructions(6), toy.TEMPLATE, toy.count_liked)
    drawn = collect(policy.model, toy.encoder(imitator), environment, range(6), max_new_tokens=8, seed=0)
    asked_again = old_logprobs(policy, drawn, 1024, sampler_ratio_cap=None)
    np.testing.assert_array_equal(asked_again, token_logprobs(policy, drawn, 1024))
    assert float((asked_again - drawn.sampler_logprob_BT).abs().max()) > 1e-4
    # What differs is rounding, and no answer counts for more than another by it.
    assert torch.equal(sampler_weights(asked_again, drawn.sampler_logprob_BT, None), torch.ones_like(asked_again))


def test_in_bfloat16_the_sampler_is_the_policy_unless_tokens_differ_on_average(imitator):
    policy = ResponseModel(load_causal_lm(imitator, dtype=torch.bfloat16))
    environment = Environment(toy.instructions(6), toy.TEMPLATE, toy.count_liked)
    drawn = collect(policy.model, toy.encoder(imitator), environment, range(6), max_new_tokens=8, seed=0)
    one_far_off = drawn.sampler_logprob_BT.clone()
    one_far_off[drawn.mask_BT.nonzero()[0].unbind()] += 0.9
    check_sampler(policy, dataclasses.replace(drawn, sampler_logprob_BT=one_far_off), 1024)
    all_off = torch.where(drawn.mask_BT, drawn.sampler_logprob_BT + 0.3, 0.0)
    with pytest.raises(TrainingError, match=r"on average 0\.3\d* nats a token, expected at most 0\.15"):
        check_sampler(policy, dataclasses.replace(drawn, sampler_logprob_BT=all_off), 1024)
