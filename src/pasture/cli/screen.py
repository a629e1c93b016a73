"""What a run shows while it goes: the step, its rate, the time left, the cost so far."""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pasture import estimate
from pasture.flow import Run
from pasture.plan import Step

_UPDATE_SECONDS = 0.1


def duration(seconds: float) -> str:
    """A time in the unit that reads best."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def money(cost_usd: float | None) -> str:
    """Dollars, or 'unknown'."""
    return "unknown" if cost_usd is None else f"${cost_usd:.2f}"


@dataclass
class _Bar:
    """A step in hand."""

    task: TaskID
    number: int
    started: float
    updated: float = 0.0


class LiveScreen:
    """A line for each finished step and a bar for the one in hand; plain lines where no terminal listens."""

    def __init__(self, console: Console, run: Run, workers: int = 1) -> None:
        self._console = console
        self._workers = workers
        self._steps = len(run.plan.steps)
        self._name_width = max(34, *(len(step.name) for step in run.plan.steps))
        self._pending_seconds = {step.name: estimate.seconds(step, run.recipe) for step in run.pending()}
        self._number = 0
        self._cost: float | None = 0.0
        self._bars: dict[str, _Bar] = {}
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def skipped(self, step: Step) -> None:
        """Say that the step was done before."""
        self._number += 1
        self._line(self._number, step, "done before", "")

    def started(self, step: Step) -> None:
        """Open the step's bar."""
        self._number += 1
        left = duration(sum(self._pending_seconds.values()) / self._workers)
        task = self._progress.add_task(
            step.name, total=None, rate="", figures=f"about {left} in all, {money(self._cost)} so far"
        )
        self._bars[step.name] = _Bar(task, self._number, time.monotonic())
        if not self._console.is_terminal:
            self._console.print(f"[{self._number}/{self._steps}] {step.name} …", markup=False)

    def advanced(self, step: Step, done: int, total: int, **figures: float) -> None:
        """Move the step's bar."""
        now = time.monotonic()
        bar = self._bars.get(step.name)
        if bar is None or (now - bar.updated < _UPDATE_SECONDS and done < total):
            return
        bar.updated = now
        rate = done / max(now - bar.started, 1e-9)
        shown = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
        self._progress.update(bar.task, completed=done, total=total, rate=f"{rate:.3g}/s", figures=shown)

    def finished(self, step: Step, seconds: float, cost_usd: float | None) -> None:
        """Close the bar, leave a line."""
        bar = self._bars.pop(step.name)
        self._progress.remove_task(bar.task)
        self._pending_seconds.pop(step.name, None)
        self._cost = None if self._cost is None or cost_usd is None else self._cost + cost_usd
        self._line(bar.number, step, duration(seconds), money(cost_usd) if cost_usd != 0.0 else "")

    def _line(self, number: int, step: Step, took: str, cost: str) -> None:
        name = f"{step.name:<{self._name_width}}"
        self._console.print(f"[{number}/{self._steps}] {name} {took:>12} {cost}".rstrip(), markup=False)
