"""A run folder keeps what was finished, through kills, other recipes and other processes."""

import hashlib
import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pasture.core.errors import RunFolderError
from pasture.core.files import atomic_file
from pasture.core.run_folder import RunFolder, differing_keys
from tests.crashes import survives_kill_at
from tests.disks import mounted

STEP = "2-generate/evaluation/sft"
RECIPE: Mapping[str, Any] = {"name": "r", "seed": 0, "data": {"sft": 10}, "learn": {"ppo": {"steps": 3}}}


def finish(folder: RunFolder, key: str, content: str, name: str = STEP) -> None:
    workspace = folder.workspace(name, key)
    (workspace / "rows.jsonl").write_text(content)
    (workspace / "model").mkdir(exist_ok=True)
    (workspace / "model" / "weights").write_text(content * 2)
    folder.publish(name, seconds=1.5, cost_usd=0.25, details={"rows": 1})


def contents(folder: RunFolder, name: str = STEP) -> str:
    return (folder.step_path(name) / "rows.jsonl").read_text()


def everything(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_a_finished_step_is_known_with_the_hash_of_each_file(folder: RunFolder) -> None:
    assert folder.finished(STEP) is None
    finish(folder, "key-1", "abc")
    step = folder.finished(STEP)
    assert step is not None
    assert (step.key, step.seconds, step.cost_usd, step.details) == ("key-1", 1.5, 0.25, {"rows": 1})
    assert step.files == {
        "rows.jsonl": hashlib.sha256(b"abc").hexdigest(),
        "model/weights": hashlib.sha256(b"abcabc").hexdigest(),
    }
    assert folder.is_finished(STEP, "key-1")
    assert not folder.is_finished(STEP, "key-2")
    assert not folder.is_finished("1-data", "key-1")


def test_a_step_in_work_is_not_there(folder: RunFolder) -> None:
    (folder.workspace(STEP, "key-1") / "rows.jsonl").write_text("half")
    assert folder.finished(STEP) is None
    assert not folder.step_path(STEP).exists()


def test_an_interrupted_try_goes_on_with_its_files_but_without_their_drafts(folder: RunFolder) -> None:
    workspace = folder.workspace(STEP, "key-1")
    (workspace / "steps").mkdir()
    (workspace / "steps" / "0010").write_text("checkpoint")

    def killed_while_writing() -> None:
        with atomic_file(workspace / "steps" / "0020") as draft:
            draft.write_text("half")
            (workspace / "never").unlink()  # the operation at which the kill comes

    for number in range(1, 4):
        survives_kill_at(number, killed_while_writing)
    assert any(path.name.endswith(".draft") for path in (workspace / "steps").iterdir())

    assert folder.workspace(STEP, "key-1") == workspace
    folder.publish(STEP, seconds=0, cost_usd=None, details={})
    step = folder.finished(STEP)
    assert step is not None
    assert list(step.files) == ["steps/0010"]
    assert [path.name for path in (folder.step_path(STEP) / "steps").iterdir()] == ["0010"]


def test_a_try_for_another_key_begins_anew(folder: RunFolder) -> None:
    (folder.workspace(STEP, "key-1") / "rows.jsonl").write_text("of key 1")
    assert not (folder.workspace(STEP, "key-2") / "rows.jsonl").exists()


def test_outputs_that_are_called_like_the_records_of_a_step_are_outputs_all_the_same(folder: RunFolder) -> None:
    inner = folder.workspace(STEP, "key-1") / "inner"
    inner.mkdir()
    (inner / "step.json").write_text("{}")
    (inner / ".key").write_text("x")
    folder.publish(STEP, seconds=0, cost_usd=None, details={})
    (folder.step_path(STEP) / "inner" / ".key").write_text("y")
    with pytest.raises(RunFolderError, match=r"inner/\.key is missing or was changed"):
        folder.finished(STEP)


def test_a_new_result_takes_the_place_of_the_old_one_whole(folder: RunFolder) -> None:
    workspace = folder.workspace(STEP, "key-1")
    (workspace / "only-in-old").write_text("x")
    finish(folder, "key-1", "old")
    finish(folder, "key-2", "new")
    assert contents(folder) == "new"
    assert not (folder.step_path(STEP) / "only-in-old").exists()
    assert not list(folder.path.rglob("*.partial"))
    assert not list(folder.path.glob(".discarded*"))


def test_a_kill_at_any_file_operation_of_a_step_leaves_nothing_to_mend_by_hand(tmp_path: Path) -> None:
    reference = RunFolder(tmp_path / "undisturbed")
    finish(reference, "key-2", "new")
    seen = set()
    for number in range(1, 500):
        folder = RunFolder(tmp_path / f"run-{number}")
        with folder.held():
            finish(folder, "key-1", "old")

        def again(folder: RunFolder = folder) -> None:
            with folder.held():
                finish(folder, "key-2", "new")

        done = survives_kill_at(number, again)
        step = folder.finished(STEP)  # raises where half a step lies under its name
        found = None if step is None else step.key
        assert found in ("key-1", "key-2", None)
        if found is not None:
            assert contents(folder) == {"key-1": "old", "key-2": "new"}[found]
        seen.add(found)
        if not folder.is_finished(STEP, "key-2"):
            again()
        with folder.held():
            pass  # any run that follows sweeps up
        assert everything(folder.path / "2-generate") == everything(reference.path / "2-generate")
        assert {path.name for path in folder.path.iterdir()} == {".lock", "2-generate"}
        if done:
            break
    assert seen == {"key-1", "key-2", None}
    assert number > 20


@pytest.mark.parametrize("damage", ["changed", "missing", "folder"])
@pytest.mark.parametrize("file", ["rows.jsonl", "model/weights"])
def test_an_output_that_is_not_as_it_was_is_named_and_not_built_upon(folder: RunFolder, damage: str, file: str) -> None:
    finish(folder, "key-1", "abc")
    path = folder.step_path(STEP) / file
    if damage == "changed":
        path.write_text(path.read_text().replace("a", "A"))
    else:
        path.unlink()
        if damage == "folder":
            path.mkdir()
    with pytest.raises(RunFolderError, match="is missing or was changed after its step finished") as caught:
        folder.is_finished(STEP, "key-1")
    assert str(path) in str(caught.value)
    assert f"remove {folder.step_path(STEP)} to redo the step" in str(caught.value)


def test_one_changed_byte_of_a_huge_file_of_records_is_noticed(folder: RunFolder) -> None:
    with (folder.workspace(STEP, "key-1") / "rows.jsonl").open("wb") as file:
        file.truncate(200 * 2**20)  # a sparse file: it takes no room on the disk
    folder.publish(STEP, seconds=1.0, cost_usd=None, details={})
    assert folder.is_finished(STEP, "key-1")
    path = folder.step_path(STEP) / "rows.jsonl"
    with path.open("r+b") as file:
        file.seek(71 * 2**20 + 5)
        file.write(b"2")
    with pytest.raises(RunFolderError, match="was changed after its step finished"):
        folder.is_finished(STEP, "key-1")


def test_a_huge_file_of_a_step_from_an_earlier_version_is_known_by_the_parts_that_it_read(folder: RunFolder) -> None:
    workspace = folder.workspace(STEP, "key-1")
    with (workspace / "rows.jsonl").open("wb") as file:
        file.truncate(65 * 2**20)
    folder.publish(STEP, seconds=1.0, cost_usd=None, details={})
    record = folder.step_path(STEP) / "step.json"
    row = json.loads(record.read_text())
    # By hand: the size, and 64 times a MiB of zeros.
    row["files"]["rows.jsonl"] = hashlib.sha256(f"{65 * 2**20};".encode() + bytes(64 * 2**20)).hexdigest()
    record.write_text(json.dumps(row))
    assert folder.is_finished(STEP, "key-1")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"key": "k"}', '{"key": "k", "files": 3, "seconds": 1, "cost_usd": 0, "details": {}}'],
)
def test_a_damaged_record_of_a_step_is_said_to_be_that(folder: RunFolder, text: str) -> None:
    finish(folder, "key-1", "abc")
    (folder.step_path(STEP) / "step.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"step\.json is damaged .* Remove .* to redo the step"):
        folder.finished(STEP)


def test_a_folder_that_no_step_made_is_never_deleted(folder: RunFolder) -> None:
    (folder.path / "1-data").mkdir(parents=True)
    (folder.path / "1-data" / "thesis.txt").write_text("three years of work")
    with pytest.raises(RunFolderError, match="1-data is in the way"):
        folder.workspace("1-data", "key-1")
    assert (folder.path / "1-data" / "thesis.txt").read_text() == "three years of work"


def test_the_resolved_recipe_is_written_and_claimed_again_by_its_equal(folder: RunFolder) -> None:
    folder.claim(RECIPE)
    written = (folder.path / "recipe.toml").read_text()
    assert tomllib.loads(written) == RECIPE
    folder.claim({**RECIPE, "data": {"sft": 10}})
    assert (folder.path / "recipe.toml").read_text() == written


def test_another_recipe_is_refused_with_the_keys_that_differ(folder: RunFolder) -> None:
    folder.claim(RECIPE)
    other = {**RECIPE, "seed": 1, "learn": {"ppo": {"steps": 4}, "sft": {}}, "data": {"sft": 10, "validation": 5}}
    with pytest.raises(RunFolderError) as caught:
        folder.claim(other)
    assert "different keys: data.validation, learn.ppo.steps, learn.sft, seed. " in str(caught.value)
    assert "--update" in str(caught.value)
    assert tomllib.loads((folder.path / "recipe.toml").read_text()) == RECIPE
    folder.claim(other, update=True)
    assert tomllib.loads((folder.path / "recipe.toml").read_text()) == other


def test_keys_on_which_no_step_depends_may_change_and_do_not_let_others_through(folder: RunFolder) -> None:
    folder.claim(RECIPE)
    watched = {**RECIPE, "trackers": ["tensorboard"]}
    folder.claim(watched, free=("trackers",))
    assert tomllib.loads((folder.path / "recipe.toml").read_text()) == watched
    with pytest.raises(RunFolderError, match="different keys: seed, trackers"):
        folder.claim({**RECIPE, "seed": 1}, free=("trackers",))
    with pytest.raises(RunFolderError, match="different keys: trackers"):
        folder.claim(RECIPE)


def test_a_star_frees_that_key_of_any_table_and_a_table_all_of_its_keys(folder: RunFolder) -> None:
    free = ("pools.*.max_usd", "cards")
    folder.claim({"pools": {"judge": {"max_usd": 5.0, "models": ["a"]}}, "cards": {"count": 1}})
    folder.claim({"pools": {"judge": {"max_usd": 9.0, "models": ["a"]}}, "cards": {"count": 8}}, free=free)
    with pytest.raises(RunFolderError, match=r"different keys: pools\.judge\.models\."):
        folder.claim({"pools": {"judge": {"max_usd": 9.0, "models": ["b"]}}, "cards": {"count": 8}}, free=free)


@pytest.mark.parametrize("damage", [b"name = ", b"\xff\xfe"])
def test_a_recipe_that_cannot_be_read_any_more_is_said_to_be_that(folder: RunFolder, damage: bytes) -> None:
    folder.claim(RECIPE)
    (folder.path / "recipe.toml").write_bytes(damage)
    with pytest.raises(RunFolderError, match=r"recipe\.toml cannot be read"):
        folder.claim(RECIPE)


def test_differing_keys_see_values_tables_and_absences() -> None:
    assert differing_keys({"a": {"b": 1, "c": {"d": 2}}, "e": 1}, {"a": {"b": 1, "c": {"d": 3}}, "f": 1}) == [
        "a.c.d",
        "e",
        "f",
    ]
    assert differing_keys({"a": {"b": 1}}, {"a": 1}) == ["a"]
    assert differing_keys({"a": [1, 2]}, {"a": [1, 2]}) == []


def test_the_manifest_holds_what_is_known_of_the_steps_of_this_plan(folder: RunFolder) -> None:
    finish(folder, "key-1", "abc")
    finish(folder, "of-an-older-recipe", "x", "1-data")
    folder.write_manifest({"seed": 7}, {STEP: "key-1", "1-data": "newer", "7-report": "not yet"})
    manifest = json.loads((folder.path / "manifest.json").read_text())
    assert manifest == {
        "seed": 7,
        "evaluation_set": {"looks": 0, "superseded": []},
        "steps": {
            STEP: {
                "key": "key-1",
                "seconds": 1.5,
                "cost_usd": 0.25,
                "details": {"rows": 1},
                "files": {
                    "model/weights": hashlib.sha256(b"abcabc").hexdigest(),
                    "rows.jsonl": hashlib.sha256(b"abc").hexdigest(),
                },
            }
        },
    }


HOLDER = """
import sys
from pathlib import Path
from pasture.core.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_kept_out_until_the_first_ends_even_by_a_kill(folder: RunFolder) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder.path)], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunFolderError, match="is in use by another pasture process"), folder.held():
            pytest.fail("two processes held one run folder")
        other.kill()
    with folder.held():
        pass


def test_holding_ends_with_an_error_of_the_work(folder: RunFolder) -> None:
    with pytest.raises(ZeroDivisionError), folder.held():
        raise ZeroDivisionError
    with folder.held():
        pass


def test_a_full_disk_amid_a_step_is_one_clear_error_and_the_step_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "64k") as disk:
        folder = RunFolder(disk.path / "run")
        finish(folder, "key-0", "abc", "1-data")
        (folder.workspace(STEP, "key-1") / "kept").write_text("a checkpoint")
        with pytest.raises(OSError, match="No space left"):
            (disk.path / "filler").write_bytes(b"x" * 2**20)
        for attempt in (
            lambda: folder.publish(STEP, seconds=0, cost_usd=0, details={}),
            lambda: folder.workspace("7-report", "key-9"),
            lambda: folder.claim(RECIPE),
            lambda: folder.write_manifest({}, {"1-data": "key-0"}),
        ):
            with pytest.raises(RunFolderError, match=r"cannot write .*: No space left on device"):
                attempt()
        assert folder.is_finished("1-data", "key-0")
        (disk.path / "filler").unlink()
        assert (folder.workspace(STEP, "key-1") / "kept").read_text() == "a checkpoint"
        folder.publish(STEP, seconds=0, cost_usd=0, details={})
        assert folder.is_finished(STEP, "key-1")


def test_a_read_only_folder_is_one_clear_error_and_can_still_be_read(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "256k") as disk:
        folder = RunFolder(disk.path / "run")
        finish(folder, "key-1", "abc")
        disk.remount("ro")
        for path in (folder.path, disk.path / "new"):
            with pytest.raises(RunFolderError, match=r"cannot write .*: Read-only file system"), RunFolder(path).held():
                pytest.fail("a folder that cannot be written was held")
        assert folder.is_finished(STEP, "key-1")


def test_a_view_is_a_link_to_the_finished_step_that_survives_a_move_of_the_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    finish(folder, "key-1", "abc", "steps/4-learn/sft-0123")
    folder.show({"runs/people-0/4-learn/sft": "steps/4-learn/sft-0123"}, {"steps/4-learn/sft-0123": "key-1"})
    link = folder.path / "runs/people-0/4-learn/sft"
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    folder.path.rename(tmp_path / "moved")
    assert (tmp_path / "moved/runs/people-0/4-learn/sft/rows.jsonl").read_text() == "abc"


def test_a_view_is_turned_to_another_step_when_a_setting_is_changed_and_back(folder: RunFolder) -> None:
    keys = {"steps/a": "key-a", "steps/b": "key-b"}
    for name, key in keys.items():
        finish(folder, key, name, name)
    for shown in ("steps/a", "steps/b", "steps/b", "steps/a"):
        folder.show({"runs/x/sft": shown}, keys)
        assert (folder.path / "runs/x/sft/rows.jsonl").read_text() == shown
    assert [path.name for path in (folder.path / "runs/x").iterdir()] == ["sft"]


def test_what_is_not_finished_with_its_key_is_not_shown(folder: RunFolder) -> None:
    finish(folder, "key-of-before", "old", "steps/a")
    folder.workspace("steps/b", "key-b")
    folder.show({"runs/x/a": "steps/a", "runs/x/b": "steps/b"}, {"steps/a": "key-a", "steps/b": "key-b"})
    assert not (folder.path / "runs").exists()


def test_a_view_takes_no_other_s_place(folder: RunFolder) -> None:
    finish(folder, "key-1", "abc", "steps/a")
    (folder.path / "runs" / "x" / "a").mkdir(parents=True)
    (folder.path / "runs" / "x" / "a" / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"cannot write .*runs/x/a"):
        folder.show({"runs/x/a": "steps/a"}, {"steps/a": "key-1"})
    assert (folder.path / "runs" / "x" / "a" / "mine.txt").read_text() == "mine"


def test_an_error_amid_a_step_is_not_one_of_the_run_folder(folder: RunFolder) -> None:
    folder.path.mkdir()
    with pytest.raises(ConnectionRefusedError), folder.step_held("key-1"):
        raise ConnectionRefusedError(111, "Connection refused")


STEP_HOLDER = """
import sys
from pathlib import Path
from pasture.core.run_folder import RunFolder

folder = RunFolder(Path(sys.argv[1]))
with folder.step_held("key-1"):
    print("held", flush=True)
    sys.stdin.readline()
    (folder.workspace("4-learn/sft", "key-1") / "rows.jsonl").write_text("by the first")
    folder.publish("4-learn/sft", seconds=1.0, cost_usd=0.0, details={})
"""


def test_a_step_that_another_process_works_at_is_waited_for_and_then_found_finished(folder: RunFolder) -> None:
    folder.path.mkdir()
    found: list[bool] = []

    def take_it() -> None:
        with folder.step_held("key-1"):
            found.append(folder.is_finished("4-learn/sft", "key-1"))

    command = [sys.executable, "-c", STEP_HOLDER, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with folder.step_held("another key"):  # other steps are not waited for
            second = threading.Thread(target=take_it)
            second.start()
        second.join(timeout=0.5)
        assert second.is_alive()
        assert found == []
        first.stdin.write("go on\n")
        first.stdin.flush()
        second.join()
        assert first.wait() == 0
    assert found == [True]


def test_a_step_whose_worker_was_killed_is_free_at_once(folder: RunFolder) -> None:
    folder.path.mkdir()
    command = [sys.executable, "-c", STEP_HOLDER, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        first.kill()
    with folder.step_held("key-1"):
        assert not folder.is_finished("4-learn/sft", "key-1")


def test_the_manifest_counts_looks_at_the_evaluation_set_and_forgets_none(folder: RunFolder) -> None:
    with folder.held():
        for key in ("key-1", "key-1", "key-2"):  # twice the same step, then one whose settings were changed
            folder.look(STEP, key)
            finish(folder, key, "abc")
        folder.write_manifest({}, {STEP: "key-2"})
    manifest = json.loads((folder.path / "manifest.json").read_text())
    assert manifest["evaluation_set"] == {"looks": 2, "superseded": [STEP]}
