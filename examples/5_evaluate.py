"""Lesson 5. Evaluation: win rates that say how sure they are, and how much of a lead is mere length.

Run it with `python examples/5_evaluate.py`; it writes to runs/examples/5_evaluate.
"""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pasture.annotate.raters import MeadowPool
from pasture.core.files import write_records, write_text
from pasture.data.load import load_split
from pasture.evaluate.board import build_board
from pasture.evaluate.length_control import length_control
from pasture.evaluate.outcomes import outcomes_of
from pasture.evaluate.table import board_table
from pasture.evaluate.win_rate import paired_difference
from pasture.generate.pairs import against_reference
from pasture.world.writing import DEMONSTRATION, write

FOLDER = Path("runs/examples/5_evaluate")

# Three systems of known make, all cut from the writer of the demonstrations: one is right more often, one is no better
# but talkative, and one is the same writer on another day. A sound evaluation must find that one at one half.
STYLES = {
    "careful": replace(DEMONSTRATION, right=0.95),
    "talkative": replace(DEMONSTRATION, on_measure=0.0, opening=1.0, closing=1.0),
    "twin": DEMONSTRATION,
}

instructions, references = load_split("meadow", "evaluation", 805, seed=0)
judge = MeadowPool(seed=0, label_flip_probability=0.0)  # noise is for training; evaluation wants the clearest view
systems = []
for name, style in STYLES.items():
    answers = [write(instruction, style, name, seed=7) for instruction in instructions]
    comparisons = against_reference(instructions, references, answers)
    preferences = judge.annotate(comparisons)
    write_records(FOLDER / f"{name}.jsonl", preferences)
    systems += outcomes_of(preferences, comparisons, judge="pool", reference="demonstrations")

# A win counts 1, a tie 1/2. The interval resamples instructions: another 805 could have been drawn. "At equal length"
# is what a logistic model says the rate would be if both answers were as long.
board = build_board(systems, seed=0, length_controlled=length_control(systems, seed=0, draws=100))
write_text(FOLDER / "leaderboard.json", board.to_json())
Console(width=110, no_color=True).print(board_table(board))

# Two intervals that overlap prove nothing: both systems met the same instructions, so their difference is far surer
# than either rate. The paired test asks how often chance alone would part two equals so far.
by_name = {one.system: one for one in systems}
for other in ("talkative", "twin"):
    found = paired_difference(by_name["careful"], by_name[other], seed=0)
    print(f"careful - {other}: {found.difference:+.1%}, p = {found.p_value:.2g}, on {found.shared} instructions")
