"""Answers of the meadow's systems, recorded from a finished run: what `pasture demo` judges without a model at hand."""

import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pasture.core.errors import DataError
from pasture.core.files import atomic_file, read_records
from pasture.core.records import Comparison, Completion, Instruction
from pasture.core.tables import Row, read_rows

SHIPPED = Path(__file__).with_name("recorded_answers") / "meadow.jsonl.gz"
"""Written by `recipes/meadow/record_answers.py` from a run of `recipes/meadow/loop.toml`."""


@dataclass(frozen=True)
class RecordedAnswers:
    """The evaluation instructions, what the reference answered, and what each system did."""

    instructions: tuple[Instruction, ...]
    reference: tuple[Completion, ...]
    systems: dict[str, tuple[Completion, ...]]

    def comparisons(self, system: str) -> list[Comparison]:
        """The system's answers beside the reference's, reference first, as in a run."""
        rows = zip(self.instructions, self.reference, self.systems[system], strict=True)
        return [Comparison.of(*row) for row in rows]


def read_recorded(path: Path = SHIPPED) -> RecordedAnswers:
    """The recorded answers of a file that `record` wrote.

    Raises:
        DataError: if the file is damaged, or a row lacks a system that the first one has.
    """
    rows = read_rows(path)
    try:
        instructions = tuple(Instruction.model_validate(row["instruction"]) for row in rows)
        names = list(_answers(rows[0]))
        columns = {
            name: tuple(
                Completion.model_validate({**_answers(row)[name], "instruction_id": one.id, "system": name, "seed": 0})
                for row, one in zip(rows, instructions, strict=True)
            )
            for name in names
        }
    except (KeyError, IndexError, TypeError, ValidationError) as error:
        raise DataError(f"{path}: not a file of recorded answers ({type(error).__name__}: {error}).") from error
    reference, *systems = names
    return RecordedAnswers(instructions, columns[reference], {name: columns[name] for name in systems})


def _answers(row: Row) -> dict[str, dict[str, object]]:
    answers = row["answers"]
    if not isinstance(answers, dict) or len(answers) < 2:
        raise TypeError("'answers' must hold the reference's and one system's")
    return answers


def record(run: Path, path: Path) -> int:
    """Write the evaluation answers of a finished run to `path`, gzipped; the number of systems comes back.

    Equal runs give equal bytes.

    Raises:
        DataError: if the run holds no judged answers.
    """
    instructions = read_records(run / "1-data/evaluation.jsonl", Instruction)
    folders = sorted((run / "3-annotate/evaluation").glob("*/comparisons.jsonl"))
    if not folders:
        raise DataError(f"{run}: no answers under 3-annotate/evaluation. Finish the run first: pasture run RECIPE.")
    answers: dict[str, dict[str, dict[str, object]]] = {one.id: {} for one in instructions}
    for number, file in enumerate(folders):
        for comparison in read_records(file, Comparison):
            own = answers[comparison.instruction.id]
            if number == 0:
                own[comparison.first.system] = _shortened(comparison.first)
            own[comparison.second.system] = _shortened(comparison.second)
    _write(path, [{"instruction": json.loads(one.to_json()), "answers": answers[one.id]} for one in instructions])
    return len(folders)


def _shortened(completion: Completion) -> dict[str, object]:
    return {"text": completion.text, "finish_reason": completion.finish_reason, "token_count": completion.token_count}


def _write(path: Path, rows: Sequence[Row]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    packed = io.BytesIO()
    # No name and no time in the header, so that equal rows are equal bytes.
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.write(lines.encode())
    with atomic_file(path) as draft:
        draft.write_bytes(packed.getvalue())
