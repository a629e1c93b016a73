"""An annotator of the user's own, `examples/my_annotator.py`: it labels, picks and judges in a recipe and alone."""

import json
from pathlib import Path

import pytest

from pasture.annotate.own import AnnotatorFile, OwnAnnotator
from pasture.core.errors import RecipeError
from pasture.core.files import read_records
from pasture.core.records import Comparison, Preference
from pasture.flow import NoScreen, execute, prepare
from tests.flows.tiny import REPOSITORY, run

EXAMPLE = REPOSITORY / "examples" / "my_annotator.py"

RECIPE = """
name = "own-annotator"
threads = 1
seed = 5
model.start = "meadow-untrained"
data = {sft = 24, preference = 16, unlabeled = 8, validation = 8, evaluation = 8}
sampling.max_new_tokens = 6
answering.max_new_tokens = 6
annotators.listener.file = "FILE"
feedback.annotator = "listener"
selection.annotator = "listener"
evaluate.judges = ["people", "listener"]
learn.sft = {epochs = 1, batch_size = 8}
learn.dpo = {epochs = 1, batch_size = 8, save_every = 1}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "listener.py"
    place.write_text(EXAMPLE.read_text())
    return place


@pytest.fixture
def recipe(tmp_path: Path, file: Path) -> Path:
    place = tmp_path / "own.toml"
    place.write_text(RECIPE.replace("FILE", str(file)))
    return place


def test_it_labels_picks_and_judges_and_a_change_of_its_file_redoes_what_it_said(
    recipe: Path, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    execute(prepare(recipe, out=out, allow_code=True), NoScreen())
    pairs = read_records(out / "2-generate" / "preference" / "comparisons.jsonl", Comparison)
    labels = read_records(out / "3-annotate" / "preference" / "preferences.jsonl", Preference)
    assert labels == OwnAnnotator("listener", AnnotatorFile(file=str(file)), seed=5).annotate(pairs)
    assert (out / "3-annotate" / "evaluation" / "dpo" / "listener.jsonl").exists()
    board = (out / "5-evaluate" / "board" / "leaderboard.txt").read_text()
    assert "Leaderboard by listener" in board
    assert prepare(recipe, out=out, allow_code=True).pending() == []

    file.write_text(file.read_text().replace("SHARPNESS = 4.0", "SHARPNESS = 5.0"))
    pending = {step.name for step in prepare(recipe, out=out, allow_code=True).pending()}
    assert {"3-annotate/preference", "4-learn/dpo", "3-annotate/evaluation/dpo"} <= pending
    assert not {"4-learn/sft", "2-generate/preference"} & pending


def test_it_is_refused_unless_code_is_allowed(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[annotators.listener\] names the file .*Read it, then pass --allow-code"):
        prepare(recipe)


def test_one_that_cannot_be_asked_is_told_before_any_step(recipe: Path, file: Path) -> None:
    file.write_text("def choose(comparisons, seed):\n    return []\n")
    with pytest.raises(RecipeError, match="expected a function prefer"):
        prepare(recipe, allow_code=True)


def test_a_name_is_given_once(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"two of \[pools\], \[campaigns\] and \[annotators\] name 'listener'"):
        prepare(recipe, ["pools.listener.pool=greedy"], allow_code=True)


def test_the_command_takes_it_where_code_is_allowed(tmp_path: Path) -> None:
    for name, text in (("good", "the red stone"), ("bad", "a bird")):
        rows = [{"instruction": f"name the red stone {n}", "output": text, "generator": name} for n in range(9)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    command = ["evaluate", str(tmp_path / "good.json"), "-r", str(tmp_path / "bad.json"), "--judge", str(EXAMPLE)]
    refused = run(*command)
    assert refused.returncode == 2
    assert "Read it, then pass --judge allow_code=true" in " ".join(refused.stderr.split())
    done = run(*command, "--judge", "allow_code=true")
    assert done.returncode == 0, done.stderr
    assert "my_annotator" in done.stdout
