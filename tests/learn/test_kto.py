from functools import partial

import numpy as np
import pytest
import torch

from pasture.core.errors import DataError
from pasture.core.records import Instruction
from pasture.learn import kto
from pasture.learn.ratings import RatedAnswers
from tests.learn import pairwise, toy
from tests.learn.alone import check_equal_gradients, gradients
from tests.learn.kto_alone import expected_figures, prepared

QUICK = kto.Config(epochs=2, batch_size=4, learning_rate=1e-3, max_tokens=32, save_every=3)
train = partial(pairwise.train, kto)


def decided(base, count=12):
    return rated(pair for pair in pairwise.pairs(base, pairwise.mixed_feedback(count)) if pair.first_preferred != 0.5)


def rated(pairs):
    return [RatedAnswers.of_pair(pair) for pair in pairs]


def material(base, judged, tmp_path, config=QUICK):
    return prepared(base, judged, tmp_path, config)


def test_loss_and_drift_are_those_of_answers_read_one_by_one(tmp_path, base, imitator):
    config = QUICK.model_copy(update={"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5})
    rows = material(base, decided(base), tmp_path, config)
    # A model that has learned to speak, with one that has not for its reference: the drift is far from 0.
    policy, layout = pairwise.policy(imitator)
    expected = expected_figures(config, rows, policy.model, pairwise.policy(base)[0].model)
    figures = kto.accumulate_gradients(config, policy, layout, rows)
    assert expected["kl"] > 3
    assert {name: float(figures[name]) for name in expected} == pytest.approx(expected, abs=1e-4)
    assert float(figures["loss"]) == pytest.approx(expected["loss"], abs=1e-5)


def test_formula_matches_the_paper_term_by_term():
    ratios = np.array([3.0, -2.0, 0.0, 5.0])
    desirable = np.array([True, True, False, False])
    config = QUICK.model_copy(update={"desirable_weight": 4 / 3})
    found = kto.kto_loss(torch.from_numpy(ratios), torch.from_numpy(desirable), torch.tensor(0.7), config)
    sigma = 1 / (1 + np.exp(-0.1 * np.where(desirable, ratios - 0.7, 0.7 - ratios)))
    weight = np.where(desirable, 4 / 3, 1.0)
    np.testing.assert_allclose(found, weight - weight * sigma, atol=1e-6)


def test_drift_is_a_mean_that_is_never_negative():
    assert float(kto.reference_point(torch.tensor([1.0, -3.0, 8.0]))) == 2.0
    assert float(kto.reference_point(torch.tensor([1.0, -3.0]))) == 0.0


def test_a_policy_that_is_still_the_reference_loses_half_of_each_weight(tmp_path, base):
    config = QUICK.model_copy(update={"desirable_weight": 1.5})
    [first, *_] = train(config, tmp_path, base, toy.separable_feedback(16))
    # By hand: sigma(0) = 1/2 for as many desirable as undesirable answers, (1.5 + 1) / 2 / 2.
    assert first["loss"] == pytest.approx(0.625, abs=1e-5)
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)


def test_the_drift_takes_no_gradient(tmp_path, base, imitator):
    judged = decided(base)
    policy, layout = pairwise.policy(imitator)
    divergence = kto._reference_point(QUICK, policy, layout, material(base, judged, tmp_path))
    assert float(divergence) > 0
    assert not divergence.requires_grad


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_mismatched_answers_are_held_to_the_models_context(tmp_path, monkeypatch, shape):
    mismatched = []

    def noted(*arguments):
        mismatched.extend(as_it_is(*arguments))
        return mismatched

    as_it_is = kto.mismatched_answers
    monkeypatch.setattr(kto, "mismatched_answers", noted)
    long, short = (Instruction(id=text, instruction=text, source="t", split="t") for text in ("w3 " * 200, "w3"))
    feedback = [
        toy.judged("w1 w2", "w3", instruction=long),
        toy.judged("w1 " * 150, "w4 " * 150, instruction=short),
    ]
    # Made for 256 tokens.
    start = toy.save_base(tmp_path / "start", shape)
    train(kto.Config(epochs=1, max_tokens=512), tmp_path / "run", start, feedback)
    # By hand: behind a prompt of 200 words and a line break the context leaves 55 of the other 151 tokens; the
    # words "w1 w2" or "w3" and an end follow "w3" and a line break.
    assert [[len(answer) for answer in group] for group in mismatched] == [[256, 256], [5, 4]]


def test_mismatched_answers_are_of_other_instructions_and_fit_behind_the_prompt(base):
    instructions = toy.instructions(4)
    feedback = [toy.judged("w1 w2 w3 w4", f"w{5 + turn}", instruction=one) for one in instructions for turn in range(3)]
    judged = rated(pairwise.pairs(base, feedback))
    words = {answer: pair.instruction_id for pair in judged for answer in map(id, pair.answers)}
    assert len(words) == 24
    mismatched = kto.mismatched_answers(judged, max_tokens=8, seed=0)
    for pair, (first, second) in zip(judged, mismatched, strict=True):
        assert first.prompt_ids == second.prompt_ids == pair.answers[0].prompt_ids
        assert len(first) <= 8
        assert len(second) <= 8
    # Another pair's prompt in front of its own answers, of another instruction: texts tell which.
    told_apart = rated(
        pairwise.pairs(base, [toy.judged(f"w{n}", f"w{n + 4}", instruction=i) for n, i in enumerate(instructions)])
    )
    for pair, group in zip(told_apart, kto.mismatched_answers(told_apart, 32, seed=0), strict=True):
        own = [answer.response_ids for answer in pair.answers]
        others = [[answer.response_ids for answer in other.answers] for other in told_apart if other is not pair]
        assert [answer.response_ids for answer in group] != own
        assert [answer.response_ids for answer in group] in others


@pytest.mark.parametrize(("pairs_at_once", "shares"), [(1, True), (4, True), (16, True), (4, False)])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch_or_on_sharing_prompts(
    tmp_path, base, pairs_at_once, shares
):
    judged = decided(base, 24)
    rows = material(base, judged, tmp_path)
    whole, layout = pairwise.policy(base, moved=0.05)
    expected = kto.accumulate_gradients(QUICK, whole, layout, rows)
    cut, layout = pairwise.policy(base, moved=0.05, shares=shares)
    budget = pairs_at_once * max(layout.token_count(pair.answers) for pair in judged)
    found = kto.accumulate_gradients(QUICK.model_copy(update={"micro_batch_tokens": budget}), cut, layout, rows)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, abs=1e-5
    )
    check_equal_gradients(gradients(cut.model.parameters()), gradients(whole.model.parameters()))


def test_the_policy_learns_to_say_what_people_like(tmp_path, imitator):
    config = QUICK.model_copy(update={"epochs": 3, "batch_size": 16, "held_out_count": 40})
    metrics = train(config, tmp_path, imitator, toy.separable_feedback(240))
    assert metrics[-1]["eval_rewards/accuracies"] > 0.85
    assert metrics[-1]["eval_kl"] >= 0
    assert pairwise.likes(tmp_path / "model") >= pairwise.likes(imitator) + 30


def test_ties_are_left_out_and_counted(tmp_path, base):
    [first, *_] = train(QUICK, tmp_path, base, pairwise.mixed_feedback(12))
    assert first["pairs_tied"] == 4
    ties = [toy.judged("w1", "w2", instruction=one, preferred="tie") for one in toy.instructions(2)]
    with pytest.raises(DataError, match="all 2 judged pairs are ties"):
        train(QUICK, tmp_path / "ties", base, ties)


def test_pairs_of_one_instruction_alone_are_refused(tmp_path, base):
    [instruction] = toy.instructions(1)
    feedback = [toy.judged("w1", f"w{number}", instruction=instruction) for number in (2, 3)]
    with pytest.raises(DataError, match="answers to other instructions"):
        train(QUICK, tmp_path, base, feedback)
