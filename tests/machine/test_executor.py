"""Jobs run when their turn has come, errors wait for what runs, and no worker outlives the process that started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from pasture.core.errors import DataError, Missing, TrainingError, WaitingError
from pasture.machine.executor import Job, LocalWorkers, walk

PATIENCE_SECONDS = 240
"""How long a test waits for another process before it gives up."""


class ByHand:
    """Workers whose jobs end one at a time, the latest first, whenever `walk` comes to listen."""

    def __init__(self, count: int, failing: Sequence[str] = (), waiting: Sequence[str] = ()) -> None:
        self.count, self._failing, self._waiting = count, failing, waiting
        self._running: list[tuple[str, Future[Any]]] = []
        self.most_at_once = 0

    def __enter__(self) -> "ByHand":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""

    def submit(self, job: Job) -> Future[Any]:
        future: Future[Any] = Future()
        self._running.append((job.name, future))
        self.most_at_once = max(self.most_at_once, len(self._running))
        return future

    def messages(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        if self._running:
            name, future = self._running.pop()
            if name in self._failing:
                future.set_exception(DataError(f"{name} cannot be"))
            elif name in self._waiting:
                future.set_exception(WaitingError(Missing(name, 1, 2, "")))
            else:
                future.set_result(f"{name} done")
        return iter(())


def jobs(**needs: str) -> list[Job]:
    """Jobs by name, each with the letters of those that it needs."""
    return [Job(name, frozenset(needed), order=name) for name, needed in needs.items()]


def walked(todo: Sequence[Job], workers: Any) -> list[str]:
    """What happened, in order: "+a" where a started, "a" where it finished."""
    happened: list[str] = []
    walk(
        todo,
        workers,
        started=lambda name: happened.append(f"+{name}"),
        said=lambda name, message: happened.append(f"{name}: {message}"),
        finished=lambda name, result: happened.append(name if result == f"{name} done" else f"{name}: {result}"),
    )
    return happened


def test_one_worker_takes_jobs_in_the_order_of_the_list() -> None:
    assert walked(jobs(a="", b="", c="a"), ByHand(1)) == ["+a", "a", "+b", "b", "+c", "c"]


def test_a_job_starts_when_all_that_it_needs_is_done_and_not_before() -> None:
    workers = ByHand(2)
    # By hand: a and b start; the latest, b, ends; c and d need a, so nothing starts until a ends; then both do.
    assert walked(jobs(a="", b="", c="ab", d="a"), workers) == ["+a", "+b", "b", "a", "+c", "+d", "d", "c"]
    assert workers.most_at_once == 2


def test_what_no_job_of_the_list_makes_was_made_before() -> None:
    assert walked(jobs(b="a"), ByHand(1)) == ["+b", "b"]


def test_after_an_error_what_runs_is_finished_and_nothing_else_starts() -> None:
    happened: list[str] = []
    with pytest.raises(DataError, match="b cannot be"):
        walk(
            jobs(a="", b="", c=""),
            ByHand(2, failing=["b"]),
            started=lambda name: happened.append(f"+{name}"),
            said=lambda name, message: None,
            finished=lambda name, result: happened.append(name),
        )
    assert happened == ["+a", "+b", "a"]


def test_of_several_errors_the_first_is_raised() -> None:
    with pytest.raises(DataError, match="b cannot be"):
        walked(jobs(a="", b=""), ByHand(2, failing=["a", "b"]))


def test_a_job_that_waits_for_people_holds_up_only_what_needs_it() -> None:
    happened: list[str] = []
    with pytest.raises(WaitingError) as raised:
        walk(
            jobs(a="", b="", c="a", d="b", e="cd", f=""),
            ByHand(1, waiting=["a", "f"]),
            started=lambda name: happened.append(f"+{name}"),
            said=lambda name, message: None,
            finished=lambda name, result: happened.append(name),
        )
    assert happened == ["+a", "+b", "b", "+d", "d", "+f"]
    assert [each.place for each in raised.value.missing] == ["a", "f"]
    with pytest.raises(DataError, match="b cannot be"):  # what went wrong is told before what is missing
        walked(jobs(a="", b=""), ByHand(1, failing=["b"], waiting=["a"]))


def test_an_interrupt_while_a_result_is_shown_is_not_held_back() -> None:
    shown: list[str] = []

    def interrupt(name: str, result: Any) -> None:
        shown.append(name)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        walk(jobs(a="", b=""), ByHand(2), started=lambda _: None, said=lambda *_: None, finished=interrupt)
    assert shown == ["b"]  # a was not waited for


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has asked about yet is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def act(order: tuple[str, Path], say: Callable[..., None]) -> Any:
    """What workers do in these tests: an act, and the folder in which all leave their marks."""
    name, folder = order
    if name == "meet":  # both workers are needed at once
        (folder / f"here-{os.getpid()}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "any"))
        wait_for(lambda: len(list(folder.glob("here-*"))) == 2)
    if name == "speak":
        say(3, 10, {"loss": 0.5})
        wait_for((folder / "heard").exists)
    if name == "die":
        wait_for((folder / "begun").exists)
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "outlive":
        (folder / "begun").touch()
        wait_for((folder / "a-process-died").exists)
    if name == "fail":
        raise DataError("the worker's own words")
    if name == "stay":
        say(os.getpid())
        wait_for((folder / "never").exists)
    return os.getpid()


def acts(folder: Path, *names: str) -> list[Job]:
    return [Job(name, frozenset(), order=(name.rstrip("12"), folder)) for name in names]


def test_workers_are_other_processes_that_work_at_once_and_keep_for_their_next_job(tmp_path: Path) -> None:
    pids: dict[str, int] = {}
    with LocalWorkers(2, act) as workers:
        walk(
            [*acts(tmp_path, "meet1", "meet2"), Job("later", frozenset({"meet1", "meet2"}), ("rest", tmp_path))],
            workers,
            started=lambda name: None,
            said=lambda name, message: None,
            finished=pids.__setitem__,
        )
    assert pids["meet1"] != pids["meet2"]
    assert pids["later"] in (pids["meet1"], pids["meet2"])
    assert os.getpid() not in pids.values()


@pytest.mark.parametrize(("cards", "seen"), [("4,GPU-7", {"4", "GPU-7"}), ("2", {"2"}), ("", {""})])
def test_each_worker_sees_one_card_of_those_that_there_are(
    cards: str, seen: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cards)
    with LocalWorkers(2, act) as workers:
        walked(acts(tmp_path, "meet1", "meet2"), workers)
    assert {path.read_text() for path in tmp_path.glob("here-*")} == seen
    assert os.environ["CUDA_VISIBLE_DEVICES"] == cards


def test_what_a_job_says_comes_through_while_it_works(tmp_path: Path) -> None:
    heard: list[tuple[str, Any]] = []

    def listen(name: str, message: Any) -> None:
        heard.append((name, message))
        (tmp_path / "heard").touch()  # the job waits for it

    with LocalWorkers(1, act) as workers:
        walk(acts(tmp_path, "speak"), workers, started=lambda _: None, said=listen, finished=lambda *_: None)
    assert heard == [("speak", (3, 10, {"loss": 0.5}))]


def test_an_error_in_a_worker_is_raised_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the worker's own words"), LocalWorkers(1, act) as workers:
        walked(acts(tmp_path, "fail"), workers)


def test_a_worker_that_dies_takes_its_own_job_with_it_and_no_other(tmp_path: Path) -> None:
    finished: list[str] = []
    with LocalWorkers(2, act) as workers:
        submit = workers.submit

        def watched(job: Job) -> Future[Any]:
            future = submit(job)
            if job.name == "die":
                future.add_done_callback(lambda _: (tmp_path / "a-process-died").touch())
            return future

        workers.submit = watched  # type: ignore[method-assign]
        with pytest.raises(TrainingError, match="the process that did die was killed") as caught:
            walk(
                acts(tmp_path, "die", "outlive"),
                workers,
                started=lambda _: None,
                said=lambda *_: None,
                finished=lambda name, _: finished.append(name),
            )
    assert "What was finished stays; run again, with fewer workers" in str(caught.value)
    assert finished == ["outlive"]


def test_an_interrupt_ends_the_workers(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(name: str, message: Any) -> None:
        pids.append(message[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), LocalWorkers(1, act) as workers:
        walk(acts(tmp_path, "stay"), workers, started=lambda _: None, said=interrupt, finished=lambda *_: None)
    assert len(pids) == 1
    assert is_gone(pids[0])


PARENT = """
import sys
from pathlib import Path
from pasture.machine.executor import LocalWorkers, walk
from tests.machine.test_executor import act, acts

if __name__ == "__main__":
    with LocalWorkers(1, act) as workers:
        said = lambda name, message: print(message[0], flush=True)
        walk(acts(Path(sys.argv[1]), "stay"), workers, started=lambda _: None, said=said, finished=lambda *_: None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told by Linux alone")
def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()
        wait_for(lambda: is_gone(pid))
