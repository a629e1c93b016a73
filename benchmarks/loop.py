"""Seconds and peak memory of every step of a recipe, in a fresh folder.

    python benchmarks/loop.py recipes/meadow/loop.toml [key=value ...]

Peak memory is the resident set's high-water mark, reset before each step (Linux); what earlier steps loaded and kept
counts. Wall time is what a user waits; CPU time is what the process spent on all cores.
"""

import sys
import tempfile
import time
from pathlib import Path

from pasture import flow
from pasture.plan import Step


class Table:
    """Prints a row for every finished step."""

    def __init__(self) -> None:
        self._cpu = 0.0
        self.seconds = 0.0

    def skipped(self, step: Step) -> None:
        """Nothing to measure."""

    def started(self, step: Step) -> None:
        """Reset the marks."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._cpu = time.process_time()

    def advanced(self, step: Step, done: int, total: int, **figures: float) -> None:
        """Nothing to measure."""

    def finished(self, step: Step, seconds: float, cost_usd: float | None) -> None:
        """Print the step's row."""
        cpu = time.process_time() - self._cpu
        self.seconds += seconds
        print(f"{step.name:<34} {seconds:8.1f} {cpu:8.1f} {_peak_mib():8.0f}", flush=True)


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Run the recipe named on the command line and print the table."""
    recipe, *overrides = sys.argv[1:] or ["recipes/meadow/loop.toml"]
    print(f"{'step':<34} {'wall s':>8} {'CPU s':>8} {'peak MiB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        table = Table()
        flow.execute(flow.prepare(Path(recipe), overrides, Path(folder)), table)
    print(f"{'all steps':<34} {table.seconds:8.1f}")


if __name__ == "__main__":
    main()
