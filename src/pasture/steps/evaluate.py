"""Steps of room 5: win rates, the choice of a checkpoint, the leaderboards."""

import io
import json

from rich.console import Console

from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records, write_text
from pasture.core.records import Comparison, Preference
from pasture.evaluate.board import Board, build_board
from pasture.evaluate.length_control import equal_length
from pasture.evaluate.outcomes import Outcomes, outcomes_of
from pasture.evaluate.table import board_csv, board_table
from pasture.evaluate.win_rate import win_rate
from pasture.steps import Outcome, Task
from pasture.steps.board_page import differences_among
from pasture.steps.judge_titles import judge_title

_REFERENCE = "demonstrations"
_BASELINE = "sft"
_TABLE_WIDTH = 110


def select(task: Task) -> Outcome:
    """Pick the checkpoint with the highest validation win rate, the earliest of equals, and write every rate down.

    The model that training set out from (step 0) is listed and cannot be picked: a method answers for its result.
    """
    rates = []
    names = (path.name.removesuffix("-comparisons.jsonl") for path in task.inputs["judged"].glob("*-comparisons.jsonl"))
    for step in sorted(names, key=int):
        path = task.inputs["judged"] / f"{step}-comparisons.jsonl"
        comparisons = read_records(path, Comparison)
        preferences = read_records(path.with_name(f"{step}-preferences.jsonl"), Preference)
        rates.append(
            win_rate(
                preferences,
                comparisons,
                system=comparisons[0].second.system,
                reference=_REFERENCE,
                judge=task.settings["judge"],
                seed=task.settings["seed"],
            )
        )
    write_records(task.folder / "win_rates.jsonl", rates)
    steps = [int(rate.system.rsplit("@", 1)[1]) for rate in rates]
    if all(rate.rate is None for rate in rates[1:]):
        raise DataError(
            f"none of {len(rates) - 1} checkpoints was judged by {task.settings['judge']!r}, so none can be picked. "
            "Look at the judge's answers, or ask again with retry_unjudged."
        )
    number, best = max(zip(steps[1:], rates[1:], strict=True), key=lambda item: (item[1].rate or 0.0, -item[0]))
    picked = {"step": number, "win_rate": best.rate, "standard_error": best.standard_error, "split": "validation"}
    write_text(task.folder / "selection.json", json.dumps(picked, indent=1) + "\n")
    return Outcome(details=picked)


def board(task: Task) -> Outcome:
    """The leaderboard by every judge: for the terminal, as JSON, as CSV, as win rate records."""
    settings = task.settings
    text, details, tables, records = [], {}, {}, []
    for judge in settings["judges"]:
        systems = [_outcomes(task, system, judge) for system in settings["systems"]]
        seed, draws = settings["seed"], settings["length_control_draws"]
        judged = any(outcomes.judged.any() for outcomes in systems)
        controlled = equal_length(systems, seed, draws) if judged else None
        ranked = build_board(systems, seed=seed, length_controlled=controlled.rates if controlled else None)
        text.append(_drawn(ranked, f"Leaderboard by {judge_title(judge)}"))
        tables[judge] = {
            **json.loads(ranked.to_json()),
            "differences": [one.model_dump() for one in differences_among(systems, _BASELINE, seed, controlled)],
        }
        write_text(task.folder / f"leaderboard-{judge}.csv", board_csv(ranked))
        records += [row.win_rate for row in ranked.rows]
        details[judge] = {row.win_rate.system: row.win_rate.rate for row in ranked.rows}
    write_text(task.folder / "leaderboard.json", json.dumps(tables, indent=1) + "\n")
    write_text(task.folder / "leaderboard.txt", "\n".join(text))
    write_records(task.folder / "win_rates.jsonl", records)
    return Outcome(details=details)


def _outcomes(task: Task, system: str, judge: str) -> Outcomes:
    folder = task.inputs[system]
    comparisons = read_records(folder / "comparisons.jsonl", Comparison)
    preferences = read_records(folder / f"{judge}.jsonl", Preference)
    return outcomes_of(preferences, comparisons, judge=judge, reference=_REFERENCE)[0]


def _drawn(ranked: Board, title: str) -> str:
    file = io.StringIO()
    Console(file=file, width=_TABLE_WIDTH, no_color=True).print(board_table(ranked, title))
    return file.getvalue()
