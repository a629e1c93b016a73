"""Every recipe that comes with Pasture can be planned, and the paper's has the paper's settings."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pasture import flow
from pasture.models.load import save_model
from pasture.models.tiny import tiny_model, word_tokenizer

RECIPES = Path(__file__).parents[1] / "recipes"
NEED_FILES = sorted(path for folder in ("paper", "modern", "smol") for path in (RECIPES / folder).glob("*.toml"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer = word_tokenizer(["a", "b"])
    save_model(tiny_model("llama", len(tokenizer), seed=0), tokenizer, folder)
    return folder


@pytest.mark.parametrize("path", NEED_FILES, ids=lambda path: path.relative_to(RECIPES).as_posix())
def test_a_recipe_for_real_models_can_be_planned_once_its_files_are_there(path: Path, model: Path, tmp_path: Path):
    table = tomllib.loads(path.read_text())
    overrides = [f"model.start={model}"]
    for name, pool in table["pools"].items():
        if pool.get("engine") == "local":
            overrides.append(f'pools.{name}.models=["{model}"]')
    if not table["data"]["source"].startswith("hub:"):
        (tmp_path / "mine.json").write_text(json.dumps([{"instruction": "a", "output": "b"}]))
        overrides.append(f"data.source={tmp_path / 'mine.json'}")
    run = flow.prepare(path, overrides, tmp_path / "run")
    made = {step.name for step in run.pending()}
    assert {f"3-annotate/evaluation/{name}" for name in table["learn"] if name != "reward_model"} <= made
    assert run.recipe.model.weights.dtype == "bfloat16"


def test_the_papers_recipe_has_the_settings_of_the_papers_scripts():
    # examples/scripts/{sft,reward_modeling,rlhf_ppo,dpo}.sh of tatsu-lab/alpaca_farm, and section 4 of the paper.
    learn: dict[str, Any] = tomllib.loads((RECIPES / "paper" / "loop.toml").read_text())["learn"]
    expected = {
        "sft": {"epochs": 3, "learning_rate": 2e-5, "batch_size": 128, "max_tokens": 512, "warmup_fraction": 0.03},
        "reward_model": {"epochs": 1, "learning_rate": 3e-6, "batch_size": 16, "held_out_count": 500},
        "dpo": {"epochs": 2, "learning_rate": 1e-6, "batch_size": 64, "beta": 0.1},
        "ppo": {"rollout_batch_size": 512, "minibatch_size": 256, "inner_epochs": 2, "kl_coefficient": 0.0067},
        "quark": {"quantiles": 4, "learning_rate": 3e-6, "kl_coefficient": 0.05},
    }
    for method, settings in expected.items():
        assert settings.items() <= learn[method].items()
    # Ten epochs of 20,000 instructions, 512 a step.
    assert learn["ppo"]["steps"] == 10 * 20_000 // 512
