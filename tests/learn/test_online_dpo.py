import dataclasses
import json
import math
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pasture.core.errors import TrainingError
from pasture.core.files import read_records
from pasture.core.records import Comparison, Preference
from pasture.learn import online_dpo
from pasture.learn.judging import AnnotatedEnvironment, Remembered, judge_pairs
from pasture.learn.rollouts import Environment, draw
from pasture.models.load import load_causal_lm, load_tokenizer, save_model
from pasture.models.response import ResponseModel
from pasture.models.sample import SamplerConfig
from tests.learn import alone, toy

CONFIG = online_dpo.Config(
    steps=2,
    rollout_batch_size=16,
    minibatch_size=4,
    learning_rate=1e-3,
    warmup_steps=0,
    max_prompt_tokens=16,
    max_new_tokens=8,
    save_every=1,
)


class Annotator:
    """Prefers the answer with more liked words; says of some comparisons what it is told to."""

    identity: ClassVar = {"annotator": "toy"}

    def __init__(self, verdict=None, votes=1):
        self.verdict, self.votes = verdict, votes
        self.asked: list[Any] = []

    def annotate(self, comparisons):
        self.asked += comparisons
        return [self._say(comparison) for comparison in comparisons for _ in range(self.votes)]

    def _say(self, comparison):
        first, second = (side.text.split().count(toy.LIKED) for side in (comparison.first, comparison.second))
        better: Any = "tie" if first == second else "first" if first > second else "second"
        preferred = better if self.verdict is None else self.verdict()
        error = "no answer" if preferred == "unjudged" else None
        return Preference(comparison_id=comparison.id, annotator="toy", preferred=preferred, error=error)


@pytest.fixture(scope="module")
def models(imitator):
    """A policy that has moved away from the reference, so that no log-ratio is zero."""
    policy, reference = (ResponseModel(load_causal_lm(imitator)) for _ in range(2))
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(1.3)
    return policy, reference


@pytest.fixture(scope="module")
def answers(imitator, models):
    return draw(
        models[1].model,
        toy.encoder(imitator),
        toy.instructions(12),
        SamplerConfig(max_new_tokens=8),
        seed=0,
        group_size=2,
    )


def _environment(scorer=alone.any_taste):
    return Environment(toy.instructions(12), toy.TEMPLATE, scorer)


def _annotated(annotator):
    return AnnotatedEnvironment(toy.instructions(12), toy.TEMPLATE, annotator)


def _train(folder, start, environment, **changes):
    online_dpo.train(
        CONFIG.model_copy(update=changes),
        start=start,
        environment=environment,
        folder=folder,
        seed=0,
        progress=toy.quiet,
    )
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _loss(kind, margin, beta):
    if kind == "sigmoid":
        return math.log1p(math.exp(-beta * margin))
    return (margin - 1 / (2 * beta)) ** 2 if kind == "ipo" else max(0.0, 1 - beta * margin)


def check_loss(models, answers, kind="sigmoid"):
    """The loss of a batch of pairs in float64, from each answer alone and unpadded, and the scorer's own numbers."""
    policy, reference = models
    config = CONFIG.model_copy(update={"loss": kind, "beta": 0.5})
    experience = online_dpo.evaluate(config, reference, _environment(), answers)
    count = len(experience.pairs)
    found = float(online_dpo.accumulate_gradients(config, policy, experience, list(range(count)))[0])
    alone.gradients(policy.model.parameters())
    scores = alone.any_taste(answers.instructions, answers.completions)
    ratio = [
        math.fsum(alone.token_logprobs(policy.model, row) - alone.token_logprobs(reference.model, row))
        for row in answers.rows
    ]
    expected = []
    for pair in range(12):
        one, other = 2 * pair, 2 * pair + 1
        if answers.completions[one].text == answers.completions[other].text:
            continue
        margin = ratio[one] - ratio[other]
        t = 0.5 if scores[one] == scores[other] else float(scores[one] > scores[other])
        expected.append(t * _loss(kind, margin, 0.5) + (1 - t) * _loss(kind, -margin, 0.5))
    assert count == len(expected)
    assert found == pytest.approx(math.fsum(expected), abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "hinge"])
def test_loss_of_real_answers_matches_plain_loops(models, answers, kind):
    check_loss(models, answers, kind)


@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "hinge"])
def test_loss_of_a_pair_matches_its_definition_to_a_millionth(kind):
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 4, 30), rng.normal(0, 4, 30)
    target = rng.choice([0.0, 0.5, 1.0], 30)
    config = CONFIG.model_copy(update={"loss": kind, "beta": 0.3})
    first_P, second_P, target_P = map(torch.from_numpy, (first, second, target))
    found = online_dpo.online_dpo_loss(first_P, second_P, target_P, config)
    loss = partial(_loss, kind, beta=0.3)
    expected = [
        t * loss(margin=a - b) + (1 - t) * loss(margin=b - a) for a, b, t in zip(first, second, target, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_training_begins_at_log_two(tmp_path, imitator):
    # By hand: policy and reference agree, so each margin is 0 and each loss -log sigma(0).
    row = _train(tmp_path, imitator, _environment(), steps=1, minibatch_size=8)[0]
    assert row["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("rows_at_once", [1, 4, 16])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch(models, answers, rows_at_once):
    policy, reference = models
    experience = online_dpo.evaluate(CONFIG, reference, _environment(), answers)
    longest = max(len(row) for row in answers.rows)
    results = []
    for budget in (rows_at_once * longest, 10_000):
        config = CONFIG.model_copy(update={"micro_batch_tokens": budget})
        numbers = list(range(1, len(experience.pairs)))
        sums = online_dpo.accumulate_gradients(config, policy, experience, numbers)
        results.append((sums, alone.gradients(policy.model.parameters())))
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-4)
    alone.check_equal_gradients(results[0][1], results[1][1])


@pytest.mark.parametrize("judge", ["scorer", "annotator"])
def test_answers_come_to_be_what_the_judge_prefers(tmp_path, imitator, judge):
    instructions = toy.instructions(200)
    environment = (
        Environment(instructions, toy.TEMPLATE, toy.count_liked)
        if judge == "scorer"
        else AnnotatedEnvironment(instructions, toy.TEMPLATE, Annotator())
    )
    config = {"steps": 12, "rollout_batch_size": 128, "minibatch_size": 16, "learning_rate": 3e-3}
    rows = _train(tmp_path, imitator, environment, **config, save_every=12)
    trained = load_causal_lm(tmp_path / "model")
    liked = [
        np.mean(
            toy.count_liked(
                None,
                draw(
                    model, toy.encoder(imitator), toy.instructions(60, seed=9), SamplerConfig(max_new_tokens=8), seed=1
                ).completions,
            )
        )
        for model in (load_causal_lm(imitator), trained)
    ]
    assert liked[1] > liked[0] + 0.8
    assert rows[-1]["rewards/accuracies"] > 0.5
    assert ("reward" in rows[0]) == (judge == "scorer")


def test_the_annotator_is_asked_about_pairs_of_different_answers_alone(answers):
    annotator = Annotator()
    judged = judge_pairs(_annotated(annotator), answers)
    texts = [
        (one.text, other.text) for one, other in zip(answers.completions[::2], answers.completions[1::2], strict=True)
    ]
    different = [pair for pair in texts if pair[0] != pair[1]]
    assert [(one.first.text, one.second.text) for one in annotator.asked] == different
    assert [verdict is None for verdict in judged.first_preferred] == [one == other for one, other in texts]


def test_equal_answers_unjudged_pairs_and_ties_are_reported_and_the_first_two_left_out(answers):
    completions = list(answers.completions)
    completions[1] = completions[0]
    first_pair_equal = dataclasses.replace(answers, completions=completions)
    verdicts = iter(["unjudged", "tie"] + ["first"] * 20)
    annotator = Annotator(verdict=lambda: next(verdicts))
    judged = judge_pairs(_annotated(annotator), first_pair_equal)
    asked = len(annotator.asked)
    assert judged.figures["pairs/equal"] == pytest.approx(1 - asked / 12)
    assert judged.figures["pairs/unjudged"] == pytest.approx(1 / 12)
    assert judged.figures["pairs/ties"] == pytest.approx(1 / 12)
    assert judged.first_preferred[0] is None
    assert [said for said in judged.first_preferred if said is not None] == [0.5] + [1.0] * (asked - 2)


def test_several_verdicts_on_a_pair_count_their_mean(answers):
    verdicts = iter(["first", "second", "first", "unjudged"] * 12)
    judged = judge_pairs(_annotated(Annotator(verdict=lambda: next(verdicts), votes=4)), answers)
    # By hand: two of three judged votes.
    said = [verdict for verdict in judged.first_preferred if verdict is not None]
    assert said == pytest.approx([2 / 3] * len(said))


def test_a_step_without_anything_to_learn_from_moves_nothing(tmp_path, imitator):
    model = load_causal_lm(imitator)
    with torch.no_grad():
        # A policy that always says the same: each pair is of equal answers.
        model.get_output_embeddings().weight.mul_(1e4)
    save_model(model, load_tokenizer(imitator), tmp_path / "sure")
    rows = _train(tmp_path, tmp_path / "sure", _environment())
    assert [row["pairs/equal"] for row in rows] == [1.0, 1.0]
    assert "loss" not in rows[0]
    trained = load_causal_lm(tmp_path / "model")
    for before, after in zip(model.parameters(), trained.parameters(), strict=True):
        assert torch.equal(before, after)


def test_what_was_said_is_remembered_by_the_next_process_and_told_apart_from_what_is_new(tmp_path, answers):
    first = Annotator()
    judged = judge_pairs(_annotated(Remembered(first, tmp_path)), answers)
    half = dataclasses.replace(answers, completions=answers.completions[:12], instructions=answers.instructions[:12])
    again = Annotator(verdict=lambda: pytest.fail("asked again"))
    assert judge_pairs(_annotated(Remembered(again, tmp_path)), answers) == judged
    assert judge_pairs(_annotated(Remembered(again, tmp_path)), half).first_preferred == judged.first_preferred[:6]
    # The verdicts can be read, beside what they are about.
    kept = read_records(tmp_path / "00000-comparisons.jsonl", Comparison)
    assert [one.id for one in kept] == [one.id for one in first.asked]
    assert len(Remembered(again, tmp_path).all()) == len(first.asked)


def test_a_batch_of_which_nothing_was_judged_is_asked_about_again(tmp_path, answers):
    with pytest.raises(TrainingError, match="judged none"):
        judge_pairs(_annotated(Remembered(Annotator(verdict=lambda: "unjudged"), tmp_path)), answers)
    now = Annotator()
    judge_pairs(_annotated(Remembered(now, tmp_path)), answers)
    assert now.asked


def test_an_annotator_that_leaves_one_out_is_found_out_though_others_are_remembered(tmp_path, answers):
    half = dataclasses.replace(answers, completions=answers.completions[:12], instructions=answers.instructions[:12])
    judge_pairs(_annotated(Remembered(Annotator(), tmp_path)), half)
    with pytest.raises(TrainingError, match="answered about"):
        judge_pairs(_annotated(Remembered(_Broken(lambda preferences: preferences[1:]), tmp_path)), answers)


class _Broken(Annotator):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def annotate(self, comparisons):
        return self.fault(super().annotate(comparisons))


def _raise(preferences):
    raise RuntimeError("the judge is out")


@pytest.mark.parametrize(
    ("annotator", "message"),
    [
        (_Broken(_raise), "RuntimeError: the judge is out"),
        (_Broken(lambda preferences: preferences[1:]), "answered about"),
        (_Broken(lambda preferences: []), "answered about 0"),
        (Annotator(verdict=lambda: "unjudged"), "judged none of .* no answer"),
    ],
    ids=["raises", "leaves one out", "says nothing", "judges none"],
)
def test_an_annotator_that_fails_stops_training_at_once(tmp_path, imitator, annotator, message):
    with pytest.raises(TrainingError, match=message):
        _train(tmp_path, imitator, _annotated(annotator))
    assert not (tmp_path / "model").exists()


def test_a_step_of_the_optimizer_is_never_left_with_the_few_pairs_that_remain(monkeypatch, models, answers):
    policy, reference = models
    experience = online_dpo.evaluate(CONFIG, reference, _environment(), answers)
    five = dataclasses.replace(experience, pairs=experience.pairs[:5], first_preferred=experience.first_preferred[:5])
    taken: list[list[int]] = []

    def taking(config, policy, experience, numbers):
        taken.append(sorted(numbers))
        return torch.zeros(5)

    monkeypatch.setattr(online_dpo, "accumulate_gradients", taking)
    monkeypatch.setattr(online_dpo, "take_step", lambda *arguments, **more: [torch.zeros(())])
    online_dpo.learn(CONFIG, policy, torch.optim.SGD(policy.model.parameters()), five, 1e-3, seed=0)
    # By hand: five pairs at most four at a time are two and three, not four and one.
    assert sorted(map(len, taken)) == [2, 3]
    assert sorted(taken[0] + taken[1]) == [0, 1, 2, 3, 4]


def test_an_odd_number_of_answers_is_refused():
    with pytest.raises(ValidationError, match="multiple of 2"):
        online_dpo.Config(rollout_batch_size=7)
