"""How far a command has come: a bar where a terminal listens, else a line now and then for a log file."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pasture.cli.screen import duration

SECONDS_BETWEEN_LINES = 30.0
"""Where no terminal listens."""


@contextlib.contextmanager
def shown_progress(console: Console, what: str) -> Iterator[Any]:
    """What is called with (done, total) and figures by name; lines go to standard error, apart from results."""
    if console.is_terminal:
        with _bar(console, what) as advanced:
            yield advanced
    else:
        yield _Lines(Console(stderr=True, quiet=console.quiet), what)


@contextlib.contextmanager
def _bar(console: Console, what: str) -> Iterator[Any]:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("{task.fields[figures]}"), console=console, transient=True)
    task = bar.add_task("", total=None, figures="")

    def advanced(done: int, total: int, **figures: float) -> None:
        bar.update(task, completed=done, total=total, figures=_named(figures))

    with bar:
        yield advanced


class _Lines:
    """A line on the first call, and then one when the last is `SECONDS_BETWEEN_LINES` old."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        self._first: tuple[float, int] | None = None
        self._told = -SECONDS_BETWEEN_LINES

    def __call__(self, done: int, total: int, **figures: float) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        elif now - self._told < SECONDS_BETWEEN_LINES:
            return
        self._told = now
        begun, from_there = self._first
        left = (total - done) * (now - begun) / (done - from_there) if done > from_there else None
        said = [f"{self._what} {done}/{total}", _named(figures), "" if left is None else f"{duration(left)} left"]
        self._console.print("  ".join(filter(None, said)), markup=False, highlight=False, soft_wrap=True)


def _named(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
