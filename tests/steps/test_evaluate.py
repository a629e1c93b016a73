"""Which checkpoint is picked, and what is said where none can be."""

from pathlib import Path
from typing import Any

import pytest

from pasture.core.errors import DataError
from pasture.core.files import write_records
from pasture.core.ports import silent
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.steps import Task
from pasture.steps.evaluate import select


def judged(folder: Path, step: str, verdicts: str) -> None:
    """A file of comparisons of a checkpoint with the demonstrations, and one of verdicts: w, l, or - for none."""
    comparisons, preferences = [], []
    for number, verdict in enumerate(verdicts):
        asked = Instruction(id=str(number), instruction="say", source="test", split="validation")
        texts = {"demonstrations": "a", f"ppo@{int(step)}": "b"}
        first, second = (
            Completion(instruction_id=asked.id, text=text, system=system, seed=0) for system, text in texts.items()
        )
        comparisons.append(Comparison.of(asked, first, second))
        preferred = {"w": "second", "l": "first", "-": "unjudged"}[verdict]
        said: dict[str, Any] = {"preferred": preferred, "error": "none" if verdict == "-" else None}
        preferences.append(Preference(comparison_id=comparisons[-1].id, annotator="judge", **said))
    write_records(folder / f"{step}-comparisons.jsonl", comparisons)
    write_records(folder / f"{step}-preferences.jsonl", preferences)


def picked(folder: Path, **verdicts: str) -> dict[str, object]:
    for step, given in verdicts.items():
        judged(folder / "judged", step.removeprefix("at"), given)
    (folder / "out").mkdir()
    task = Task(folder / "out", {"judged": folder / "judged"}, {"seed": 0, "judge": "judge"}, silent)
    return dict(select(task).details)


def test_the_first_of_the_best_is_picked_and_never_the_model_that_training_began_with(tmp_path: Path) -> None:
    assert picked(tmp_path, at0000="wwww", at0010="wlwl", at0020="wlll", at0030="llww")["step"] == 10


def test_where_no_checkpoint_was_judged_none_is_picked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 2 checkpoints was judged by 'judge'"):
        picked(tmp_path, at0000="wlwl", at0010="----", at0020="----")
