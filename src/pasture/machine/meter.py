"""What training measures: one row of figures a step, whoever listens to them, and the memory it took."""

import contextlib
import json
import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import torch

from pasture.core.errors import TrainingError
from pasture.core.files import unwritable, write_text
from pasture.machine.distributed import is_main

Row: TypeAlias = Mapping[str, float]
"""A row of `metrics.jsonl`: `step`, and figures by name."""


class Listener(Protocol):
    """Who is told the rows of a log, after the file; training goes on whatever becomes of it."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Take in the figures of one step."""
        ...

    def close(self) -> None:
        """Take leave: no more rows come, for now or for good."""
        ...


Opening: TypeAlias = Callable[[Path, Sequence[Row]], Listener]
"""Called with a log that is opened and the rows that it goes on from, gives who is to hear the next ones."""

_OPENINGS: ContextVar[tuple[Opening, ...]] = ContextVar("openings", default=())


@contextlib.contextmanager
def telling(*openings: Opening) -> Iterator[None]:
    """Have a listener of each of `openings` told what is logged in every log that is opened while the block runs."""
    token = _OPENINGS.set((*_OPENINGS.get(), *openings))
    try:
        yield
    finally:
        _OPENINGS.reset(token)


class MetricsLog:
    """Rows of `metrics.jsonl`, each on disk as soon as it is written, and then told to the listeners.

    A run that was killed and resumed leaves the same bytes as one that was not: rows after the checkpoint are dropped
    on opening, and no row holds a time. Of several processes the main one writes.
    """

    def __init__(self, path: Path, *, after_step: int = 0) -> None:
        """Open the log to go on after `after_step`, the step of the checkpoint, or 0 to begin anew.

        Raises:
            RunFolderError: if the file cannot be written.
        """
        self._listeners: list[Listener] = []
        if is_main():
            kept = _rows_up_to(path, after_step)
            self._listeners = [_File(path, kept)]
            self._listeners += [opening(path, [json.loads(line) for line in kept]) for opening in _OPENINGS.get()]

    def write(self, step: int, **figures: float) -> None:
        """Append the figures of one step; steps count from 1.

        Raises:
            TrainingError: if a figure is not finite.
            RunFolderError: if the disk is full.
        """
        for name, value in figures.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"step {step}: {name} is {value}. Lower the learning rate, or look at the data of this step."
                )
        for listener in self._listeners:
            listener.write(step, figures)

    def close(self) -> None:
        """Close the file, in which every row is, and let the listeners go."""
        for listener in self._listeners:
            listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _File:
    """`metrics.jsonl` itself, the first of a log's listeners."""

    def __init__(self, path: Path, kept: Sequence[str]) -> None:
        self._path = path
        write_text(path, "".join(kept))
        try:
            # Unbuffered: a row is with the system before `write` returns, and closing a full disk's file cannot fail.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(path, error) from error

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        try:
            self._file.write(json.dumps({"step": step, **figures}).encode() + b"\n")
        except OSError as error:
            raise unwritable(self._path, error) from error

    def close(self) -> None:
        self._file.close()


def _rows_up_to(path: Path, step: int) -> list[str]:
    """The whole lines of the file whose step is at most `step`; a line that a kill cut short is left out."""
    if step == 0 or not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not line.endswith("\n") or row["step"] > step:
            break
        rows.append(line)
    return rows


def peak_memory_bytes() -> int:
    """The most memory this process held at one time: on the GPU where one was used, else resident in RAM."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
