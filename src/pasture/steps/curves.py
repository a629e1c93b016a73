"""Steps that follow a method on its way: what the reward model says, and what judges say, as it is pleased more.

Each writes `points.jsonl`, a row for every place on the way and judge, and `outcomes.jsonl`, the same with the credit
of every validation instruction (1, 1/2 or 0, of several labels their mean, null where unjudged), in their order. A
point's rate is null where nothing was judged, its standard error where fewer than two instructions were.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pasture.core.files import read_json_lines, read_records, write_json_lines
from pasture.core.records import Completion, Instruction, Score
from pasture.core.statistics import standard_error_of_mean
from pasture.learn.best_of_n import analytic_kl, expected_best
from pasture.steps import Outcome, Task
from pasture.steps.judged import credit_of


@dataclass(frozen=True)
class _Place:
    """One place on a method's way; arrays have an entry for each instruction, NaN where there is none."""

    progress: int
    kl: float
    """Nats an answer from the SFT model."""
    proxy: float
    """Mean score by the reward model."""
    credit: Mapping[str, Any]
    """By judge."""


def of_checkpoints(task: Task) -> Outcome:
    """Over the steps or rounds of training."""
    kl = {int(row["progress"]): float(row["kl"]) for row in _rows(task.inputs["drift"] / "drift.jsonl")}
    places = []
    for path in sorted(task.inputs["answers"].glob("*.jsonl"), key=lambda path: int(path.stem)):
        progress = int(path.stem)
        scores = read_records(task.inputs["scored"] / path.name, Score)
        credit = {judge: _credit(task, path.stem, judge)[:, 0] for judge in task.settings["judges"]}
        places.append(_Place(progress, kl[progress], float(np.mean([score.value for score in scores])), credit))
    return _write(task, places, sum(_unjudged(place.credit) for place in places))


def of_best_of_n(task: Task) -> Outcome:
    """Over n, each power of two: the unbiased estimate from all candidates of an instruction.

    Credit is estimated from those that were judged, and of an instruction with fewer than n of them not at all.
    """
    scores = read_records(task.inputs["scored"] / "completions.jsonl", Score)
    proxy_IM = _by_instruction([score.instruction_id for score in scores], [score.value for score in scores])
    credit_IM = {judge: _credit(task, "completions", judge) for judge in task.settings["judges"]}
    places = []
    for n in _powers_of_two(proxy_IM.shape[1]):
        proxy = float(np.mean([expected_best(row, n) for row in proxy_IM.tolist()]))
        credit = {judge: _best_of(proxy_IM, values_IM, n) for judge, values_IM in credit_IM.items()}
        places.append(_Place(n, analytic_kl(n), proxy, credit))
    return _write(task, places, _unjudged(credit_IM))


def _unjudged(credit: Mapping[str, Any]) -> int:
    """How many answers have no judgement, over all judges."""
    return sum(int(np.isnan(values).sum()) for values in credit.values())


def _best_of(proxy_IM: Any, credit_IM: Any, n: int) -> Any:
    """Each instruction's expected credit of the best of n, as if its unjudged candidates had never been drawn.

    NaN where fewer than n are judged.
    """
    found = []
    for scores, credit in zip(proxy_IM, credit_IM, strict=True):
        judged = ~np.isnan(credit)
        enough = judged.sum() >= n
        found.append(expected_best(scores[judged].tolist(), n, values=credit[judged].tolist()) if enough else math.nan)
    return np.array(found)


def _powers_of_two(most: int) -> Iterator[int]:
    n = 1
    while n <= most:
        yield n
        n *= 2


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json_lines(path)
    return rows


def _credit(task: Task, stem: str, judge: str) -> Any:
    """Credit by instruction and answer."""
    completions = read_records(task.inputs["answers"] / f"{stem}.jsonl", Completion)
    values = credit_of(task.inputs["judged"], f"{stem}-{judge}")
    instructions = read_records(task.inputs["data"] / "validation.jsonl", Instruction)
    ids = [completion.instruction_id for completion in completions]
    if list(dict.fromkeys(ids)) != [instruction.id for instruction in instructions]:
        raise ValueError("answers are not in the order of the instructions")
    return _by_instruction(ids, values)


def _by_instruction(ids: Sequence[str], values: Sequence[float]) -> Any:
    """Values as a table with a row for each instruction; all have the same number of answers, one after the other."""
    count = len(set(ids))
    return np.array(values, dtype=np.float64).reshape(count, -1)


def _write(task: Task, places: list[_Place], unjudged: int) -> Outcome:
    points, outcomes = [], []
    for place in places:
        for judge, credit in place.credit.items():
            judged = credit[~np.isnan(credit)]
            error = standard_error_of_mean(judged)
            row = {"system": task.settings["system"], "judge": judge, "progress": place.progress}
            points.append(
                {
                    **row,
                    "progress_name": task.settings["progress"],
                    "kl": place.kl,
                    "proxy": place.proxy,
                    "rate": float(judged.mean()) if len(judged) else None,
                    "standard_error": None if math.isnan(error) else error,
                    "judged": len(judged),
                    "asked": len(credit),
                }
            )
            outcomes.append({**row, "credit": [None if np.isnan(value) else float(value) for value in credit]})
    write_json_lines(task.folder / "points.jsonl", points)
    write_json_lines(task.folder / "outcomes.jsonl", outcomes)
    return Outcome(details={"points": len(points), "unjudged": unjudged})
