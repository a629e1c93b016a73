"""A reward model on the policy's trunk scores as its own copy does, and training goes as it does with that copy."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from pasture.core.errors import ModelError
from pasture.learn import grpo, ppo, resume, reward_model, rloo
from pasture.learn.reward_model import ModelScorer
from pasture.learn.rollouts import Environment
from pasture.learn.shared_reward import placed
from pasture.models.adapters import adapted_layers
from pasture.models.load import load_tokenizer
from pasture.models.trainable import load_trainable
from pasture.models.weights_config import Lora, Weights
from tests.learn import toy
from tests.learn.test_weights import OWN_ANSWERS, value_model

ADAPTERS = Weights(lora=Lora(rank=2))

TRAININGS: dict[str, Callable[..., None]] = {
    "ppo": lambda base, config, **more: ppo.train(
        ppo.Config(value="shared", **config), start=base, value_start=value_model(base), **more
    ),
    "rloo": lambda base, config, **more: rloo.train(rloo.Config(group_size=4, **config), start=base, **more),
    "grpo": lambda base, config, **more: grpo.train(grpo.Config(group_size=4, **config), start=base, **more),
}


def trained_reward_model(base: Path, folder: Path, weights: Weights = ADAPTERS) -> Path:
    config = reward_model.Config(
        epochs=4, learning_rate=1e-2, weights=weights, batch_size=8, max_tokens=32, held_out_count=4
    )
    reward_model.train(
        config, start=base, feedback=toy.separable_feedback(40), template=toy.TEMPLATE, folder=folder, seed=0,
        progress=toy.quiet,
    )  # fmt: skip
    return folder / "model"


def scorer_of(folder: Path) -> ModelScorer:
    return ModelScorer.load(folder, toy.TEMPLATE, device="cpu")


def environment(folder: Path) -> Environment:
    return Environment(toy.instructions(20), toy.TEMPLATE, scorer_of(folder))


@pytest.fixture(scope="module")
def reward(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_reward_model(base, tmp_path_factory.mktemp("reward"))


@pytest.fixture
def policy(base: Path) -> Any:
    model = load_trainable(base, ADAPTERS, tokenizer=load_tokenizer(base), device="cpu", seed=5)
    with torch.no_grad():  # adapters that do something, other than the reward model's
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


def test_scores_are_those_of_the_reward_models_own_copy(reward: Path, policy: Any) -> None:
    asked, answers = zip(*toy.demonstrations(12), strict=True)
    alone = scorer_of(reward)(asked, answers)
    shared = placed(environment(reward), policy, "shared").scorer(asked, answers)
    assert np.std(alone) > 0.1
    assert shared == pytest.approx(alone, abs=1e-4)


def test_scores_in_bfloat16_are_alike_to_its_rounding(base: Path, tmp_path: Path) -> None:
    coarse = Weights(dtype="bfloat16", lora=Lora(rank=2))
    folder = trained_reward_model(base, tmp_path / "coarse", coarse)
    policy = load_trainable(base, coarse, tokenizer=load_tokenizer(base), device="cpu")
    asked, answers = zip(*toy.demonstrations(40), strict=True)
    alone = scorer_of(folder)(asked, answers)
    shared = placed(environment(folder), policy, "shared").scorer(asked, answers)
    assert np.abs(np.subtract(shared, alone)).max() < 0.1 * np.std(alone)


def test_the_policy_is_what_it_was_before_and_after_scoring(reward: Path, policy: Any) -> None:
    ids = torch.arange(3, 12)[None]
    names = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    before = policy(input_ids=ids).logits
    asked, answers = zip(*toy.demonstrations(4), strict=True)
    placed(environment(reward), policy, "shared").scorer(asked, answers)
    assert torch.equal(policy(input_ids=ids).logits, before)
    assert [name for name, parameter in policy.named_parameters() if parameter.requires_grad] == names
    assert all(layer.active_adapters == ["default"] for _, layer in adapted_layers(policy))


@pytest.mark.parametrize("method", TRAININGS)
def test_training_goes_as_with_a_model_of_its_own(base: Path, reward: Path, tmp_path: Path, method: str) -> None:
    figures, models = {}, {}
    for place in ("own", "shared"):
        config = {**OWN_ANSWERS, "steps": 3, "save_every": 3, "weights": ADAPTERS, "reward": place}
        end = {"environment": environment(reward), "folder": tmp_path / place, "seed": 0, "progress": toy.quiet}
        TRAININGS[method](base, config, **end)
        rows = (tmp_path / place / "metrics.jsonl").read_text().splitlines()
        figures[place] = [json.loads(row)["reward"] for row in rows]
        models[place] = load_file(tmp_path / place / "model" / "model.safetensors")
    assert figures["shared"] == pytest.approx(figures["own"], abs=1e-4)
    assert np.std(figures["own"]) > 0
    assert models["own"].keys() == models["shared"].keys()
    for name, tensor in models["own"].items():
        np.testing.assert_allclose(models["shared"][name], tensor, atol=1e-4, err_msg=name)


def test_a_reward_model_of_another_start_is_refused(base: Path, tmp_path: Path, policy: Any) -> None:
    other = toy.save_base(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    name = next(key for key in weights if key.endswith("q_proj.weight"))
    weights[name] = weights[name] * 1.01
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    foreign = trained_reward_model(other, tmp_path / "foreign")
    with pytest.raises(ModelError, match="was not trained on the model that the policy begins as"):
        placed(environment(foreign), policy, "shared")


def test_what_cannot_share_is_refused(base: Path, tmp_path: Path, policy: Any) -> None:
    whole = trained_reward_model(base, tmp_path / "whole", Weights())
    with pytest.raises(ModelError, match="all weights of this reward model were trained"):
        placed(environment(whole), policy, "shared")
    rule = replace(environment(whole), scorer=toy.count_liked)
    with pytest.raises(ModelError, match="needs a single reward model"):
        placed(rule, policy, "shared")
    few = trained_reward_model(base, tmp_path / "few", Weights(lora=Lora(rank=2)))
    narrow = load_trainable(
        base, Weights(lora=Lora(rank=2, target_modules=("q_proj",))), tokenizer=load_tokenizer(base), device="cpu"
    )
    with pytest.raises(ModelError, match="have none in this model"):
        placed(environment(few), narrow, "shared")
    with pytest.raises(ValidationError, match=r"set weights\.lora"):
        rloo.Config(reward="shared")


def test_a_stop_amid_training_changes_no_weight(
    base: Path, reward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SECONDS_BETWEEN_REPORTS", 0)

    class StoppedError(Exception):
        pass

    def stop_after_three(done: int, total: int, **figures: Any) -> None:
        if done == 3:
            raise StoppedError

    def train(folder: Path, progress: Any) -> Any:
        config = {**OWN_ANSWERS, "weights": ADAPTERS, "reward": "shared"}
        more = {"environment": environment(reward), "folder": folder, "seed": 0, "progress": progress}
        TRAININGS["ppo"](base, config, **more)
        return load_file(folder / "model" / "model.safetensors")

    whole = train(tmp_path / "whole", toy.quiet)
    with pytest.raises(StoppedError):
        train(tmp_path / "stopped", stop_after_three)
    gone_on = train(tmp_path / "stopped", toy.quiet)
    assert all(np.array_equal(gone_on[name], tensor) for name, tensor in whole.items())
