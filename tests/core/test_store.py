"""The answer store: committed before it is handed out, shared by processes, honest about damage."""

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pasture.core import store as store_module
from pasture.core.errors import StoreError
from pasture.core.store import Answer, AnswerStore, salvage


@pytest.fixture(autouse=True)
def _small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RESERVE_BYTES", 2**18)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnswerStore]:
    with AnswerStore(tmp_path / "answers.sqlite") as opened:
        yield opened


def test_an_answer_is_claimed_put_and_found_again(store: AnswerStore) -> None:
    assert store.get("k") is None
    assert store.claim("k").result() == "claimed"
    assert store.claim("k").result() == "taken"
    assert store.put("k", "question", "answer").result() == Answer("answer", failed=False)
    assert store.claim("k").result() == Answer("answer", failed=False)


def test_an_answer_is_committed_before_it_is_handed_out(store: AnswerStore) -> None:
    store.put("k", "q", "a").result()
    # Another connection, as another program would open it, sees only what was committed.
    with contextlib.closing(sqlite3.connect(store.path)) as other:
        assert other.execute("SELECT asked, answer FROM answers").fetchall() == [("q", "a")]


def test_answers_that_gather_are_committed_together(store: AnswerStore) -> None:
    commits = []
    store._database.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")  # the thread waits for this, the puts gather behind it
    waiting = [store.put(str(number), "q", "a") for number in range(200)]
    holder.execute("COMMIT")
    holder.close()
    for future in waiting:
        future.result()
    assert len(commits) <= 3


def test_a_released_claim_is_free_again(store: AnswerStore) -> None:
    store.claim("k").result()
    store.release("k").result()
    assert store.claim("k").result() == "claimed"
    store.release("k").result()


def test_a_claim_that_was_cancelled_claims_nothing_and_the_store_goes_on(store: AnswerStore) -> None:
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")  # the thread waits for this, the claim waits behind the put
        put = store.put("k", "q", "a")
        _until(store._jobs.empty)
        claim = store.claim("other")
        assert claim.cancel()
        holder.execute("COMMIT")
    assert put.result() == Answer("a", failed=False)
    assert store.claim("other").result(timeout=30) == "claimed"
    store.release("other").result()


@pytest.mark.parametrize("end", ["put", "release"])
def test_a_claim_ends_even_if_nobody_waits_for_its_end(store: AnswerStore, end: str) -> None:
    store.claim("k").result()
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        store.put("first", "q", "a")
        _until(store._jobs.empty)
        assert (store.put("k", "q", "paid for") if end == "put" else store.release("k")).cancel()
        holder.execute("COMMIT")
    store.get("another")  # answered behind the end of the claim
    kept = Answer("paid for", failed=False) if end == "put" else "claimed"
    assert store.claim("k").result(timeout=30) == kept
    store.release("k").result()


def _until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.001)


def test_a_failure_is_an_answer_until_a_retry_is_asked_for(store: AnswerStore) -> None:
    store.put("k", "q", "broken", failed=True).result()
    assert store.claim("k").result() == Answer("broken", failed=True)
    assert store.claim("k", retry_failed=True).result() == "claimed"
    assert store.put("k", "q", "good").result() == Answer("good", failed=False)
    assert store.claim("k", retry_failed=True).result() == Answer("good", failed=False)
    # Nothing was overwritten.
    assert [answer.failed for _, _, answer in store.rows()] == [True, False]


def test_the_first_answer_stands_when_two_were_paid_for(store: AnswerStore) -> None:
    store.put("k", "q", "first").result()
    assert store.put("k", "q", "second").result() == Answer("first", failed=False)


def test_many_keys_are_looked_up_together_each_with_the_answer_it_has_alone(
    store: AnswerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "KEYS_A_LOOK", 4)
    written = {
        "answered": [("first", False), ("second", False)],
        "mended": [("broken", True), ("good", False), ("broken again", True)],
        "failed": [("once", True), ("twice", True)],
        **{str(number): [(f"answer {number}", False)] for number in range(10)},
    }
    for key, rows in written.items():
        for text, failed in rows:
            store.put(key, "q", text, failed=failed).result()
    expected = {
        "answered": Answer("first", failed=False),
        "mended": Answer("good", failed=False),
        "failed": Answer("twice", failed=True),
        **{str(number): Answer(f"answer {number}", failed=False) for number in range(10)},
    }
    assert store.find([*written, "no such key", "answered"]) == expected
    assert store.find([]) == {}
    assert {key: store.get(key) for key in written} == expected


def test_two_stores_on_one_file_exclude_each_other(store: AnswerStore) -> None:
    with AnswerStore(store.path) as other:
        assert store.claim("k").result() == "claimed"
        assert other.claim("k").result() == "taken"
        store.put("k", "q", "a").result()
        assert other.claim("k").result() == Answer("a", failed=False)


CLAIM_AND_HANG = """
import sys, time
from pathlib import Path
from pasture.core import store
store.RESERVE_BYTES = 2**18
opened = store.AnswerStore(Path(sys.argv[1]))
print(opened.claim("k").result(), flush=True)
time.sleep(60)
"""


def test_the_claim_of_a_killed_process_ends_with_it(store: AnswerStore) -> None:
    other = subprocess.Popen([sys.executable, "-c", CLAIM_AND_HANG, str(store.path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    with other.stdout:
        assert other.stdout.readline().strip() == "claimed"
        assert store.claim("k").result() == "taken"
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert store.claim("k").result() == "claimed"
    store.release("k").result()


def test_closing_waits_for_the_answers_to_claims_given(tmp_path: Path) -> None:
    opened = AnswerStore(tmp_path / "s.sqlite")
    opened.claim("k").result()
    closing = threading.Thread(target=opened.close)
    closing.start()
    while not opened._closing:
        time.sleep(0.001)
    with pytest.raises(StoreError, match="closed"):
        opened.claim("other")
    opened.put("k", "q", "late but paid for").result()
    closing.join(10)
    assert not closing.is_alive()
    with AnswerStore(tmp_path / "s.sqlite") as again:
        assert again.get("k") == Answer("late but paid for", failed=False)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.write_text("hello " * 1000)
    with pytest.raises(StoreError, match=r"damaged \(file is not a database\)"):
        AnswerStore(path)
    with contextlib.closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match="something else"):
        AnswerStore(tmp_path / "other.sqlite")


def test_a_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    AnswerStore(tmp_path / "s.sqlite").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "s.sqlite")) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match="version 99"):
        AnswerStore(tmp_path / "s.sqlite")


def filled(path: Path, count: int = 400) -> None:
    with AnswerStore(path) as store:
        for future in [store.put(f"key {n}", f"question {n}", f"answer {n} " * 50) for n in range(count)]:
            future.result()


def test_a_torn_store_is_told_and_its_readable_rows_are_saved(tmp_path: Path) -> None:
    torn = tmp_path / "torn.sqlite"
    filled(torn)
    size = torn.stat().st_size
    with torn.open("r+b") as file:  # a torn write: a run of pages in the middle is zero
        file.seek(size // 2 // 4096 * 4096)
        file.write(bytes(4 * 4096))
    with AnswerStore(torn) as damaged, pytest.raises(StoreError, match=r"damaged.*salvage"):
        [damaged.get(f"key {number}") for number in range(400)]
    with AnswerStore(tmp_path / "new.sqlite") as target:
        saved, lost = salvage(torn, target)
        kept = {key: answer.text for key, _, answer in target.rows()}
    assert saved + lost == 400
    assert 0 < lost < 200
    assert kept == {key: f"answer {key.split()[1]} " * 50 for key in kept}
    assert len(kept) == saved


def test_an_answer_that_changed_on_disk_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    filled(path, 3)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE answers SET answer = 'second' WHERE key = 'key 1'")
    with AnswerStore(path) as store:
        assert store.get("key 0") is not None
        with pytest.raises(StoreError, match="not what was written"):
            store.get("key 1")


def test_a_backup_is_a_whole_store(store: AnswerStore, tmp_path: Path) -> None:
    store.put("k", "q", "a").result()
    store.backup(tmp_path / "copy.sqlite")
    with AnswerStore(tmp_path / "copy.sqlite") as copy:
        assert copy.get("k") == Answer("a", failed=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_keeps_the_answers_in_flight_and_gives_out_no_more_claims(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "RESERVE_BYTES", 2**20)
    store = AnswerStore(small_disk / "s.sqlite")
    kept: list[str] = []

    def fill() -> None:
        for batch in range(1000):  # thirty in flight at a time, forty kilobytes together
            keys = [f"{batch} {number}" for number in range(30)]
            for key in keys:
                assert store.claim(key).result() == "claimed"
            for key, future in [(key, store.put(key, "q", "x" * 1400)) for key in keys]:
                future.result()
                kept.append(key)

    with pytest.raises(StoreError, match=r"no room left.*safe"):
        fill()
    store.close()
    with contextlib.closing(sqlite3.connect(small_disk / "s.sqlite")) as database:
        stored = [row[0] for row in database.execute("SELECT key FROM answers ORDER BY id")]
    assert stored == kept
    assert len(kept) % 30 == 0  # the batch that met the full disk was kept whole
    assert len(kept) > 300
    with pytest.raises(StoreError, match="reserve"):
        AnswerStore(small_disk / "s.sqlite")  # told before anything is paid


def _write_alone(path: Path, start: "multiprocessing.synchronize.Event", paid: Path) -> None:
    store_module.RESERVE_BYTES = 2**18
    with AnswerStore(path) as store:
        start.wait()
        for number in range(150):
            while (found := store.claim(f"key {number}").result()) == "taken":
                time.sleep(0.002)
            if found == "claimed":
                with paid.open("a") as file:
                    file.write(f"{number}\n")
                store.put(f"key {number}", "q", f"{os.getpid()}").result()


def test_two_processes_never_pay_for_one_question_twice(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    paid = [tmp_path / f"paid {number}" for number in range(2)]
    writers = [context.Process(target=_write_alone, args=(tmp_path / "s.sqlite", start, log)) for log in paid]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    bought = sorted(int(line) for log in paid if log.exists() for line in log.read_text().split())
    assert bought == list(range(150))
