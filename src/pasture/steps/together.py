"""A step that trains, done by several processes of this machine: torchrun starts them, the first of them answers.

What comes out is what one process would have made, but for rounding: see `pasture.machine.distributed`. The processes
end with the one that started them, and hold the step's lock until then.
"""

import contextlib
import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from pasture.core.errors import PastureError, TrainingError
from pasture.core.files import write_text
from pasture.core.ports import silent
from pasture.machine.launch import Sharding
from pasture.machine.parents import die_with
from pasture.machine.tracker_settings import Tracking
from pasture.steps import Outcome, Task

WORK = frozenset({"learn.sft", "learn.from_scores", "learn.from_judgements", "learn.from_preferences"})
"""What several processes can share; other work is done by one."""
_LISTEN_SECONDS = 0.2
_END_SECONDS = 40.0
"""How long processes that are told to end may take; torchrun gives its own 30."""
_ORDER, _SAID, _OUTCOME, _ERROR, _LOG = "order.json", "said.jsonl", "outcome.json", "error.pickle", "log.txt"


@dataclass(frozen=True)
class Several:
    """How many processes train together, and how."""

    count: int
    sharding: Sharding = "none"
    threads: int | None = None
    """Of each process; None shares out the processor's cores."""


def do(work: str, task: Task, several: Several, lock: IO[str], tracking: Tracking | None = None) -> Outcome:
    """What the step's work hands back, done by several processes; `lock` is theirs too, the first tells the trackers.

    Raises:
        PastureError: the first that one of them raised; TrainingError if one ended without a word.
    """
    with tempfile.TemporaryDirectory(prefix="pasture-") as name:
        folder = Path(name)
        places = {"folder": str(task.folder), "inputs": {role: str(path) for role, path in task.inputs.items()}}
        order: dict[str, Any] = {"work": work, **places, "settings": task.settings, "several": asdict(several)}
        order["ledgers"] = None if task.ledgers is None else str(task.ledgers)
        order["tracking"] = None if tracking is None else {**asdict(tracking), "folder": str(tracking.folder)}
        write_text(folder / _ORDER, json.dumps(order))
        with (folder / _LOG).open("w") as log, _started(folder, several, lock, log) as launcher:
            heard = 0
            while launcher.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    launcher.wait(_LISTEN_SECONDS)
                heard = _pass_on(folder / _SAID, heard, task)
        return _outcome(folder, work, launcher.returncode)


@contextlib.contextmanager
def _started(folder: Path, several: Several, lock: IO[str], log: IO[str]) -> "Iterator[subprocess.Popen[bytes]]":
    threads = several.threads or max(1, (os.cpu_count() or 1) // several.count)
    launcher = subprocess.Popen(
        [sys.executable, "-m", "pasture.steps.together", str(os.getpid()), str(several.count), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=[lock.fileno()],
    )
    try:
        yield launcher
    finally:
        if launcher.poll() is None:
            launcher.terminate()
            try:
                launcher.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                launcher.kill()


def _pass_on(path: Path, heard: int, task: Task) -> int:
    """Tell of the progress that was written behind byte `heard`; where to go on comes back."""
    if not path.exists():
        return heard
    with path.open("rb") as file:
        file.seek(heard)
        for line in file:
            if not line.endswith(b"\n"):
                break
            heard += len(line)
            done, total, figures = json.loads(line)
            task.progress(done, total, **figures)
    return heard


def _outcome(folder: Path, work: str, code: int) -> Outcome:
    if (folder / _ERROR).exists():
        error: PastureError = pickle.loads((folder / _ERROR).read_bytes())  # noqa: S301 - of our own making
        raise error
    log = (folder / _LOG).read_text(encoding="utf-8", errors="replace")
    if code != 0 or not (folder / _OUTCOME).exists():
        raise TrainingError(
            f"{work}: the processes that trained together ended before they were done. What they had saved stays; run "
            f"again to go on from it. Their last words:\n{log[-4000:]}"
        )
    sys.stderr.write(log)  # what was warned of
    return Outcome(**json.loads((folder / _OUTCOME).read_text(encoding="utf-8")))


def _take_part(folder: Path) -> None:
    """One of the processes: join the others and do the work."""
    distributed = importlib.import_module("pasture.machine.distributed")
    order = json.loads((folder / _ORDER).read_text(encoding="utf-8"))
    several = Several(**order["several"])
    inputs = {role: Path(path) for role, path in order["inputs"].items()}
    ledgers = None if order["ledgers"] is None else Path(order["ledgers"])
    task = Task(Path(order["folder"]), inputs, order["settings"], silent, ledgers)
    on_cpu = task.settings["config"].get("device") == "cpu"
    room, function = order["work"].split(".")
    work: Callable[[Task], Outcome] = getattr(importlib.import_module(f"pasture.steps.{room}"), function)
    try:
        with distributed.processes(expected=several.count, sharding=several.sharding, on_cpu=on_cpu):
            if distributed.is_main():
                task = replace(task, progress=_Teller(folder / _SAID))
            with _tracked(order["tracking"], task.folder):
                outcome = work(task)
            if distributed.is_main():
                write_text(folder / _OUTCOME, json.dumps(asdict(outcome)))
    except PastureError as error:  # the first of all processes; the others end without a word
        (folder / _ERROR).write_bytes(pickle.dumps(error))
        raise SystemExit(1) from None


def _tracked(tracking: Mapping[str, Any] | None, folder: Path) -> contextlib.AbstractContextManager[None]:
    if tracking is None:
        return contextlib.nullcontext()
    trackers = importlib.import_module("pasture.machine.trackers")
    asked = Tracking(**{**tracking, "names": tuple(tracking["names"]), "folder": Path(tracking["folder"])})
    listening: contextlib.AbstractContextManager[None] = trackers.tracked(asked, folder)
    return listening


class _Teller:
    """Progress as lines of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, done: int, total: int, **figures: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([done, total, figures]) + "\n")


def main(arguments: list[str]) -> None:
    """`PARENT COUNT FOLDER` launches COUNT processes, `FOLDER` is one of them."""
    if len(arguments) == 1:
        _take_part(Path(arguments[0]))
        return
    parent, count, folder = arguments
    die_with(int(parent), signal.SIGTERM)  # which it passes on
    torchrun = importlib.import_module("torch.distributed.run")
    failed = importlib.import_module("torch.distributed.elastic.multiprocessing.errors").ChildFailedError
    try:
        torchrun.main(["--standalone", "--nproc-per-node", count, "-m", "pasture.steps.together", folder])
    except failed as error:  # its own account is of forty lines
        rank, first = error.get_first_failure()
        sys.stderr.write(f"process {rank} was the first to end, with code {first.exitcode}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main(sys.argv[1:])
