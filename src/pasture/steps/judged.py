"""Where the judgements of a study's systems lie, and what each is worth."""

from pathlib import Path
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
    """What a judge gave a system for each instruction: 1, 1/2, 0, NaN where unjudged."""
    return np.array([SECOND_WINS[one.preferred] for one in read_records(folder / f"{judge}.jsonl", Preference)])
