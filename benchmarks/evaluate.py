"""How fast numbers come out of preferences, and how often their intervals hold the truth.

    python benchmarks/evaluate.py                               # 200 systems, 100,000 preferences
    python benchmarks/evaluate.py --alpaca-eval /path/to/venv   # and alpaca_eval 0.6.6's win rates of the same data
    python benchmarks/evaluate.py --coverage 4000               # how often intervals hold, instead

alpaca_eval has neither intervals nor a length control that works without a download, so only its win rates stand
beside ours. CPU seconds are the steadier number on a shared machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.evaluate.simulations import HEAVY, INTERVALS, TESTS

from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.evaluate.board import build_board
from pasture.evaluate.length_control import length_control
from pasture.evaluate.outcomes import outcomes_of
from pasture.evaluate.ranking import bradley_terry
from pasture.evaluate.table import board_csv

T = TypeVar("T")
SYSTEMS, INSTRUCTIONS = 200, 500

THEIRS = """
import json, sys, time
import pandas as pd
from alpaca_eval.metrics import get_winrate
frames = [pd.DataFrame({"preference": row}) for row in json.load(open(sys.argv[1]))]
wall, cpu = time.perf_counter(), time.process_time()
rows = [get_winrate(frame) for frame in frames]
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""


def timed(what: str, work: Callable[[], T]) -> T:
    """Do `work` and print its seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    print(f"{what:<58} {time.perf_counter() - wall:8.2f} s wall {time.process_time() - cpu:8.2f} s CPU", flush=True)
    return result


def judged() -> tuple[list[Preference], list[Comparison]]:
    """Every system against one reference on every instruction, answers of about 600 characters."""
    rng = np.random.default_rng(0)
    preferences, comparisons = [], []
    for number in range(INSTRUCTIONS):
        item = Instruction(id=f"i{number}", instruction=f"Do {number}.", source=f"s{number % 5}", split="evaluation")
        old = Completion(instruction_id=item.id, text="words of it " * 50, system="reference", seed=0)
        for system in range(SYSTEMS):
            text = f"{system} has words " * int(rng.integers(10, 70))
            new = Completion(instruction_id=item.id, text=text, system=f"system-{system:03}", seed=0)
            comparison = Comparison.of(item, old, new)
            verdict = "second" if rng.random() < 0.2 + 0.6 * system / SYSTEMS else "first"
            comparisons.append(comparison)
            preferences.append(
                Preference.model_validate({"comparison_id": comparison.id, "annotator": "judge", "preferred": verdict})
            )
    return preferences, comparisons


def alpaca_eval(venv: Path, preferences: list[Preference]) -> None:
    """Print the seconds of alpaca_eval's win rates, without imports."""
    rows = [[1 + (row.preferred == "second") for row in preferences[at::SYSTEMS]] for at in range(SYSTEMS)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(rows, file)
        file.flush()
        done = subprocess.run(
            [str(venv / "bin/python"), "-c", THEIRS, file.name], capture_output=True, text=True, check=True
        )
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    print(f"{'alpaca_eval: win rates of 200 systems, no intervals':<58} {wall:8.2f} s wall {cpu:8.2f} s CPU")


def coverage(trials: int) -> None:
    """Print how often each interval holds the truth and each test rejects a true hypothesis."""
    for name, simulate in {**INTERVALS, **TESTS}.items():
        count = trials // 2 if name in HEAVY else trials
        share = simulate(np.random.default_rng(11), count)
        error = (share * (1 - share) / count) ** 0.5
        print(f"{name:<28} {share:6.1%} ± {error:.1%} of {count:,} trials", flush=True)


def main() -> None:
    """Print a line for each piece of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpaca-eval", type=Path, help="a virtual environment that holds alpaca_eval 0.6.6")
    parser.add_argument("--coverage", type=int, metavar="TRIALS", help="simulate every interval and test so often")
    arguments = parser.parse_args()
    if arguments.coverage:
        coverage(arguments.coverage)
        return
    preferences, comparisons = judged()
    print(f"{SYSTEMS} systems, {len(preferences):,} preferences, 2,000 bootstrap draws (500 with a refit)")
    systems = timed(
        "records to columns", lambda: outcomes_of(preferences, comparisons, judge="judge", reference="reference")
    )
    board = timed("leaderboard with intervals and sources", lambda: build_board(systems, seed=0))
    timed("its CSV and JSON", lambda: (board_csv(board), board.to_json()))
    timed("length control", lambda: length_control(systems, seed=0))
    timed("Bradley-Terry with rank intervals", lambda: bradley_terry(systems, seed=0))
    if arguments.alpaca_eval:
        alpaca_eval(arguments.alpaca_eval, preferences)


if __name__ == "__main__":
    main()
