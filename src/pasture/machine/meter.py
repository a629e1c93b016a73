"""What training measures: one row of figures a step, and the memory it took."""

import json
import math
import resource
import sys
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from pasture.core.errors import TrainingError
from pasture.core.files import unwritable, write_text
from pasture.machine.distributed import is_main


class MetricsLog:
    """Rows of `metrics.jsonl`, each on disk as soon as it is written.

    A run that was killed and resumed leaves the same bytes as one that was not: rows after the checkpoint are dropped
    on opening, and no row holds a time. Of several processes the main one writes.
    """

    def __init__(self, path: Path, *, after_step: int = 0) -> None:
        """Open the log to go on after `after_step`, the step of the checkpoint, or 0 to begin anew.

        Raises:
            RunFolderError: if the file cannot be written.
        """
        self.path = path
        self._file: FileIO | None = None
        if not is_main():
            return
        write_text(path, "".join(_rows_up_to(path, after_step)))
        try:
            # Unbuffered: a row is with the system before `write` returns, and closing a full disk's file cannot fail.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(path, error) from error

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
        if self._file is None:
            return
        try:
            self._file.write(json.dumps({"step": step, **figures}).encode() + b"\n")
        except OSError as error:
            raise unwritable(self.path, error) from error

    def close(self) -> None:
        """Close the file; every row is in it."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
