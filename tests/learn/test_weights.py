"""Every trainer takes adapters, bfloat16 and recomputed layers, learns with them, and goes on after a stop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from pasture.learn import dpo, ppo, resume, reward_model, rloo, sft
from pasture.learn.rollouts import Environment
from pasture.models.heads import ScalarModel
from pasture.models.load import load_causal_lm, load_tokenizer
from pasture.models.weights_config import Lora, Weights
from tests.learn import toy

COMMON: dict[str, Any] = {"batch_size": 8, "max_tokens": 32, "checkpoint_steps": 2}
OWN_ANSWERS: dict[str, Any] = {
    "steps": 6,
    "rollout_batch_size": 8,
    "minibatch_size": 4,
    "learning_rate": 1e-2,
    "max_prompt_tokens": 16,
    "max_new_tokens": 8,
    "save_every": 3,
    "checkpoint_steps": 2,
}
ADAPTERS = Weights(lora=Lora(rank=2), gradient_checkpointing=True)

TRAININGS: dict[str, Callable[..., None]] = {
    "sft": lambda base, weights, epochs, **end: sft.train(
        sft.Config(epochs=epochs, learning_rate=1e-2, weights=weights, **COMMON),
        start=base, demonstrations=toy.demonstrations(24), template=toy.TEMPLATE, **end,
    ),
    "reward_model": lambda base, weights, epochs, **end: reward_model.train(
        reward_model.Config(epochs=epochs, learning_rate=1e-2, weights=weights, **COMMON),
        start=base, feedback=toy.separable_feedback(24), template=toy.TEMPLATE, **end,
    ),
    "dpo": lambda base, weights, epochs, **end: dpo.train(
        dpo.Config(epochs=epochs, learning_rate=1e-2, weights=weights, **COMMON),
        start=base, feedback=toy.separable_feedback(24), template=toy.TEMPLATE, **end,
    ),
    "ppo": lambda base, weights, epochs, **end: ppo.train(
        ppo.Config(weights=weights, **OWN_ANSWERS), start=base, value_start=value_model(base),
        environment=Environment(toy.instructions(20), toy.TEMPLATE, toy.count_liked), **end,
    ),
    "rloo": lambda base, weights, epochs, **end: rloo.train(
        rloo.Config(weights=weights, group_size=4, **OWN_ANSWERS), start=base,
        environment=Environment(toy.instructions(20), toy.TEMPLATE, toy.count_liked), **end,
    ),
}  # fmt: skip
LOSS_FALLS = ("sft", "reward_model", "dpo")


def value_model(base: Path) -> Path:
    folder = base.parent / f"{base.name}-value"
    if not folder.exists():
        tokenizer = load_tokenizer(base)
        ScalarModel.from_causal_lm(load_causal_lm(base, tokenizer=tokenizer)).save(folder)
        tokenizer.save_pretrained(folder)
    return folder


def train(method: str, base: Path, folder: Path, weights: Weights, *, epochs: int = 2, progress=toy.quiet) -> list[Any]:
    TRAININGS[method](base, weights, epochs, folder=folder, seed=0, progress=progress)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def report_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_REPORTS", 0)


@pytest.mark.parametrize("method", LOSS_FALLS)
@pytest.mark.parametrize("weights", [ADAPTERS, Weights(dtype="bfloat16")], ids=["adapters", "bfloat16"])
def test_the_loss_falls(base: Path, tmp_path: Path, method: str, weights: Weights):
    losses = [row["loss"] for row in train(method, base, tmp_path, weights, epochs=12)]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


@pytest.mark.parametrize("method", TRAININGS)
def test_what_adapters_learned_is_of_their_rank_and_touches_nothing_else(base: Path, tmp_path: Path, method: str):
    train(method, base, tmp_path, ADAPTERS)
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    changed = 0
    for name, weight in after.items():
        # A backbone's weights lack the prefix of the language model's.
        began = before.get(name, before.get(f"model.{name}"))
        assert began is not None, name
        difference = weight.astype(np.float64) - began
        if np.abs(difference).max() > 0:
            changed += 1
            values = np.linalg.svd(difference, compute_uv=False)
            assert values[2] < 1e-5 * values[0]
            assert values[0] > 1e-3
    assert changed == 2 * 7  # two layers of a Llama: four matrices of attention, three of the feed-forward part
    assert (tmp_path / "model" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("method", TRAININGS)
@pytest.mark.parametrize("weights", [ADAPTERS, Weights(dtype="bfloat16")], ids=["adapters", "bfloat16"])
def test_a_stop_changes_nothing(base: Path, tmp_path: Path, method: str, weights: Weights):
    def stop(done: int, total: int, **_: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    train(method, base, tmp_path / "whole", weights)
    with pytest.raises(KeyboardInterrupt):
        train(method, base, tmp_path / "stopped", weights, progress=stop)
    train(method, base, tmp_path / "stopped", weights)
    whole, stopped = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped


def test_a_checkpoint_of_adapters_holds_no_frozen_weight(base: Path, tmp_path: Path):
    def stop(done: int, total: int, **_: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("sft", base, tmp_path, ADAPTERS, progress=stop)
    kept = [name for name in load_file(tmp_path / "checkpoint" / "checkpoint.safetensors") if name.startswith("model/")]
    assert kept
    assert all(".lora_" in name for name in kept)
