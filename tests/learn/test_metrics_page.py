"""docs/metrics.md and the trainers say the same: which names there are, and which methods write them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pasture.learn import METHODS, reward_model
from pasture.learn.rollouts import Environment
from tests.learn import alone, toy

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>[^`]+)` \|.*\| (?P<methods>\w+(?:, \w+)*) \|$", re.MULTILINE)

ON_ROWS: dict[str, Any] = {"epochs": 1, "batch_size": 8, "max_tokens": 32, "held_out_count": 2}
OWN_ANSWERS: dict[str, Any] = {
    "steps": 1, "rollout_batch_size": 8, "minibatch_size": 4, "max_prompt_tokens": 16, "max_new_tokens": 6,
}  # fmt: skip
CORRECTED = {"sampler_ratio_cap": 2.0}
SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("sft", "reward_model", "dpo", "simpo", "kto", "feedme", "reward_conditioning"), ON_ROWS),
    "reward_model_ensemble": ON_ROWS | {"members": 2},
    "ppo": OWN_ANSWERS | CORRECTED,
    "rloo": OWN_ANSWERS | CORRECTED | {"group_size": 4},
    "grpo": OWN_ANSWERS | CORRECTED | {"group_size": 4},
    "online_dpo": OWN_ANSWERS,
    "quark": OWN_ANSWERS,
    "expert_iteration": ON_ROWS | {"n": 2, "max_prompt_tokens": 16, "max_new_tokens": 6},
}
"""Of every method the settings with which it writes all that it can."""


def on_the_page() -> dict[str, set[str]]:
    """Names by the method that writes them."""
    names: dict[str, set[str]] = {}
    for row in ROW.finditer(PAGE.read_text(encoding="utf-8")):
        for method in row["methods"].split(", "):
            names.setdefault(method, set()).add(row["name"])
    return names


@pytest.fixture(scope="module")
def value(imitator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("value")
    config = reward_model.Config(epochs=1, batch_size=8, max_tokens=32)
    given: dict[str, Any] = {"feedback": toy.separable_feedback(16), "template": toy.TEMPLATE}
    reward_model.train(config, start=imitator, folder=folder, seed=0, progress=toy.quiet, **given)
    return folder / "model"


def data_for(method: str, value: Path) -> dict[str, Any]:
    if method == "sft":
        return {"demonstrations": toy.demonstrations(12), "template": toy.TEMPLATE}
    if "steps" not in SETTINGS[method] and method != "expert_iteration":
        return {"feedback": toy.separable_feedback(14), "template": toy.TEMPLATE}
    environment = Environment(toy.instructions(12), toy.TEMPLATE, alone.any_taste)
    return {"environment": environment, **({"value_start": value} if method == "ppo" else {})}


@pytest.mark.parametrize("method", SETTINGS)
def test_a_method_writes_the_names_that_the_page_has_for_it_and_no_other(method, imitator, value, tmp_path):
    module = METHODS[method]
    config = module.Config(**SETTINGS[method])
    module.train(config, start=imitator, folder=tmp_path, seed=0, progress=toy.quiet, **data_for(method, value))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    written = {name for row in rows for name in row} - {"step"}
    assert written == on_the_page()[method]


def test_the_page_speaks_of_every_method_that_trains():
    assert on_the_page().keys() == METHODS.keys() - {"best_of_n"} == SETTINGS.keys()
    assert not hasattr(METHODS["best_of_n"], "train")


def test_a_name_stands_once_for_each_method():
    rows = [(name, method) for name, methods in ROW.findall(PAGE.read_text()) for method in methods.split(", ")]
    assert len(rows) == len(set(rows))
