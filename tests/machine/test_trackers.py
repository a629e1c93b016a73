"""Trackers are told what `metrics.jsonl` holds: each step once, through kills; and they never stop a training."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import TensorBoardTracker

from pasture.core.errors import DependencyError, RecipeError
from pasture.machine import trackers
from pasture.machine.meter import MetricsLog, telling
from pasture.machine.tracker_settings import Tracking, check_trackers, trackers_named
from pasture.machine.trackers import Kind, tracked
from tests.machine import fake_trackers
from tests.machine.events import expected, scalars

ROOT = Path(__file__).parents[2]
SECRET = "sk-very-secret-key"


def tracking(folder: Path, *names: str, training: str = "one") -> Tracking:
    settings = {"beta": 0.1, "weights": {"lora": None}, "where": f"http://key:{SECRET}@host"}
    return Tracking(trackers_named(names), folder / "trackers", "project", "4-learn/dpo", training, settings)


def figures(step: int, shift: float = 0.0) -> dict[str, float]:
    return {"loss": 1 / step + shift, "rewards/chosen": step * 0.3} | ({"prompts_shared": 1.0} if step == 1 else {})


def log(folder: Path, steps: range, *names: str, after: int = 0, shift: float = 0.0, training: str = "one") -> None:
    """Log `steps` of a training in `folder` that goes on after its checkpoint at step `after`."""
    with (
        tracked(tracking(folder, *names, training=training), folder / "step"),
        MetricsLog(folder / "step" / "metrics.jsonl", after_step=after) as metrics,
    ):
        for step in steps:
            metrics.write(step, **figures(step, shift))


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "step" / "metrics.jsonl").read_text().splitlines()]


def shown(folder: Path, **more: bool) -> dict[str, list[tuple[int, float]]]:
    return scalars(folder / "trackers" / "tensorboard" / "4-learn" / "dpo", **more)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> fake_trackers.Service:
    module = fake_trackers.wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return module


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> fake_trackers.Service:
    module = fake_trackers.trackio()
    monkeypatch.setitem(sys.modules, "trackio", module)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return module


@pytest.fixture(params=["wandb", "trackio"])
def service(request: pytest.FixtureRequest) -> fake_trackers.Service:
    module: fake_trackers.Service = request.getfixturevalue(request.param)
    return module


def test_tensorboard_reads_back_what_metrics_jsonl_holds(tmp_path: Path) -> None:
    log(tmp_path, range(1, 8), "tensorboard")
    assert len(rows(tmp_path)) == 7
    assert shown(tmp_path) == expected(rows(tmp_path))


def test_with_no_tracker_nothing_is_made(tmp_path: Path) -> None:
    log(tmp_path, range(1, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


KILLED = """
import os, signal, sys
from pathlib import Path
from pasture.machine.meter import MetricsLog
from pasture.machine.trackers import tracked
from tests.machine.test_trackers import figures, tracking

folder = Path(sys.argv[1])
with tracked(tracking(folder, "tensorboard"), folder / "step"):
    metrics = MetricsLog(folder / "step" / "metrics.jsonl")
    for step in range(1, 8):
        metrics.write(step, **figures(step, shift=5.0 if step > 4 else 0.0))
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""Seven steps, the last three with values of their own, and a kill; the last checkpoint is that of step 4."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -9
    assert len(rows(folder)) == 7
    return folder


def test_nothing_that_was_told_is_lost_in_a_kill(killed: Path) -> None:
    assert [step for step, _ in shown(killed)["loss"]] == [1, 2, 3, 4, 5, 6, 7]


@pytest.fixture(scope="module")
def resumed(killed: Path) -> Path:
    log(killed, range(5, 10), "tensorboard", after=4)
    return killed


def test_after_a_kill_every_step_is_shown_once_with_the_values_of_metrics_jsonl(resumed: Path) -> None:
    assert [step for step, _ in shown(resumed)["loss"]] == list(range(1, 10))
    assert shown(resumed) == expected(rows(resumed))


def test_what_the_killed_process_told_is_taken_back_and_not_rubbed_out(resumed: Path) -> None:
    # Steps 5 to 7 lie in the files twice: that no step is doubled is not for want of writing them.
    outdated = shown(resumed, takes_back=False)["loss"]
    assert [step for step, _ in outdated] == [1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9]


def test_a_tracker_that_takes_nothing_back_would_double_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The planted fault: TensorBoard's files begun again without a word on where.
    kinds = dict(trackers.KINDS)
    folder = str(tmp_path / "trackers" / "tensorboard")
    kinds["tensorboard"] = Kind(lambda start: TensorBoardTracker(start.place, folder), None)
    monkeypatch.setattr(trackers, "KINDS", kinds)
    log(tmp_path, range(1, 8), "tensorboard")
    log(tmp_path, range(5, 10), "tensorboard", after=4)
    assert [step for step, _ in shown(tmp_path)["loss"]] == [1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9]


def test_a_tracker_that_is_asked_for_later_is_told_what_came_before(tmp_path: Path) -> None:
    log(tmp_path, range(1, 7))
    log(tmp_path, range(5, 10), "tensorboard", after=4)
    assert shown(tmp_path) == expected(rows(tmp_path))


def test_a_training_begun_anew_before_its_first_checkpoint_is_shown_once(tmp_path: Path) -> None:
    log(tmp_path, range(1, 4), "tensorboard", shift=5.0)
    log(tmp_path, range(1, 6), "tensorboard")
    assert shown(tmp_path) == expected(rows(tmp_path))


def test_another_training_in_the_same_place_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    log(tmp_path, range(1, 9), "tensorboard", shift=5.0)
    log(tmp_path, range(1, 4), "tensorboard", training="another")
    assert shown(tmp_path) == expected(rows(tmp_path))


def test_each_log_of_a_training_is_a_run_of_its_own(tmp_path: Path) -> None:
    with tracked(tracking(tmp_path, "tensorboard"), tmp_path / "step"), MetricsLog(tmp_path / "step" / "m") as whole:
        for number in (1, 2):
            with MetricsLog(tmp_path / "step" / "rounds" / f"{number:02d}" / "m") as part:
                part.write(1, loss=float(number))
            whole.write(number, reward=0.5)
    folder = tmp_path / "trackers" / "tensorboard" / "4-learn" / "dpo"
    assert scalars(folder / "rounds" / "01") == {"loss": [(1, 1.0)]}
    assert scalars(folder / "rounds" / "02") == {"loss": [(1, 2.0)]}


def test_a_log_outside_of_the_training_s_folder_is_called_by_its_own(tmp_path: Path) -> None:
    with (
        tracked(tracking(tmp_path, "tensorboard"), tmp_path / "step"),
        MetricsLog(tmp_path / "elsewhere" / "m") as metrics,
    ):
        metrics.write(1, loss=0.5)
    assert scalars(tmp_path / "trackers" / "tensorboard" / "4-learn" / "dpo" / "elsewhere") == {"loss": [(1, 0.5)]}


def test_a_run_of_a_service_is_resumed_by_its_name_and_told_each_step_once(
    tmp_path: Path, service: fake_trackers.Service
) -> None:
    log(tmp_path, range(1, 8), service.__name__)
    log(tmp_path, range(5, 10), service.__name__, after=4)
    first, second = service.runs
    assert first.key == second.key
    assert second.settings["resume"] == "allow"
    assert first.settings["project"] == "project"
    assert [step for step, _ in second.rows] == list(range(1, 10))
    assert [{"step": step, **values} for step, values in second.rows] == rows(tmp_path)
    assert first.finished
    assert second.finished


def test_steps_that_a_service_has_lost_in_the_kill_are_told_again(
    tmp_path: Path, service: fake_trackers.Service
) -> None:
    log(tmp_path, range(1, 8), service.__name__)
    del service.runs[0].rows[3:]  # it was handed seven and kept three
    log(tmp_path, range(7, 10), service.__name__, after=6)
    assert [{"step": step, **values} for step, values in service.runs[1].rows] == rows(tmp_path)


def test_wandb_offline_is_told_all_again_and_keeps_that_alone(tmp_path: Path, wandb: fake_trackers.Service) -> None:
    wandb.offline = True
    log(tmp_path, range(1, 8), "wandb")
    log(tmp_path, range(5, 10), "wandb", after=4)
    first, second = wandb.runs
    assert first.key == second.key
    assert [{"step": step, **values} for step, values in second.rows] == rows(tmp_path)
    left = tmp_path / "trackers" / "wandb" / "wandb"
    assert [path.name for path in left.iterdir()] == [f"offline-run-1-{second.key}"]


def test_a_service_that_does_not_say_what_it_has_is_told_what_was_not_noted(
    tmp_path: Path, trackio: fake_trackers.Service
) -> None:
    trackio.says_its_step = False
    log(tmp_path, range(1, 8), "trackio")
    log(tmp_path, range(5, 10), "trackio", after=4)
    assert [step for step, _ in trackio.runs[1].rows] == list(range(1, 10))


def test_a_note_that_a_kill_cut_short_does_not_count(tmp_path: Path) -> None:
    log(tmp_path, range(1, 3), "tensorboard")
    told = tmp_path / "trackers" / "notes" / "tensorboard" / "4-learn" / "dpo" / "told"
    assert told.read_text() == "1\n2\n"
    told.write_text("1\n2\n3")
    notes = trackers.Notes(told.parent, "one")
    assert notes.last_step == 2
    notes.close()


def test_another_training_is_another_run_of_a_service(tmp_path: Path, service: fake_trackers.Service) -> None:
    log(tmp_path, range(1, 4), service.__name__)
    log(tmp_path, range(1, 3), service.__name__, training="another")
    assert [len(run.rows) for run in service.runs] == [3, 2]


def test_what_fails_amid_training_is_a_warning_and_what_it_missed_is_told_when_training_goes_on(
    tmp_path: Path, service: fake_trackers.Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.fails_from = 3
    with caplog.at_level(logging.WARNING):
        log(tmp_path, range(1, 7), service.__name__, "tensorboard")
    [warning] = [record.getMessage() for record in caplog.records]
    assert f"{service.__name__} failed while writing (ConnectionError: the service has gone away" in warning
    assert "Training goes on without it" in warning
    assert SECRET not in warning
    assert len(rows(tmp_path)) == 6
    assert shown(tmp_path) == expected(rows(tmp_path))
    service.fails_from = None
    log(tmp_path, range(7, 9), service.__name__, after=6)
    assert [{"step": step, **values} for step, values in service.runs[1].rows] == rows(tmp_path)


def test_what_fails_at_the_start_is_a_warning(
    tmp_path: Path, service: fake_trackers.Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**settings: Any) -> None:
        raise TimeoutError("no route to host")

    monkeypatch.setattr(service, "init", fail)
    log(tmp_path, range(1, 4), service.__name__)
    assert len(rows(tmp_path)) == 3
    assert "failed while starting (TimeoutError: no route to host)" in caplog.text


def test_an_interruption_is_not_taken_for_a_failure_of_the_tracker(
    tmp_path: Path, service: fake_trackers.Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(run: Any, values: Any, step: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake_trackers.Run, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        log(tmp_path, range(1, 4), service.__name__)


def test_no_key_is_in_what_is_written_or_shown(tmp_path: Path, service: fake_trackers.Service) -> None:
    log(tmp_path, range(1, 3), service.__name__, "tensorboard")
    assert SECRET not in repr(service.runs[0].settings)
    assert "[key]@host" in repr(service.runs[0].settings)  # the settings are there, without it
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_the_file_has_a_row_before_anybody_else_is_told(tmp_path: Path) -> None:
    seen: list[str] = []

    class Late:
        def write(self, step: int, figures: Any) -> None:
            seen.append((tmp_path / "m").read_text())

        def close(self) -> None:
            seen.append("closed")

    with telling(lambda path, kept: Late()), MetricsLog(tmp_path / "m") as metrics:
        metrics.write(1, loss=0.5)
    assert seen == ['{"step": 1, "loss": 0.5}\n', "closed"]


def test_of_several_processes_the_main_one_alone_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pasture.machine.meter.is_main", lambda: False)
    log(tmp_path, range(1, 4), "tensorboard")
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_is_not_installed_is_one_error_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "trackio" else object())
    check_trackers(("tensorboard",))
    with pytest.raises(DependencyError, match=r"pip install 'pasture\[trackio\]'"):
        check_trackers(("tensorboard", "trackio"))


def test_a_tracker_of_no_known_name_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"no tracker 'tensorbord'\. Trackers: tensorboard, trackio, wandb"):
        trackers_named(["tensorbord"])
    assert trackers_named(["wandb", "tensorboard", "wandb"]) == ("tensorboard", "wandb")


def test_wandb_without_a_login_is_an_error_unless_it_stays_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_trackers.wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check_trackers(("wandb",), {})
    module.logged_in = False
    check_trackers(("wandb",), {"WANDB_MODE": "offline"})
    with pytest.raises(RecipeError, match=r"no login \(No API key configured\.\) .*WANDB_MODE=offline"):
        check_trackers(("wandb",), {})
