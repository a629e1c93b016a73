"""What is trained of the model is said once for all methods, and a method or an arm of a study may say otherwise."""

from pathlib import Path
from typing import Any

from pasture import flow

RECIPE = """
name = "tiny"
[model]
weights = { dtype = "bfloat16", lora = { rank = 4 } }
[learn.sft]
[learn.reward_model]
[learn.best_of_n]
[learn.dpo]
weights = { dtype = "float32" }
"""


def test_the_models_weights_are_every_methods_that_does_not_say_otherwise(tmp_path: Path):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    learn: dict[str, Any] = flow.prepare(tmp_path / "tiny.toml", (), tmp_path / "run").recipe.learn
    expected = {"dtype": "bfloat16", "gradient_checkpointing": False}
    lora = {"rank": 4, "alpha": 32.0, "target_modules": "all-linear"}
    assert learn["sft"]["weights"] == learn["reward_model"]["weights"] == {**expected, "lora": lora}
    assert learn["dpo"]["weights"] == {"dtype": "float32", "gradient_checkpointing": False}
    assert "weights" not in learn["best_of_n"]


ARMS = """
name = "tiny"
[learn.sft]
[learn.dpo]
[study.arms.simulation]
[study.arms.people]
judge = "people"
[study.arms.adapters]
change.model.weights.lora.rank = 4
"""


def test_an_arm_s_weights_are_its_methods_as_the_same_words_in_the_recipe_are(tmp_path: Path):
    (tmp_path / "arms.toml").write_text(ARMS)
    (tmp_path / "same.toml").write_text(ARMS.partition("[study.arms.adapters]")[0])
    told = {}
    for file, run in (("arms.toml", "simulation-0"), ("arms.toml", "adapters-0"), ("same.toml", "simulation-0")):
        overrides = ["model.weights.lora.rank=4"] if file == "same.toml" else []
        plan = flow.prepare(tmp_path / file, overrides, tmp_path / "run").plan
        steps = {step.name: step for step in plan.steps}
        names = [plan.views[f"runs/{run}/4-learn/{method}"] for method in ("sft", "dpo")]
        told[file, run] = [(steps[name].settings["config"]["weights"].get("lora"), plan.keys[name]) for name in names]
    assert [lora for lora, _ in told["arms.toml", "simulation-0"]] == [None, None]
    assert [lora["rank"] for lora, _ in told["arms.toml", "adapters-0"]] == [4, 4]
    assert told["arms.toml", "adapters-0"] == told["same.toml", "simulation-0"]


def test_layers_that_are_computed_again_redo_no_step_but_the_page_that_shows_the_recipe(tmp_path: Path):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    keys, again = (
        flow.prepare(tmp_path / "tiny.toml", overrides, tmp_path / "run").plan.keys
        for overrides in ([], ["model.weights.gradient_checkpointing=true"])
    )
    assert {name for name in keys if keys[name] != again[name]} == {"7-report"}
