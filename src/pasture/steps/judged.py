"""Where the judgements of a study's systems lie, and what those of a file are worth."""

import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from pasture.core.files import read_records
from pasture.core.records import Preference
from pasture.steps import SECOND_WINS, Task


def judged_systems(task: Task, run: str, split: str) -> dict[str, Path]:
    """The folders of the judgements of each system of a run, by system."""
    prefix = f"{run}/3-annotate/{split}/"
    return {role.removeprefix(prefix): path for role, path in task.inputs.items() if role.startswith(prefix)}


def credit_of(folder: Path, judge: str) -> Any:
    """What a judge gave each comparison of a file, in their order: 1, 1/2, 0, NaN where unjudged.

    Of several labels of a comparison, as people give them, the mean of those that are judgements.
    """
    given: dict[str, list[float]] = {}
    for one in read_records(folder / f"{judge}.jsonl", Preference):
        credit = given.setdefault(one.comparison_id, [])
        if one.preferred != "unjudged":
            credit.append(SECOND_WINS[one.preferred])
    return np.array([fmean(credit) if credit else math.nan for credit in given.values()])
