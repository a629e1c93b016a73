import math
from functools import partial

import numpy as np
import pytest
import torch

from pasture.core.errors import DataError, RunFolderError
from pasture.learn import dpo, likelihoods
from pasture.learn.dpo import dpo_loss
from pasture.machine.checkpoint import load_checkpoint, save_checkpoint
from pasture.models.weights_config import Lora, Weights
from tests.learn import pairwise, toy
from tests.learn.alone import check_equal_gradients, gradients

QUICK = dpo.Config(epochs=2, batch_size=8, learning_rate=1e-3, max_tokens=32, save_every=3)
train = partial(pairwise.train, dpo)


def oracle(logratios, preferred, config):
    """Loss of each pair, as the papers and TRL's dpo_loss have it, in NumPy."""
    e, beta = config.label_flip_probability, config.beta

    def of_preferred(margin):
        return {
            "sigmoid": np.logaddexp(0, -beta * margin),
            "ipo": (margin - 1 / (2 * beta)) ** 2,
            "hinge": np.maximum(0, 1 - beta * margin),
        }[config.loss]

    losses = []
    for (first, second), label in zip(logratios, preferred, strict=True):
        right, wrong = of_preferred(first - second), of_preferred(second - first)
        if label == 0:
            right, wrong = wrong, right
        if label == 0.5:
            losses.append((right + wrong) / 2)
        elif config.flip_correction == "conservative":
            losses.append((1 - e) * right + e * wrong)
        else:
            losses.append(((1 - e) * right - e * wrong) / (1 - 2 * e))
    return np.array(losses)


SETTINGS = [
    {},
    {"loss": "ipo", "beta": 0.3},
    {"loss": "hinge"},
    {"label_flip_probability": 0.25},
    {"label_flip_probability": 0.25, "flip_correction": "unbiased"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_is_that_of_answers_read_one_by_one(base, settings):
    config = QUICK.model_copy(update=settings)
    judged = pairwise.pairs(base, pairwise.mixed_feedback())
    policy, layout = pairwise.policy(base, moved=0.05)
    reference, _ = pairwise.policy(base)
    logratios = pairwise.sums_alone(policy.model, judged) - pairwise.sums_alone(reference.model, judged)
    expected = oracle(logratios, [pair.first_preferred for pair in judged], config)
    assert np.abs(logratios).max() > 0.5
    reference_P2 = torch.from_numpy(pairwise.sums_alone(reference.model, judged)).float()
    figures = dpo.accumulate_gradients(config, policy, layout, judged, reference_P2)
    assert float(figures["loss"]) == pytest.approx(expected.mean(), abs=2e-5)
    loss_P = dpo_loss(
        torch.from_numpy(logratios[:, 0]),
        torch.from_numpy(logratios[:, 1]),
        torch.tensor([pair.first_preferred for pair in judged], dtype=torch.float64),
        config,
    )
    np.testing.assert_allclose(loss_P, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    # By hand: with a margin of 0, log 2; (0 - 1 / 0.2)^2; max(0, 1).
    [
        ({}, math.log(2)),
        ({"loss": "ipo"}, 25.0),
        ({"loss": "hinge"}, 1.0),
        ({"flip_correction": "unbiased"}, math.log(2)),
    ],
)
def test_a_policy_that_is_still_the_reference_has_the_loss_of_no_opinion(tmp_path, base, settings, expected):
    config = QUICK.model_copy(update={"epochs": 1, **settings})
    [first, *_] = train(config, tmp_path, base, toy.separable_feedback(16))
    assert first["loss"] == pytest.approx(expected, abs=1e-5)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(("pairs_at_once", "shares"), [(1, True), (4, True), (16, True), (4, False)])
def test_loss_and_gradients_do_not_depend_on_the_micro_batch_or_on_sharing_prompts(base, pairs_at_once, shares):
    judged = pairwise.pairs(base, pairwise.mixed_feedback(16))
    reference_P2 = torch.zeros(len(judged), 2)
    whole, layout = pairwise.policy(base)
    expected = dpo.accumulate_gradients(QUICK, whole, layout, judged, reference_P2)
    cut, layout = pairwise.policy(base, shares=shares)
    budget = pairs_at_once * max(layout.token_count(pair.answers) for pair in judged)
    found = dpo.accumulate_gradients(
        QUICK.model_copy(update={"micro_batch_tokens": budget}), cut, layout, judged, reference_P2
    )
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, abs=1e-5
    )
    check_equal_gradients(gradients(cut.model.parameters()), gradients(whole.model.parameters()))


def test_the_policy_learns_to_say_what_people_like(tmp_path, imitator):
    config = QUICK.model_copy(update={"epochs": 3, "batch_size": 16, "held_out_count": 40})
    metrics = train(config, tmp_path, imitator, toy.separable_feedback(240))
    assert metrics[-1]["eval_rewards/accuracies"] > 0.85
    assert metrics[-1]["eval_loss"] < math.log(2) - 0.05
    assert metrics[-1]["rewards/chosen"] > metrics[-1]["rewards/rejected"]
    assert pairwise.likes(tmp_path / "model") >= pairwise.likes(imitator) + 30


def test_adapters_begin_as_the_reference_and_leave_a_whole_model(tmp_path, imitator):
    config = QUICK.model_copy(update={"weights": Weights(lora=Lora(rank=4)), "learning_rate": 1e-2})
    metrics = train(config, tmp_path, imitator, toy.separable_feedback(16))
    assert metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.01
    assert (tmp_path / "model" / "adapter").is_dir()
    assert pairwise.likes(tmp_path / "model") >= pairwise.likes(imitator)


def test_copies_are_kept_on_the_way_and_the_last_is_the_model(tmp_path, base):
    train(QUICK, tmp_path, base, toy.separable_feedback(16))
    # By hand: 16 pairs by 8, twice, are four steps.
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["0003", "0004"]
    weights = {
        name: (tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "steps/0003", "steps/0004")
    }
    assert weights["steps/0004"] == weights["model"] != weights["steps/0003"]


def test_the_reference_is_asked_once_and_read_by_a_run_that_goes_on(tmp_path, base, monkeypatch):
    feedback = toy.separable_feedback(16)
    whole = train(QUICK, tmp_path / "whole", base, feedback)
    asked = []
    right = likelihoods._all_logprobs

    def asking(*arguments):
        asked.append(1)
        return right(*arguments)

    monkeypatch.setattr(likelihoods, "_all_logprobs", asking)

    def stop(done, total, **figures):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(QUICK, tmp_path / "run", base, feedback, progress=stop)
    assert train(QUICK, tmp_path / "run", base, feedback) == whole
    assert asked == [1]


def test_log_probabilities_of_another_reference_are_not_used(tmp_path, base, imitator):
    feedback = toy.separable_feedback(8)
    whole = train(QUICK, tmp_path / "whole", base, feedback)
    train(QUICK, tmp_path / "other", imitator, feedback)
    found = load_checkpoint(tmp_path / "other" / "reference")
    assert found is not None
    save_checkpoint(tmp_path / "run" / "reference", step=0, tensors=found.tensors, facts=found.facts)
    assert train(QUICK, tmp_path / "run", base, feedback) == whole


def test_a_checkpoint_of_another_reference_is_refused(tmp_path, base, imitator):
    def stop(done, total, **figures):
        raise KeyboardInterrupt

    config = QUICK.model_copy(update={"checkpoint_steps": 1})
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, base, toy.separable_feedback(16), progress=stop)
    with pytest.raises(RunFolderError, match="another model"):
        train(config, tmp_path, imitator, toy.separable_feedback(16))


def test_pairs_that_teach_nothing_are_left_out_and_counted(tmp_path, base):
    one, two, three = toy.instructions(3)
    feedback = [
        toy.judged("w1 w2", "w3", instruction=one),
        toy.judged("w1", "w2", instruction=two, preferred="unjudged"),
        toy.judged("w5", "w5", instruction=three, preferred="tie"),
    ]
    [first, *_] = train(QUICK, tmp_path, base, feedback)
    assert {name: first[name] for name in ("pairs_asked", "pairs_unjudged", "pairs_equal")} == {
        "pairs_asked": 3,
        "pairs_unjudged": 1,
        "pairs_equal": 1,
    }
    assert first["prompts_shared"] == 1


def test_bad_input_is_refused_before_any_step(tmp_path, base):
    [(comparison, _), (other, preference)] = toy.separable_feedback(2)
    with pytest.raises(DataError, match="Join the two files by comparison id"):
        train(QUICK, tmp_path, base, [(comparison, preference)])
    with pytest.raises(DataError, match="expected a prompt of 1 to 2 tokens"):
        train(QUICK.model_copy(update={"max_tokens": 3}), tmp_path, base, [(other, preference)])
    with pytest.raises(DataError, match="of 0, 0 are unjudged"):
        train(QUICK, tmp_path, base, [])
    with pytest.raises(DataError, match="leaves nothing to train on"):
        train(QUICK.model_copy(update={"held_out_count": 1}), tmp_path, base, [(other, preference)])
    assert not (tmp_path / "metrics.jsonl").exists()


def test_labels_that_say_nothing_are_no_setting():
    with pytest.raises(ValueError, match="label_flip_probability"):
        dpo.Config(label_flip_probability=0.5)
