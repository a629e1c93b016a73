"""Runs the tiny loop again and again, killed -9 amid each of its steps; the program behind `test_kill.py`.

One process loads torch once and forks for every try. `python -m tests.flows.killing FOLDER` prints what it killed.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pasture.cli
from pasture.flow import prepare
from tests.crashes import survives_kill_at
from tests.flows.tiny import LOOP, TINY

Counts = Callable[[str, Sequence[str]], bool]


def moments(step: str, workspace: str) -> Iterator[tuple[str, int, Counts]]:
    """When to kill a step, as name, number and kind of file operation, in the order in which they come."""

    def on_outputs(event: str, paths: Sequence[str]) -> bool:
        return paths[0].startswith(f"{workspace}/") and "/.key" not in paths[0]

    def on_checkpoints(event: str, paths: Sequence[str]) -> bool:
        return event == "os.rename" and paths[1].startswith(workspace) and paths[1].endswith("/checkpoint.safetensors")

    def on_publishing(event: str, paths: Sequence[str]) -> bool:
        return event == "os.rename" and paths[0] == workspace

    yield "while its first file is written", 2, on_outputs
    if step in ("4-learn/sft", "4-learn/reward_model", "4-learn/ppo"):
        yield "between its first checkpoint and its second", 2, on_checkpoints
    yield "when all is done but its name", 1, on_publishing


def pasture_run(out: Path) -> None:
    """What `pasture run` does, in this process."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the process ends before it
    sys.argv = ["pasture", "run", str(LOOP), *TINY, "--out", str(out)]
    try:
        pasture.cli.main()
    except SystemExit as end:
        os._exit(int(end.code or 0))


def main(out: Path) -> None:
    """Kill each step at each moment, one after the other, in one run folder."""
    for room in ("data", "generate", "annotate", "learn", "evaluate", "report"):
        importlib.import_module(f"pasture.steps.{room}")
    for step in prepare(LOOP, TINY, out).plan.steps:
        for moment, number, counts in moments(step.name, f"{out}/{step.name}.partial"):
            if survives_kill_at(number, lambda: pasture_run(out), counts):
                sys.exit(f"{step.name} was never killed {moment}")
            sys.stdout.write(f"{step.name}: killed {moment}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
