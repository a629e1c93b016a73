from functools import partial

import numpy as np
import pytest

from pasture.core.errors import DataError
from pasture.learn import feedme, sft
from pasture.models.load import load_causal_lm
from tests.learn import pairwise, toy
from tests.learn.alone import token_logprobs

QUICK = feedme.Config(epochs=2, batch_size=8, learning_rate=1e-3, max_tokens=32)
train = partial(pairwise.train, feedme)


def test_loss_is_that_of_the_preferred_answers_tokens_read_one_by_one(tmp_path, base):
    feedback = toy.separable_feedback(8)
    [first, *_] = train(QUICK, tmp_path, base, feedback)
    model, encoder = load_causal_lm(base), toy.encoder(base)
    preferred = [
        (comparison.instruction, comparison.first if preference.preferred == "first" else comparison.second)
        for comparison, preference in feedback
    ]
    assert {preference.preferred for _, preference in feedback} == {"first", "second"}
    logprobs = [token_logprobs(model, encoder.pair(*both)) for both in preferred]
    assert first["loss"] == pytest.approx(-np.concatenate(logprobs).mean(), abs=1e-5)


def test_it_is_supervised_fine_tuning_on_the_preferred_answers(tmp_path, base):
    # Oracle: sft itself, one batch a step so that the order of rows does not matter.
    feedback = toy.separable_feedback(8)
    found = train(QUICK, tmp_path / "feedme", base, feedback)
    demonstrations = [
        (comparison.instruction, comparison.first if preference.preferred == "first" else comparison.second)
        for comparison, preference in feedback
    ]
    config = sft.Config(**QUICK.model_dump())
    expected = pairwise.train(_Demonstrating, config, tmp_path / "sft", base, demonstrations)
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], abs=1e-5)


class _Demonstrating:
    @staticmethod
    def train(config, *, feedback, **rest):
        sft.train(config, demonstrations=feedback, **rest)


def test_the_policy_learns_to_say_what_people_like(tmp_path, imitator):
    config = QUICK.model_copy(update={"learning_rate": 3e-3, "batch_size": 16, "held_out_count": 40})
    metrics = train(config, tmp_path, imitator, toy.separable_feedback(240))
    assert metrics[-1]["eval_loss"] < metrics[0]["loss"]
    assert pairwise.likes(tmp_path / "model") >= pairwise.likes(imitator) + 30


def test_ties_are_left_out_and_counted(tmp_path, base):
    [first, *_] = train(QUICK, tmp_path, base, pairwise.mixed_feedback(12))
    assert {name: first[name] for name in ("pairs_asked", "pairs_tied", "pairs_unjudged", "pairs_equal")} == {
        "pairs_asked": 12,
        "pairs_tied": 4,
        "pairs_unjudged": 0,
        "pairs_equal": 0,
    }


def test_nothing_to_imitate_is_refused_before_any_step(tmp_path, base):
    ties = [toy.judged("w1", "w2", instruction=one, preferred="tie") for one in toy.instructions(3)]
    with pytest.raises(DataError, match="all 3 judged pairs are ties"):
        train(QUICK, tmp_path, base, ties)
    assert not (tmp_path / "metrics.jsonl").exists()
