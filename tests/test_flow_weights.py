"""What is trained of the model is said once for all methods, and a method may say otherwise."""

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
