"""What holds of every method that learns from its own scored answers; PPO has the same tests in its own file."""

import json
import math

import numpy as np
import pytest
import torch

from pasture.core.errors import DataError, ModelError, PastureError, ScorerError, TrainingError
from pasture.core.records import Instruction
from pasture.learn import grpo, online_dpo, quark, rloo
from pasture.learn.rollouts import Environment
from pasture.models.load import load_causal_lm
from pasture.models.sample import sample
from pasture.models.weights_config import Lora, Weights
from tests.learn import toy

COMMON = {
    "steps": 2,
    "rollout_batch_size": 16,
    "minibatch_size": 8,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "max_prompt_tokens": 16,
    "max_new_tokens": 12,
    "save_every": 1,
}
CONFIGS = {
    rloo: rloo.Config(**COMMON, kl_coefficient=0.05),
    grpo: grpo.Config(**COMMON, kl_coefficient=0.05),
    online_dpo: online_dpo.Config(**COMMON),
    quark: quark.Config(**COMMON),
}


def _each(*methods):
    return pytest.mark.parametrize("method", methods, ids=lambda method: method.__name__.rpartition(".")[2])


METHODS = _each(*CONFIGS)


def _train(method, folder, start, scorer=toy.count_liked, instructions=None, seed=0, **changes):
    method.train(
        CONFIGS[method].model_copy(update=changes),
        start=start,
        environment=Environment(toy.instructions(40) if instructions is None else instructions, toy.TEMPLATE, scorer),
        folder=folder,
        seed=seed,
        progress=toy.quiet,
    )
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@_each(rloo, grpo)
def test_reward_rises_and_the_divergence_stays_bounded(tmp_path, imitator, method):
    longer = {"steps": 12, "rollout_batch_size": 64, "minibatch_size": 32, "learning_rate": 5e-3, "save_every": 12}
    rows = _train(method, tmp_path, imitator, instructions=toy.instructions(200), **longer)
    before, after = rows[0]["reward"], np.mean([row["reward"] for row in rows[-3:]])
    assert after > before + 1.0
    assert abs(rows[0]["objective/kl"]) < 1e-4
    assert 0 < max(row["objective/kl"] for row in rows) < 20


@METHODS
def test_the_policy_is_kept_at_every_asked_step_as_a_plain_model(tmp_path, imitator, method):
    _train(method, tmp_path, imitator)
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["0001", "0002"]
    early, late, final = (
        load_causal_lm(tmp_path / place).get_input_embeddings().weight
        for place in ("steps/0001", "steps/0002", "model")
    )
    assert not torch.equal(early, late)
    assert torch.equal(late, final)
    assert not (tmp_path / "checkpoint").exists()


@METHODS
def test_the_last_policy_is_kept_whether_or_not_its_step_is_a_multiple(tmp_path, imitator, method):
    _train(method, tmp_path / "between", imitator, steps=3, save_every=2)
    assert sorted(path.name for path in (tmp_path / "between" / "steps").iterdir()) == ["0002", "0003"]
    _train(method, tmp_path / "short", imitator, steps=1, save_every=20)
    assert [path.name for path in (tmp_path / "short" / "steps").iterdir()] == ["0001"]


@METHODS
def test_weights_that_became_nan_are_told_as_a_learning_rate_that_is_too_high(tmp_path, imitator, method):
    with pytest.raises(PastureError, match="ower the learning rate"):
        _train(method, tmp_path, imitator, learning_rate=1e30, steps=3)


@METHODS
def test_a_prompt_that_leaves_no_room_in_the_context_is_told_before_any_answer(tmp_path, imitator, method):
    # The model's context is 256; the longest prompt comes last, and would be met in some later step.
    long = Instruction(id="long", instruction=" ".join(["w1"] * 60), source="toy", split="toy")
    with pytest.raises(ModelError, match="context holds 256"):
        _train(
            method,
            tmp_path,
            imitator,
            scorer=_raises,
            instructions=[*toy.instructions(200), long],
            max_prompt_tokens=100,
            max_new_tokens=200,
        )


@METHODS
def test_training_goes_on_in_smaller_pieces_and_with_layers_computed_again(monkeypatch, tmp_path, imitator, method):
    whole = _train(method, tmp_path / "whole", imitator, checkpoint_steps=1)
    monkeypatch.setattr(method, "save_model", _out_of_memory)
    with pytest.raises(MemoryError):
        _train(method, tmp_path / "lowered", imitator, checkpoint_steps=1, save_every=2)
    monkeypatch.undo()
    lowered = {"micro_batch_tokens": 16, "weights": Weights(gradient_checkpointing=True), "save_every": 2}
    rows = _train(method, tmp_path / "lowered", imitator, **lowered)
    assert len(rows) == len(whole) == 2
    for row, expected in zip(rows, whole, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-4)


def _out_of_memory(*_):
    raise MemoryError


@METHODS
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path, imitator, method):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        _train(method, tmp_path / name, imitator, seed=seed, steps=1)
    for file in ("metrics.jsonl", "model/model.safetensors"):
        first, again, other = ((tmp_path / name / file).read_bytes() for name in ("first", "again", "other"))
        assert first == again
        assert first != other


def _raises(instructions, completions):
    raise RuntimeError("the judge is out")


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (_raises, "RuntimeError: the judge is out"),
        (lambda instructions, completions: [0.0], "1 numbers for 16 completions"),
        (lambda instructions, completions: [math.nan] * len(completions), "returned nan for an answer to"),
    ],
    ids=["raises", "counts wrong", "says NaN"],
)
@METHODS
def test_a_scorer_that_fails_stops_training_at_once(tmp_path, imitator, method, scorer, message):
    with pytest.raises(ScorerError, match=message):
        _train(method, tmp_path, imitator, scorer=scorer)
    assert not (tmp_path / "model").exists()


@METHODS
def test_no_instructions_and_too_long_ones_are_refused_before_any_answer(tmp_path, imitator, method):
    with pytest.raises(DataError, match="no instructions"):
        _train(method, tmp_path, imitator, instructions=[])
    with pytest.raises(DataError, match="expected a prompt of 1 to 3 tokens"):
        _train(method, tmp_path, imitator, max_prompt_tokens=3)


@_each(rloo, grpo)
def test_another_sampler_is_refused_unless_its_ratio_is_capped(monkeypatch, tmp_path, imitator, method):
    def elsewhere(*arguments, **more):
        answers = sample(*arguments, **more)
        for answer in answers:
            answer.logprobs[:] = [1.1 * value for value in answer.logprobs]
        return answers

    monkeypatch.setattr("pasture.learn.drawing.sample", elsewhere)
    with pytest.raises(TrainingError, match="sampler_ratio_cap"):
        _train(method, tmp_path / "refused", imitator)
    _train(method, tmp_path / "corrected", imitator, sampler_ratio_cap=2.0)
    assert (tmp_path / "corrected" / "model").is_dir()


@METHODS
def test_adapters_learn_and_are_their_own_reference_when_off(tmp_path, imitator, method):
    rows = _train(method, tmp_path, imitator, weights=Weights(lora=Lora(rank=2)))
    # Before the first step policy and reference are one model, whose own answers were drawn.
    assert abs(rows[0]["objective/kl"]) < 1e-4
    assert abs(rows[1]["objective/kl"]) > 1e-3
    before, after = (dict(load_causal_lm(folder).named_parameters()) for folder in (imitator, tmp_path / "model"))
    ranks = {
        torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-4).item() for name in before if "proj" in name
    }
    assert ranks <= {1, 2}
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
