"""TensorBoard, trackio and Weights & Biases, through accelerate: told the rows that `metrics.jsonl` gets.

A training is never lost to its tracker: what one raises is a warning, after which it is told no more. Nor is anything
shown twice. A training that goes on from its checkpoint first tells what a tracker lacks, from `metrics.jsonl`, and
then passes over what it has. What it has, a service says; of TensorBoard it is noted in a file that a kill leaves
behind, and what came after the checkpoint is taken back.
"""

import contextlib
import contextvars
import io
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

from pasture.core.files import remove_drafts, write_text
from pasture.core.redaction import redact, redact_all, remember_secret
from pasture.machine.meter import Row, telling
from pasture.machine.tracker_settings import TrackerName, Tracking

LOG = logging.getLogger("pasture.trackers")

SECONDS_TO_CONNECT = 60
SECONDS_TO_SEND_THE_REST = 60
"""How long the end of a training waits for Weights & Biases; `wandb sync` sends what is left."""

NOTES_FOLDER = "notes"
_SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "TRACKIO_WRITE_TOKEN")


@contextlib.contextmanager
def tracked(tracking: Tracking, training_folder: Path) -> Iterator[None]:
    """Tell the trackers every row that is logged while the block runs, by a training that works in `training_folder`.

    A method whose training has several logs, such as one for each round, makes a run for each.
    """
    for name in _SECRETS:
        remember_secret(os.environ.get(name, ""))

    def opening(name: TrackerName, log: Path, kept: Sequence[Row]) -> "TrackedLog":
        folder, whole = log.parent.absolute(), training_folder.absolute()
        part = folder.relative_to(whole) if folder.is_relative_to(whole) else Path(folder.name)
        return TrackedLog(name, tracking, tracking.run if part == Path() else f"{tracking.run}/{part}", kept)

    with telling(*(partial(opening, name) for name in tracking.names)):
        yield


class Notes:
    """Which run a tracker made of a log, and the last step that it was told; on disk whenever training is killed."""

    def __init__(self, folder: Path, training: str) -> None:
        """Open the notes in `folder`, or begin them where they are of another training.

        Raises:
            OSError: if they cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        remove_drafts(folder)
        identity, steps = folder / "run.json", folder / "told"
        found = json.loads(identity.read_text(encoding="utf-8")) if identity.exists() else {}
        if found.get("training") != training:
            found = {"training": training, "run": secrets.token_hex(4)}
            steps.unlink(missing_ok=True)
            write_text(identity, json.dumps(found) + "\n")
        self.run: str = found["run"]
        """A name that no other run has."""
        self.last_step = _last_number(steps.read_text(encoding="utf-8")) if steps.exists() else 0
        self._file = steps.open("ab", buffering=0)

    def told(self, step: int) -> None:
        """Note a step; it is with the system before this returns."""
        self._file.write(f"{step}\n".encode())

    def close(self) -> None:
        """Close the file; every note is in it."""
        self._file.close()


def _last_number(text: str) -> int:
    """The last whole line; a kill may have cut one short."""
    whole = text[: text.rfind("\n") + 1].split()
    return int(whole[-1]) if whole else 0


@dataclass(frozen=True)
class Start:
    """What a tracker begins with."""

    tracking: Tracking
    place: str
    """What the log is called within the project."""
    run: str
    next_step: int
    """The first step that the tracker is going to be told, as far as is known."""


def _tensorboard(start: Start) -> Any:
    folder = start.tracking.folder / "tensorboard"
    # Readers go through the files by name, which has the second in it.
    if any((folder / start.place).glob(f"events.out.tfevents.{int(time.time())}.*")):
        time.sleep(1)
    # They drop what an earlier file holds from this step on.
    return TensorBoardTracker(start.place, str(folder), purge_step=start.next_step)


def _trackio(start: Start) -> Any:
    return TrackioTracker(
        start.tracking.project,
        name=f"{start.place}-{start.run}",
        resume="allow",
        config=redact_all(dict(start.tracking.settings)),
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )


def _wandb(start: Start) -> Any:
    folder = start.tracking.folder / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    # What is kept offline lies in memory up to 32 KiB at a time, and a kill loses that. As all of it is told again,
    # what a killed process left is of no more use, and would be sent beside the rest.
    for left in (folder / "wandb").glob(f"offline-run-*-{start.run}"):
        shutil.rmtree(left)
    return WandBTracker(
        os.environ.get("WANDB_PROJECT", start.tracking.project),
        id=start.run,
        name=start.place,
        resume="allow",
        dir=str(folder),
        config=redact_all(dict(start.tracking.settings)),
        settings={
            "console": "off",
            "silent": True,
            "reinit": "create_new",  # a log within another's, such as a round's, does not end that one's run
            "init_timeout": SECONDS_TO_CONNECT,
            "finish_timeout": SECONDS_TO_SEND_THE_REST,
            "finish_timeout_raises": True,
        },
    )


def _next_of_trackio(run: Any) -> int | None:
    # The only place where it says so. What it was told in its last half second is lost in a kill.
    found: int | None = getattr(run, "_next_step", None)
    return found


def _next_of_wandb(run: Any) -> int | None:
    return 1 if run.offline else int(run.step)


@dataclass(frozen=True)
class Kind:
    """How one sort of tracker is made and resumed."""

    make: Callable[[Start], Any]
    next_step: Callable[[Any], int | None] | None
    """The step before which a resumed run has all, by its own account; None: it has what was noted, but for what is
    taken back."""


KINDS: Mapping[TrackerName, Kind] = {
    "tensorboard": Kind(_tensorboard, None),
    "trackio": Kind(_trackio, _next_of_trackio),
    "wandb": Kind(_wandb, _next_of_wandb),
}


class TrackedLog:
    """One tracker's run of one log, as a listener of it."""

    def __init__(self, name: TrackerName, tracking: Tracking, place: str, kept: Sequence[Row]) -> None:
        """Start or resume the run; `kept` are the rows that stand, up to the checkpoint that training goes on from."""
        self._name = name
        self._tracker: Any = None
        self._notes: Notes | None = None
        self._known = 0
        """The last step that is not told again."""
        # trackio has a current run by context, which it would end a second time when Python exits.
        self._context = contextvars.copy_context()
        self._try("starting", lambda: self._start(tracking, place, int(kept[-1]["step"]) if kept else 0))
        for row in kept:
            self.write(int(row["step"]), {key: value for key, value in row.items() if key != "step"})

    def _start(self, tracking: Tracking, place: str, kept_step: int) -> None:
        kind = KINDS[self._name]
        notes = Notes(tracking.folder / NOTES_FOLDER / self._name / place, tracking.training)
        self._notes = notes
        if not PartialState._shared_state:
            PartialState()  # accelerate's trackers log through it
        self._known = notes.last_step if kind.next_step else min(notes.last_step, kept_step)
        tracker = kind.make(Start(tracking, place, notes.run, self._known + 1))
        tracker.main_process_only = False  # only the main process has come here
        self._context.run(_quietly, tracker.start)
        self._tracker = tracker
        found = kind.next_step(tracker.tracker) if kind.next_step else None
        self._known = self._known if found is None else found - 1

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Tell the tracker a row, unless it knows the step."""
        if self._tracker is not None and self._notes is not None and step > self._known:
            self._try("writing", lambda: self._tell(step, figures))

    def _tell(self, step: int, figures: Mapping[str, float]) -> None:
        self._context.run(self._tracker.log, dict(figures), step=step)
        if self._notes is not None:
            self._notes.told(step)

    def close(self) -> None:
        """End the run, or leave it to be resumed."""
        if self._tracker is not None:
            self._try("finishing", lambda: self._context.run(_quietly, self._tracker.finish))
        if self._notes is not None:
            self._notes.close()

    def _try(self, doing: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises, training goes on
            self._tracker = None
            LOG.warning(
                "%s failed while %s (%s: %s). Training goes on without it; metrics.jsonl has every row.",
                *(self._name, doing, type(error).__name__, redact(str(error).strip())),
            )


def _quietly(act: Callable[[], object]) -> None:
    # trackio prints its greetings in the middle of the progress bar.
    with contextlib.redirect_stdout(io.StringIO()):
        act()
