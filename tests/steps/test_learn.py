"""Steps of training write figures that can be read again, of a single instruction too."""

import json
from pathlib import Path

import pytest

from pasture.core.files import write_records
from pasture.core.ports import silent
from pasture.core.records import Instruction
from pasture.recipe import start_folder
from pasture.steps import Task
from pasture.steps.learn import DRIFTS, drifts


@pytest.mark.parametrize(("count", "error"), [(1, None), (2, 0.0)])
def test_the_drift_on_a_single_instruction_has_no_error(tmp_path: Path, count: int, error: float | None) -> None:
    base = start_folder("meadow-base")
    for place in ("begun/model", "trained/steps/0002"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).symlink_to(base)
    instructions = [Instruction(id=str(i), instruction="say one", source="x", split="validation") for i in range(count)]
    write_records(tmp_path / "validation.jsonl", instructions)
    inputs = {"data": tmp_path, "model": tmp_path / "begun", "checkpoints": tmp_path / "trained"}
    drifts(Task(tmp_path, inputs, {"seed": 0, "template": "plain", "max_new_tokens": 4}, silent))
    rows = [json.loads(line) for line in (tmp_path / DRIFTS).read_text().splitlines()]
    assert [row["progress"] for row in rows] == [0, 2]
    # The model itself has not moved from itself, but for the rounding of float32.
    assert [row["kl"] for row in rows] == [pytest.approx(0, abs=1e-4)] * 2
    assert [row["standard_error"] for row in rows] == [error if error is None else pytest.approx(error, abs=1e-4)] * 2
