"""A user's own method, `examples/my_method.py`: one line of a recipe adds it to the loop and to the study."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from pasture.core.errors import PastureError, RecipeError, RunFolderError, TrainingError
from pasture.core.records import Completion, Instruction
from pasture.core.templates import TEMPLATES
from pasture.flow import NoScreen, Run, execute, prepare
from pasture.learn.lookup import method_named
from pasture.learn.rollouts import Environment
from pasture.recipe import start_folder
from pasture.world import meadow
from tests.flows.tiny import LOOP, REPOSITORY

STUDY = LOOP.with_name("study.toml")
EXAMPLE = REPOSITORY / "examples" / "my_method.py"
OWN = f"learn.mine.method={EXAMPLE}"

RECIPE = """
name = "own"
threads = 1
model.start = "meadow-untrained"
data = {sft = 24, preference = 16, unlabeled = 8, validation = 8, evaluation = 8}
sampling.max_new_tokens = 6
answering.max_new_tokens = 6
learn.sft = {epochs = 1, batch_size = 8}
learn.reward_model = {epochs = 1, batch_size = 8}
learn.mine = {method = "FILE", epochs = 1, batch_size = 8, n = 2, margin = 0.0, max_new_tokens = 6}
evaluate.judges = ["pool"]
"""


def with_and_without(recipe: Path) -> tuple[Run, Run]:
    return prepare(recipe, [OWN], allow_code=True), prepare(recipe)


def test_one_line_adds_it_to_the_loop_and_every_other_step_stays_as_it_was() -> None:
    run, before = with_and_without(LOOP)
    added = {step.name for step in run.plan.steps} - {step.name for step in before.plan.steps}
    assert added == {"4-learn/mine", "2-generate/evaluation/mine", "3-annotate/evaluation/mine"}
    moved = {name for name, key in before.plan.keys.items() if run.plan.keys[name] != key}
    assert moved == {"5-evaluate/board", "7-report"}


def test_one_line_adds_it_to_the_study_once_for_each_kind_of_feedback() -> None:
    run, before = with_and_without(STUDY)
    trained = {place: step for place, step in run.plan.views.items() if place.endswith("4-learn/mine")}
    # By hand from the recipe: two of its four arms name the systems that they make.
    assert set(trained) == {"runs/simulation-0/4-learn/mine", "runs/people-0/4-learn/mine"}
    assert len(set(trained.values())) == 2
    moved = {place for place, step in before.plan.views.items() if run.plan.views[place] != step}
    assert moved == {
        f"runs/{arm}-0/5-evaluate/{board}" for arm in ("simulation", "people") for board in ("board", "live")
    }


def test_it_is_refused_unless_code_is_allowed(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[learn.mine\] names the file .*mine.py.*Read it, then pass --allow-code"):
        prepare(recipe)


def test_a_misspelled_setting_of_it_is_refused_as_any_other(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[learn.mine\] has no key 'margni'. Did you mean 'margin'"):
        prepare(recipe, ["learn.mine.margni=1"], allow_code=True)


def test_a_recipe_with_it_runs_and_a_change_of_the_file_reruns_its_branch_alone(
    recipe: Path, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    execute(prepare(recipe, out=out, allow_code=True), NoScreen())
    board = json.loads((out / "5-evaluate" / "board" / "leaderboard.json").read_text())["pool"]
    assert {row["win_rate"]["system"] for row in board["rows"]} == {"base", "sft", "mine"}
    assert prepare(recipe, out=out, allow_code=True).pending() == []

    file.write_text(file.read_text() + "\n# Another thought.\n")
    changed = prepare(recipe, out=out, allow_code=True)
    branch = ["4-learn/mine", "2-generate/evaluation/mine", "3-annotate/evaluation/mine"]
    assert [step.name for step in changed.pending()] == [*branch, "5-evaluate/board", "7-report"]
    with pytest.raises(RunFolderError, match=r"different keys: learn\.mine\.code\. .*pass --update"):
        execute(changed, NoScreen())


def nothing_left(file: Path, more: str = "") -> None:
    """A method that learns nothing and leaves nothing."""
    file.write_text(
        "from pydantic import BaseModel\n"
        "LEARNS_FROM = 'preferences'\n"
        "class Config(BaseModel):\n"
        "    rounds: int = 1\n"
        "def train(config, *, start, feedback, template, folder, seed, progress):\n"
        f"    {more or 'pass'}\n"
    )


def test_one_that_leaves_no_model_or_no_rounds_is_told_so(recipe: Path, file: Path, tmp_path: Path) -> None:
    recipe.write_text(re.sub(r"learn.mine = .*", f'learn.mine.method = "{file}"', recipe.read_text()))
    nothing_left(file)
    with pytest.raises(PastureError, match="its train left no model"):
        execute(prepare(recipe, out=tmp_path / "run", allow_code=True), NoScreen())
    nothing_left(file, "import shutil; shutil.copytree(start, folder / 'model', dirs_exist_ok=True)")
    several = prepare(recipe, ["learn.mine.rounds=2"], out=tmp_path / "run", allow_code=True)
    with pytest.raises(PastureError, match="saved no policy to pick from, as its setting 'rounds' promises"):
        execute(several, NoScreen(), update=True)


BREAKS = {
    "1 / 0": r"line 6 raised ZeroDivisionError: division by zero, while it trained\. All of it stands in ",
    "open('stopwords.txt')": r"line 6 raised FileNotFoundError: .*stopwords\.txt",
    "raise SystemExit(0)": r"line 6 raised SystemExit: 0",
    "progress(1)": r"line 6 raised TypeError: .*missing",
}


@pytest.mark.parametrize("more", BREAKS)
def test_what_it_raises_as_it_trains_is_told_with_its_line(recipe: Path, file: Path, tmp_path: Path, more: str) -> None:
    recipe.write_text(re.sub(r"learn.mine = .*", f'learn.mine.method = "{file}"', recipe.read_text()))
    nothing_left(file, more)
    with pytest.raises(TrainingError, match=BREAKS[more]) as raised:
        execute(prepare(recipe, out=tmp_path / "run", allow_code=True), NoScreen())
    place = re.search(r"stands in (\S+);", str(raised.value))
    assert place is not None
    assert f'{file}", line 6' in Path(place[1]).read_text()


def test_it_may_log_nothing_but_must_leave_its_tokenizer(recipe: Path, file: Path, tmp_path: Path) -> None:
    recipe.write_text(re.sub(r"learn.mine = .*", f'learn.mine.method = "{file}"', recipe.read_text()))
    copied = "import shutil; shutil.copytree(start, folder / 'model', dirs_exist_ok=True)"
    nothing_left(file, f"{copied}; [one.unlink() for one in (folder / 'model').glob('tokenizer*')]")
    with pytest.raises(PastureError, match="its train left a model without its tokenizer"):
        execute(prepare(recipe, out=tmp_path / "run", allow_code=True), NoScreen())
    nothing_left(file, copied)
    execute(prepare(recipe, out=tmp_path / "run", allow_code=True), NoScreen(), update=True)
    assert not (tmp_path / "run" / "4-learn" / "mine" / "metrics.jsonl").exists()


def test_a_method_that_is_none_and_a_name_that_is_taken_are_refused(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[learn\.mine\]: there is no method 'dppo'\. Did you mean 'ppo'\?"):
        prepare(recipe, ["learn.mine.method=dppo"], allow_code=True)
    with pytest.raises(RecipeError, match=r"\[learn\.other\]: .* needs a line that begins with method ="):
        prepare(recipe, ["learn.other.n=3"], allow_code=True)
    with pytest.raises(RecipeError, match="a system cannot be called 'demonstrations'"):
        prepare(recipe, ["learn.demonstrations.method=dpo"], allow_code=True)


class Counted:
    """Longer answers score higher; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, instructions: Sequence[Instruction], completions: Sequence[Completion]) -> list[float]:
        self.asked += 1
        return [float(len(one.text)) for one in completions]


class Killed(BaseException):
    """The end of a process, as far as a training can tell."""


def train(folder: Path, scorer: Counted, *, until: int | None = None) -> None:
    def progress(done: int, total: int, **figures: float) -> None:
        if done == until:
            raise Killed

    method = method_named(str(EXAMPLE))
    method.train(
        method.Config(epochs=2, batch_size=8, n=3, margin=1.0, max_new_tokens=12, checkpoint_steps=1),
        start=start_folder("meadow-base"),
        environment=Environment(meadow.instructions("unlabeled", 12, 0), TEMPLATES["plain"], scorer),
        folder=folder,
        seed=0,
        progress=progress,
    )


def test_it_goes_on_after_a_kill_to_the_same_weights_without_drawing_again(tmp_path: Path) -> None:
    scorer = Counted()
    train(tmp_path / "quiet", scorer)
    with pytest.raises(Killed):
        train(tmp_path / "killed", scorer, until=1)
    assert scorer.asked == 2
    train(tmp_path / "killed", scorer)
    assert scorer.asked == 2
    for name in ("kept.jsonl", "metrics.jsonl", "model/model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "quiet" / name).read_bytes()


def test_it_keeps_the_answers_that_beat_the_mean_of_the_others(tmp_path: Path) -> None:
    method = method_named(str(EXAMPLE))
    answers = [
        Completion(instruction_id=name, text=text, system="policy", seed=place)
        for place, (name, text) in enumerate([("a", "x"), ("a", "y"), ("a", "z"), ("b", "u"), ("b", ""), ("b", "v")])
    ]
    # By hand: a's answers beat the others' mean by 3 - 1, 0 - 2.5 and 2 - 1.5 = 0.5; b's by -3, 3 (but empty) and 0.
    scores = [3.0, 0.0, 2.0, 0.0, 4.0, 2.0]
    kept = method.better_than_others(answers, scores, method.Config(n=3, margin=0.4))
    assert [one.text for one in kept] == ["x", "z"]
    assert [one.text for one in method.better_than_others(answers, scores, method.Config(n=3, margin=0.6))] == ["x"]
