"""Systems that are not made here: their answers lie where a model's would, in the order of the split."""

import json
from pathlib import Path

import pytest

from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records
from pasture.core.ports import silent
from pasture.core.records import Completion, Instruction
from pasture.steps import Task
from pasture.steps.given import from_file, written
from pasture.world.meadow import evaluation_set
from pasture.world.reading import read


def task_on(folder: Path, asked: list[Instruction], **settings: object) -> Task:
    (folder / "data").mkdir()
    (folder / "step").mkdir()
    write_records(folder / "data" / "evaluation.jsonl", asked)
    told = {"system": "given", "split": "evaluation", **settings}
    return Task(folder / "step", {"data": folder / "data"}, told, silent)


def answers_in(folder: Path) -> list[Completion]:
    return read_records(folder / "step" / "completions.jsonl", Completion)


def test_a_file_may_be_in_any_order_and_hold_more(tmp_path: Path) -> None:
    asked = evaluation_set(4)
    rows = [{"instruction": one.instruction, "input": one.input, "output": f"to {one.id}"} for one in asked]
    rows.append({"instruction": "nobody asked", "output": "this"})
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(rows[::-1]))
    from_file(task_on(tmp_path, asked, file=str(file)))
    assert [(one.instruction_id, one.text, one.system) for one in answers_in(tmp_path)] == [
        (one.id, f"to {one.id}", "given") for one in asked
    ]


def test_an_instruction_without_an_answer_is_named(tmp_path: Path) -> None:
    asked = evaluation_set(3)
    file = tmp_path / "answers.jsonl"
    row = {"instruction": asked[0].instruction, "input": asked[0].input, "output": "one"}
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"no answer of 'given' to 2 of 3 instructions of the evaluation set"):
        from_file(task_on(tmp_path, asked, file=str(file)))
    assert not (tmp_path / "step" / "completions.jsonl").exists()


def test_writers_are_as_good_as_they_say(tmp_path: Path) -> None:
    """Share of right answers: by their styles 0.97, 0.5 and 0.6, a description being right whatever it says."""
    asked = evaluation_set(600)
    right = {}
    for writer in ("careful", "hasty", "found"):
        folder = tmp_path / writer
        folder.mkdir()
        written(task_on(folder, asked, writer=writer, seed=0))
        answers = answers_in(folder)
        assert [one.instruction_id for one in answers] == [one.id for one in asked]
        readings = [
            read(one.instruction, one.input, answer.text, answer.finish_reason)
            for one, answer in zip(asked, answers, strict=True)
        ]
        right[writer] = sum(reading.right == 1 for reading in readings) / len(asked)
    assert right["careful"] > 0.9
    assert 0.4 < right["hasty"] < 0.7
    assert right["found"] < right["careful"] - 0.2
