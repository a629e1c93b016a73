"""`--track`: asked for on the command line, killed and gone on with; what cannot track says so before any step."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pasture.core.errors import DependencyError, RecipeError
from pasture.flow import Run
from tests.cli.test_train import QUICK, call, demonstrations
from tests.flows.tiny import LOOP
from tests.learn import toy
from tests.learn.test_several_processes import launch
from tests.machine.events import expected, scalars

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(toy.save_base(tmp_path_factory.mktemp("base") / "model"))


@pytest.fixture
def command(base: Path, tmp_path: Path) -> list[str]:
    data = ["--start", str(base), "--demonstrations", str(demonstrations(tmp_path)), "--template", "plain"]
    return ["train", "sft", *QUICK, "epochs=4", "checkpoint_steps=3", *data]


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


KILLED = """
import os, signal, sys
from pasture.cli import main
from pasture.learn import resume, sft

resume._LOGS_HELD_BACK = 1  # so that the tracker is told what comes after the last checkpoint
steps = []
take_step = sft.take_step

def killing(*arguments, **more):
    steps.append(1)
    if len(steps) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return take_step(*arguments, **more)

sft.take_step = killing
main()
"""
"""The command line of Pasture, killed amid the sixth step: five rows are told, and the checkpoint is of step 3."""


def test_a_training_that_is_killed_goes_on_in_the_same_tracker_and_no_step_is_shown_twice(
    command: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    tracked = [*command, "--track", "tensorboard", "-o", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED, *tracked], cwd=ROOT, env=environment, check=False)
    assert killed.returncode == -9
    folder = out / "trackers" / "tensorboard" / "sft"
    assert [step for step, _ in scalars(folder)["loss"]] == [1, 2, 3, 4, 5]
    call(*tracked)
    assert [row["step"] for row in rows(out)] == list(range(1, 9))
    assert scalars(folder) == expected(rows(out))
    assert len(scalars(folder, takes_back=False)["loss"]) == 8 + 2  # 4 and 5 were told twice, and once taken back


def test_a_tracker_changes_nothing_in_what_a_training_leaves(command: list[str], tmp_path: Path) -> None:
    call(*command, "-o", tmp_path / "plain")
    call(*command, "-o", tmp_path / "tracked", "--track", "tensorboard")
    files = {
        name: {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file() and "trackers" not in path.parts
        }
        for name in ("plain", "tracked")
    }
    assert files["plain"] == files["tracked"]
    assert "metrics.jsonl" in files["plain"]


def test_what_cannot_track_is_an_error_before_any_step(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="no tracker 'aim'"):
        call(*command, "-o", tmp_path / "out", "--track", "aim")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"tracking with wandb needs.*pip install 'pasture\[wandb\]'"):
        call(*command, "-o", tmp_path / "out", "--track", "wandb")
    assert not (tmp_path / "out").exists()


def test_a_run_is_tracked_as_its_recipe_would_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def execute(run: Run, *arguments: Any, **more: Any) -> None:
        seen.append(run.recipe.trackers)
        raise RecipeError("that is enough")

    monkeypatch.setattr("pasture.flow.execute", execute)
    with pytest.raises(RecipeError, match="enough"):
        call("run", LOOP, "--track", "wandb", "--track", "tensorboard", "-o", tmp_path / "run")
    assert seen == [("tensorboard", "wandb")]


@pytest.mark.slow
def test_of_two_processes_one_tracks(command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    tracked = [*command, "device=cpu", "--track", "tensorboard", "-o", str(out), "--processes", "2"]
    done = launch("pasture", *tracked)
    assert done.returncode == 0, done.stderr
    assert len(list((out / "trackers").rglob("events.out.*"))) == 1
    assert scalars(out / "trackers" / "tensorboard" / "sft") == expected(rows(out))
