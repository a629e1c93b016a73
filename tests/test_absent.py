"""A recipe is planned before its model and its data are here, and is not run."""

from pathlib import Path

import pytest

from pasture import flow
from pasture.core.errors import DataError, ModelError, PastureError

RECIPE = """
name = "tiny"
[learn.sft]
[learn.reward_model]
[learn.ppo]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return tmp_path / "tiny.toml"


def previewed(recipe: Path, *overrides: str) -> tuple[set[str], list[tuple[str, str, str]]]:
    run, absent = flow.preview(recipe, overrides, recipe.parent / "run")
    return set(run.plan.keys), [(one.key, one.name, type(one.error).__name__) for one in absent]


def test_the_plan_without_the_model_has_the_steps_of_the_plan_with_it(recipe: Path):
    with_it, nothing = previewed(recipe)
    without, absent = previewed(recipe, "model.start=models/none")
    assert nothing == []
    assert without == with_it
    assert absent == [("model.start", "models/none", "ModelError")]


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors"])
def test_half_a_model_is_none(recipe: Path, tmp_path: Path, lacking: str):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in {"config.json", "model.safetensors"} - {lacking}:
        (folder / name).touch()
    assert previewed(recipe, f"model.start={folder}")[1] == [("model.start", str(folder), "ModelError")]
    with pytest.raises(ModelError, match=r"holds no .*, so it is not a whole model"):
        flow.prepare(recipe, [f"model.start={folder}"])


def test_files_that_are_not_here_and_what_the_hub_has_are_told_apart(recipe: Path):
    _, absent = previewed(
        recipe, "data.source=none.json", "data.evaluation_source=hub:org/name/a.json", "feedback.file=gone.jsonl"
    )
    assert absent == [
        ("data.source", "none.json", "DataError"),
        ("data.evaluation_source", "hub:org/name/a.json", "NoneType"),
        ("feedback.file", "gone.jsonl", "DataError"),
    ]


def test_a_judge_on_this_machine_whose_model_is_not_here_is_named_where_it_is_asked(recipe: Path):
    pool = 'pools.judge={pool="greedy", engine="local", models=["models/none"]}'
    assert previewed(recipe, pool)[1] == []  # described, and asked nothing
    asked = previewed(recipe, pool, 'evaluate.judges=["judge"]')
    assert asked[1] == [("pools.judge", "models/none", "ModelError")]


@pytest.mark.parametrize(
    ("overrides", "kind", "said"),
    [
        (("model.start=models/none",), ModelError, r"model\.start: 'models/none' is no folder"),
        (("data.source=none.json",), DataError, r"none\.json: no such file"),
        (("feedback.file=gone.jsonl",), DataError, r"gone\.jsonl: no such file"),
        (
            ('pools.judge={pool="greedy", engine="local", models=["models/none"]}', 'evaluate.judges=["judge"]'),
            ModelError,
            "models/none: no such folder",
        ),
    ],
)
def test_a_run_does_not_begin_without_what_it_needs(
    recipe: Path, overrides: tuple[str, ...], kind: type[PastureError], said: str
):
    with pytest.raises(kind, match=said):
        flow.prepare(recipe, overrides, recipe.parent / "run")
    assert not (recipe.parent / "run").exists()


def test_what_comes_from_the_hub_keeps_no_run_from_beginning(recipe: Path):
    run = flow.prepare(recipe, ["data.source=hub:org/name"], recipe.parent / "run")
    assert run.pending()


def test_a_study_names_what_each_of_its_arms_lacks_once(recipe: Path):
    study = """
[study.arms.simulation]
[study.arms.people]
change.feedback.file = "theirs.jsonl"
"""
    recipe.write_text(RECIPE + study)
    _, absent = previewed(recipe, "model.start=models/none", "study.seeds=[0,1]")
    assert [(key, name) for key, name, _ in absent] == [
        ("model.start", "models/none"),
        ("feedback.file", "theirs.jsonl"),
    ]
    with pytest.raises(ModelError, match="is no folder"):
        flow.prepare(recipe, ["model.start=models/none"])


def test_what_a_plan_reckons_with_changes_no_result(recipe: Path):
    keys = flow.prepare(recipe, ["model.start=meadow-base"]).plan.keys
    rates = "{training_operations_per_second=1e14, drawing_operations_per_second=1e13, usd_per_hour=1.0}"
    reckoned = flow.prepare(recipe, ["model.parameter_count=1e9", f"cards={rates}"]).plan.keys
    assert reckoned == keys


def test_steps_of_a_model_that_is_not_here_are_told_from_those_of_one_that_is(recipe: Path, tmp_path: Path):
    folder = tmp_path / "model"
    before, _ = flow.preview(recipe, [f"model.start={folder}"])
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    after, _ = flow.preview(recipe, [f"model.start={folder}"])
    assert before.plan.keys["4-learn/sft"] != after.plan.keys["4-learn/sft"]
