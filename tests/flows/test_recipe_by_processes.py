"""A recipe whose trainings are shared by two processes: the same models, the same errors, nothing left after a kill."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pasture.core.errors import DataError, RecipeError, TrainingError
from pasture.flow import NoScreen, execute, prepare
from tests.flows.tiny import REPOSITORY
from tests.machine.events import expected, scalars

pytestmark = pytest.mark.timeout(900)

RECIPE = """
name = "shared"
threads = 1
model.start = "meadow-untrained"
data = {sft = 24, preference = 12, unlabeled = 8, validation = 8, evaluation = 6}
sampling.max_new_tokens = 6
answering.max_new_tokens = 6
learn.sft = {epochs = 4, batch_size = 8, checkpoint_steps = 1}
learn.dpo = {epochs = 1, batch_size = 8, max_tokens = 64}
feedback.annotator = "pool"
evaluate.judges = ["pool"]
"""
SFT, DPO = "4-learn/sft", "4-learn/dpo"


class Heard(NoScreen):
    """What was told of the progress of a step."""

    def __init__(self) -> None:
        self.said: dict[str, list[int]] = {}

    def advanced(self, step, done: int, total: int, **figures: float) -> None:
        self.said.setdefault(step.name, []).append(done)


def run(folder: Path, *overrides: str, workers: int = 1) -> Heard:
    folder.mkdir(exist_ok=True)
    recipe, screen = folder / "shared.toml", Heard()
    recipe.write_text(RECIPE)
    execute(prepare(recipe, overrides, out=folder / "run"), screen, workers=workers)
    return screen


def weights(folder: Path, step: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = load_file(folder / "run" / step / "model/model.safetensors")
    return found


@pytest.mark.parametrize("sharding", ["none", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_two_processes_make_the_models_of_one(tmp_path: Path, sharding: str) -> None:
    run(tmp_path / "one")
    heard = run(tmp_path / "two", "processes=2", f"sharding={sharding}", 'trackers=["tensorboard"]')
    one, two = (weights(tmp_path / name, SFT) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=1e-5, err_msg=name)
    assert max(heard.said[SFT]) == 12
    for step in (SFT, DPO):
        there = {path.name for path in (tmp_path / "one/run" / step).rglob("*")}
        assert {path.name for path in (tmp_path / "two/run" / step).rglob("*")} == there
        # Of the two processes one has told the tracker.
        shown = tmp_path / "two/run/trackers/tensorboard" / step
        rows = [json.loads(line) for line in (tmp_path / "two/run" / step / "metrics.jsonl").read_text().splitlines()]
        assert scalars(shown) == expected(rows)
        assert len(list(shown.iterdir())) == 1
    several = ["processes=2", f"sharding={sharding}"]
    for name, overrides in (("one", several), ("two", [])):  # who trained is no part of what was made
        assert prepare(tmp_path / name / "shared.toml", overrides, out=tmp_path / name / "run").pending() == []
        run(tmp_path / name, *overrides)


def test_an_error_in_a_process_is_told_as_it_would_be_by_one(tmp_path: Path) -> None:
    told = []
    for number, processes in enumerate((1, 2)):
        with pytest.raises(DataError) as raised:
            run(tmp_path / str(number), "learn.sft.max_tokens=3", f"processes={processes}")
        told.append(str(raised.value))
    assert told[0] == told[1]


def test_processes_that_end_without_a_word_are_an_error_with_their_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed for want of memory, say: here each leaves as soon as it begins."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('LOCAL_RANK'):\n    os.write(2, b'no memory left\\n'); os._exit(9)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{broken}:{REPOSITORY / 'src'}")
    with pytest.raises(TrainingError, match=r"learn\.sft: the processes .* ended before they were done\.") as raised:
        run(tmp_path / "run", "processes=2")
    *words, last = str(raised.value).splitlines()
    assert "no memory left" in words
    assert re.fullmatch("process [01] was the first to end, with code 9", last)


def test_what_does_not_go_together_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="trains with 2 processes, and 2 steps at once"):
        run(tmp_path / "a", "processes=2", workers=2)
    with pytest.raises(RecipeError, match="set processes too"):
        run(tmp_path / "b", "sharding=fsdp2")
    assert not (tmp_path / "a/run/steps").exists()
    assert not (tmp_path / "a/run/1-data").exists()


@pytest.mark.slow
def test_a_kill_ends_all_processes_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """Again and again, each time a little later, until a run lives to its end."""
    run(tmp_path / "undisturbed", "processes=2")
    (tmp_path / "killed").mkdir()
    recipe = tmp_path / "killed/shared.toml"
    recipe.write_text(RECIPE)
    command = [
        sys.executable,
        "-m",
        "pasture",
        "run",
        str(recipe),
        "processes=2",
        "--out",
        str(tmp_path / "killed/run"),
    ]
    kills = 0
    for seconds in (14, 17, 20, 23, 26):
        pasture = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            pasture.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            pasture.send_signal(signal.SIGKILL)
            pasture.wait()
            kills += 1
            wait_until_gone()
    assert kills
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    for step in (SFT, DPO):
        for name, value in weights(tmp_path / "undisturbed", step).items():
            np.testing.assert_allclose(weights(tmp_path / "killed", step)[name], value, atol=1e-6, err_msg=name)


def wait_until_gone() -> None:
    """For the processes that trained together; a test that finds them after a minute fails."""
    deadline = time.monotonic() + 60
    while left := [place for place in Path("/proc").glob("[0-9]*") if trains(place)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def trains(place: Path) -> bool:
    try:
        return b"pasture.steps.together" in (place / "cmdline").read_bytes()
    except OSError:
        return False
