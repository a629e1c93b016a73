"""What a user can put right is one message and exit code 2, and what was finished stays finished."""

import errno
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pasture import flow
from pasture.core.errors import RunFolderError
from pasture.plan import Step
from pasture.steps.together import Several
from tests.disks import mounted
from tests.flows.tiny import LOOP, run

RECIPE = """
name = "untaught"
threads = 1
model.start = "meadow-untrained"
data = {sft = 8, preference = 8, unlabeled = 8, validation = 8, evaluation = 8}
answering.max_new_tokens = 4
evaluate.judges = ["pool"]
"""
"""A model that was taught nothing, compared with the demonstrations: a few seconds."""

STEPS = (
    *("1-data", "4-learn/start", "2-generate/evaluation/base", "3-annotate/evaluation/base"),
    *("5-evaluate/board", "7-report"),
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "untaught.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def finished_once(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    done = run("run", str(recipe), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """A run folder with every step done, for this test alone."""
    shutil.copytree(finished_once, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_times(files: dict[str, bytes]) -> dict[str, bytes]:
    """What is left without the files that hold times and costs."""
    times = ("step.json", "manifest.json", "index.html")
    return {name: content for name, content in files.items() if not name.endswith(times)}


def assert_refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """One message that holds all of `said`, exit code 2, and no trace of the inside."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    message = " ".join(done.stderr.split())
    assert message.count("Error: ") == 1
    for part in said:
        assert part in message


def test_a_finished_run_is_skipped_step_by_step(recipe: Path, finished: Path) -> None:
    before = contents(finished)
    done = run("run", str(recipe), "--out", str(finished))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done before") == len(STEPS)
    assert contents(finished) == before


def test_a_broken_line_is_named_with_its_file_and_number(recipe: Path, finished: Path) -> None:
    path = finished / "1-data" / "evaluation.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:20] + "\n" + "".join(lines[5:]))
    done = run("run", str(recipe), "--out", str(finished))
    assert_refused(done, "RunFolderError: ", f"{path} is missing or was changed after its step finished", "Put it back")

    # Written down as if the step had left it so: then the next step to read it says what is wrong with it.
    record = finished / "1-data" / "step.json"
    row = json.loads(record.read_text())
    row["files"]["evaluation.jsonl"] = hashlib.sha256(path.read_bytes()).hexdigest()
    record.write_text(json.dumps(row))
    shutil.rmtree(finished / "2-generate")
    before = contents(finished)
    done = run("run", str(recipe), "--out", str(finished))
    assert_refused(done, "RecordError: ", f"{path}:5: Instruction, the line: Invalid JSON: EOF while parsing a string")
    after = contents(finished)
    assert {name: content for name, content in after.items() if ".partial/" not in name} == before


def test_a_missing_result_is_named_and_its_step_can_be_redone(recipe: Path, finished: Path) -> None:
    before = contents(finished)
    path = finished / "3-annotate" / "evaluation" / "base" / "pool.jsonl"
    path.unlink()
    done = run("run", str(recipe), "--out", str(finished))
    assert_refused(done, f"{path} is missing or was changed", f"remove {path.parent} to redo the step")
    shutil.rmtree(path.parent)
    done = run("run", str(recipe), "--out", str(finished))
    assert done.returncode == 0, done.stderr
    assert without_times(contents(finished)) == without_times(before)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    done = run("run", str(tmp_path / "none.toml"), "--out", str(tmp_path / "run"))
    assert_refused(done, "RecipeError: ", f"{tmp_path / 'none.toml'}: no such file")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.evaluatoin=9", "[data] has no key 'evaluatoin'. Did you mean 'evaluation'?"),
        ("seeed=9", "the recipe has no key 'seeed'. Did you mean 'seed'?"),
        ("learn.sft.epoch=9", "[learn.sft] has no key 'epoch'. Did you mean 'epochs'?"),
        ("learn.pppo.steps=9", "Did you mean 'ppo'?"),
        ("data.evaluation=lots", "data.evaluation: Input should be a valid integer, got 'lots'"),
        ("model.start=/no/such/model", "model.start: '/no/such/model' is no folder. Expected 'meadow-base'"),
    ],
)
def test_a_recipe_that_does_not_hold_is_refused_before_anything_is_written(
    tmp_path: Path, override: str, said: str
) -> None:
    done = run("run", str(LOOP), override, "--out", str(tmp_path / "run"))
    assert_refused(done, said)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_no_model_is_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    done = run("run", str(recipe), f"model.start={tmp_path / 'model'}", "--out", str(tmp_path / "run"))
    assert_refused(done, "ModelError: ", str(tmp_path / "model"))


def test_a_folder_of_another_recipe_is_refused_with_the_keys_that_differ(recipe: Path, finished: Path) -> None:
    before = contents(finished)
    done = run("run", str(recipe), "data.evaluation=9", "seed=4", "--out", str(finished))
    assert_refused(
        done, f"{finished} was begun with another recipe; different keys: data.evaluation, seed.", "--update"
    )
    assert contents(finished) == before


def test_a_full_disk_is_one_message(recipe: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "12k") as disk:
        done = run("run", str(recipe), "--out", str(disk.path / "run"))
        assert_refused(done, "RunFolderError: cannot write", "jsonl: No space left on device. Finished steps are safe")


def test_a_disk_that_fills_amid_a_model_loses_nothing_and_the_run_goes_on_when_there_is_room(
    recipe: Path, finished_once: Path, tmp_path: Path
) -> None:
    with mounted(tmp_path / "disk", "1m") as disk:
        out = disk.path / "run"
        done = run("run", str(recipe), "--out", str(out))
        assert_refused(done, "RunFolderError: cannot write", "4-learn/start.partial", "No space left on device")
        disk.remount("size=64m")
        done = run("run", str(recipe), "--out", str(out))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("done before") == 1
        assert without_times(contents(out)) == without_times(contents(finished_once))


def test_a_read_only_folder_is_one_message(recipe: Path, finished_once: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "64m") as disk:
        out = disk.path / "run"
        shutil.copytree(finished_once, out)
        shutil.rmtree(out / "7-report")
        before = contents(out)
        disk.remount("ro")
        for folder in (out, disk.path / "new"):
            done = run("run", str(recipe), "--out", str(folder))
            assert_refused(done, f"RunFolderError: cannot write {folder}", "Read-only file system")
        assert contents(out) == before
        assert run("plan", str(recipe), "--out", str(out)).returncode == 0  # planning writes nothing


def test_what_errors_say_moves_no_cursor(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[2J.toml"
    done = run("run", str(path), "--out", str(tmp_path / "run"))
    assert_refused(done, "␛[2J.toml: no such file")
    assert "\x1b" not in done.stderr


def test_a_narrow_terminal_breaks_no_path_in_a_message(recipe: Path, finished: Path) -> None:
    (finished / "1-data" / "sft.jsonl").unlink()
    done = run("run", str(recipe), "--out", str(finished), columns=40)
    assert str(finished / "1-data" / "sft.jsonl") in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/elsewhere/input.jsonl"),
        PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input.jsonl"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    ],
)
def test_an_error_of_a_step_that_is_none_of_writing_comes_out_as_it_is(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(type(error)) as caught:
        _do_a_step_that_raises(error, tmp_path, monkeypatch)
    assert caught.value is error


def test_a_step_that_may_not_write_or_finds_no_room_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = str(tmp_path / "5-evaluate.partial" / "board.json")
    for error in (OSError(errno.ENOSPC, "No space left"), PermissionError(errno.EACCES, "Permission denied", own)):
        with pytest.raises(RunFolderError, match=rf"cannot write {tmp_path}/5-evaluate\.partial.*: {error.strerror}"):
            _do_a_step_that_raises(error, tmp_path, monkeypatch)


def _do_a_step_that_raises(error: OSError, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object) -> None:
        raise error

    monkeypatch.setattr(flow, "_work", work)
    step = Step("5-evaluate", "evaluate.board", {})
    flow.do_step(flow.Order(folder, step, "key", None, Several(1)), lambda *_, **__: None)
