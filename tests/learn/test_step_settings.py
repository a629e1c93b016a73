"""What the settings say of the optimizer's steps is what a training does: how many, how fast, with which decay."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from pasture.learn import (
    dpo,
    feedme,
    grpo,
    kto,
    online_dpo,
    ppo,
    quark,
    reward_conditioning,
    reward_model,
    rloo,
    sft,
    simpo,
)
from pasture.learn.rollouts import Environment
from tests.learn import alone, toy


def _each(*methods):
    return pytest.mark.parametrize("method", methods, ids=lambda method: method.__name__.rpartition(".")[2])


def _weights(folder):
    """By the backbone's names, whatever stands around it."""
    return {name.removeprefix("model."): one for name, one in load_file(folder / "model.safetensors").items()}


def _train_on_own_answers(method, folder, start, value_start, **settings):
    more = {"value_start": value_start} if method is ppo else {}
    common = {"rollout_batch_size": 8, "minibatch_size": 8, "max_prompt_tokens": 16, "max_new_tokens": 6}
    method.train(
        method.Config(**common, **settings),
        start=start,
        environment=Environment(toy.instructions(8), toy.TEMPLATE, alone.any_taste),
        folder=folder,
        seed=0,
        progress=toy.quiet,
        **more,
    )
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _train_on_others_answers(method, folder, start, **settings):
    data = {"demonstrations": toy.demonstrations(8)} if method is sft else {"feedback": toy.separable_feedback(8)}
    config = method.Config(epochs=1, batch_size=16, warmup_fraction=0.0, max_tokens=32, **settings)
    method.train(config, start=start, template=toy.TEMPLATE, folder=folder, seed=0, progress=toy.quiet, **data)
    return _weights(folder / "model")


@_each(ppo, rloo, grpo, online_dpo, quark)
def test_each_batch_is_gone_through_as_often_as_asked_at_a_rate_that_rises_and_falls(
    monkeypatch, tmp_path, imitator, taste, method
):
    taken, right = [], method.take_step

    def noting(optimizer, **settings):
        taken.append(settings)
        return right(optimizer, **settings)

    monkeypatch.setattr(method, "take_step", noting)
    settings = {"steps": 4, "warmup_steps": 1, "inner_epochs": 2, "learning_rate": 1e-3, "max_gradient_norm": 0.5}
    rows = _train_on_own_answers(method, tmp_path, imitator, taste, **settings)
    # By hand: half the rate while it rises, then from all of it towards 0 in three steps; each batch twice.
    rates = [0.5e-3, 1e-3, 2e-3 / 3, 1e-3 / 3]
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates)
    assert [step["learning_rate"] for step in taken] == pytest.approx(np.repeat(rates, 2))
    assert {step["max_gradient_norm"] for step in taken} == {0.5}


def test_ppo_steps_along_the_clipped_gradient_with_its_own_epsilon(tmp_path, imitator, taste):
    settings = {"steps": 1, "warmup_steps": 0, "inner_epochs": 1, "learning_rate": 1.0, "max_gradient_norm": 0.01}
    [row] = _train_on_own_answers(ppo, tmp_path, imitator, taste, adam_epsilon=1.0, **settings)
    begun, found = _weights(imitator), _weights(tmp_path / "model")
    moved = np.concatenate([(found[name] - one).flatten() for name, one in begun.items()])
    # By hand: the first step is g / (|g| + 1) of the gradient g clipped to a norm of 0.01, which is g within 1%.
    assert row["grad_norm"] > 0.02
    assert np.linalg.norm(moved) == pytest.approx(0.01, rel=0.01)


@_each(sft, reward_model, dpo, simpo, kto, feedme, reward_conditioning)
def test_weights_decay_by_as_much_as_asked(tmp_path, base, method):
    plain, decayed = (
        _train_on_others_answers(method, tmp_path / str(decay), base, learning_rate=0.01, weight_decay=decay)
        for decay in (0.0, 0.5)
    )
    # By hand: one step at a rate of 0.01 takes 0.005 of what each weight began at; control tokens are rows behind.
    begun = {name: one for name, one in _weights(base).items() if name in plain}
    assert "layers.0.mlp.up_proj.weight" in begun
    for name, one in begun.items():
        lost = (plain[name] - decayed[name])[: len(one)]
        np.testing.assert_allclose(lost, 0.005 * one, rtol=0, atol=1e-6, err_msg=name)
