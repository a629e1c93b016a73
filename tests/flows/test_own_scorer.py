"""A scorer of the user's own, `examples/my_scorer.py`, in place of the reward model: in a recipe and on its own."""

import json
from pathlib import Path

import pytest

from pasture.core.errors import RecipeError
from pasture.core.files import read_records
from pasture.core.records import Completion, Instruction, Score
from pasture.flow import NoScreen, execute, prepare
from pasture.learn.own_scorer import OwnScorer
from tests.flows.tiny import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "my_scorer.py"

RECIPE = """
name = "own-scorer"
threads = 1
model.start = "meadow-untrained"
data = {sft = 24, preference = 16, unlabeled = 8, validation = 8, evaluation = 8}
sampling.max_new_tokens = 6
answering.max_new_tokens = 6
learn.sft = {epochs = 1, batch_size = 8}
learn.rloo = {scorer = "FILE", steps = 1, rollout_batch_size = 8, minibatch_size = 8, group_size = 2}
learn.best_of_n = {scorer = "FILE", n = 2}
evaluate.judges = ["pool"]
"""


def instruction(text: str) -> Instruction:
    return Instruction(id=text, instruction=text, source="test", split="test")


def answer(to: Instruction, text: str) -> Completion:
    return Completion(instruction_id=to.id, text=text, system="test", seed=0)


def test_the_example_scores_by_the_words_that_are_said_again() -> None:
    asked = instruction("name the red stone")
    answers = [answer(asked, text) for text in ("the red stone", "a bird", "NAME THE RED STONE")]
    # By hand: three of four words, none, all.
    assert OwnScorer(EXAMPLE)([asked] * 3, answers) == [0.75, 0.0, 1.0]


def test_a_recipe_with_it_needs_no_reward_model_and_no_labels(recipe: Path, tmp_path: Path, file: Path) -> None:
    run = prepare(recipe, out=tmp_path / "run", allow_code=True)
    names = {step.name for step in run.plan.steps}
    assert {"4-learn/rloo", "4-learn/best_of_n"} <= names
    assert not names & {"4-learn/reward_model", "3-annotate/preference", "2-generate/preference"}
    execute(run, NoScreen())
    asked = {one.id: one for one in read_records(tmp_path / "run" / "1-data" / "evaluation.jsonl", Instruction)}
    place = tmp_path / "run" / "4-learn" / "best_of_n"
    candidates = read_records(
        tmp_path / "run" / "2-generate" / "evaluation" / "best_of_n" / "completions.jsonl", Completion
    )
    scores = read_records(place / "scores.jsonl", Score)
    assert [one.value for one in scores] == OwnScorer(file)(
        [asked[one.instruction_id] for one in candidates], candidates
    )
    assert {one.scorer for one in scores} == {"mine"}
    card = json.loads((tmp_path / "run" / "4-learn" / "rloo" / "model" / "pasture.json").read_text())
    assert card["judge"] == str(file)
    assert prepare(recipe, out=tmp_path / "run", allow_code=True).pending() == []

    file.write_text(file.read_text() + "\n# Another thought.\n")
    changed = [step.name for step in prepare(recipe, out=tmp_path / "run", allow_code=True).pending()]
    assert {"4-learn/rloo", "4-learn/best_of_n"} <= set(changed)
    assert not {"4-learn/sft", "2-generate/evaluation/sft"} & set(changed)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["learn.rloo.scorer=reward"], r"\[learn.rloo\] scorer = 'reward': expected a Python file"),
        (["learn.rloo.scorer=gone.py"], "'gone.py' cannot be read"),
        (["learn.dpo.scorer=FILE"], r"\[learn.dpo\] learns from preferences and asks no scorer"),
        (["learn.ppo.scorer=FILE"], r"\[learn.ppo\] builds on \[learn.reward_model\]"),
        (["learn.online_dpo.scorer=FILE", "learn.online_dpo.judge=annotator"], "from judgements and asks no scorer"),
    ],
)
def test_one_that_cannot_score_is_told_before_any_step(
    recipe: Path, file: Path, overrides: list[str], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        prepare(recipe, [one.replace("FILE", str(file)) for one in overrides], allow_code=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("other = 1\n", "expected a function score.* and there is none"),
        ("def score(completions):\n    return []\n", "it cannot be called so"),
        ("1 / 0\n", "scorer .*mine.py': line 1 raised ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_scorer_is_told_before_any_step(recipe: Path, file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(RecipeError, match=said):
        prepare(recipe, allow_code=True)


def test_it_is_refused_unless_code_is_allowed(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"names the file .*mine.py.*Read it, then pass --allow-code"):
        prepare(recipe)
