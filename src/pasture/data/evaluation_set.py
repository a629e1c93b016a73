"""Instructions to evaluate on, from a local file of any common format."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pasture.core.errors import DataError
from pasture.core.foreign import made
from pasture.core.records import Instruction, content_id
from pasture.core.tables import Row, read_rows, text_field
from pasture.data.hub import data_files

ALPACA_FARM_SOURCES: Mapping[str, int] = {
    "selfinstruct": 252,
    "oasst": 188,
    "koala": 156,
    "helpful_base": 129,
    "vicuna": 80,
}
"""The 805 instructions of AlpacaFarm and AlpacaEval by source (Dubois et al. 2023, section 4.1)."""

ALPACA_EVAL_CHECKSUM = "873a092f1340bd10cc1b7962f0ceebf3a8db9d1d056fe41f1ba08f906604b8a0"
"""`EvaluationSet.checksum` of AlpacaEval's 805, whose inputs are merged into the instructions."""


@dataclass(frozen=True)
class InstructionColumns:
    """Which columns of a file hold what; the defaults are AlpacaFarm's."""

    instruction: str = "instruction"
    material: str = "input"
    source: str = "dataset"


@dataclass(frozen=True)
class EvaluationSet:
    """Instructions, counted and summed."""

    instructions: tuple[Instruction, ...]
    sources: Mapping[str, int]
    """Instructions by source."""
    checksum: str
    """SHA-256 of the sorted texts: the same set in another order or file format has the same."""


def load_evaluation_set(name: str | Path, columns: InstructionColumns | None = None) -> EvaluationSet:
    """The instructions of a file, a folder or a data set of the hub, in order; columns not named are left out.

    A data set of the hub is `hub:ORG/NAME/FILES@REVISION`, such as `hub:tatsu-lab/alpaca_eval/alpaca_eval.json`; see
    `data.hub`. Ids come from the texts. A row without a source gets the file's name as its source.

    Raises:
        DataError: if nothing can be read, a row has no instruction, or two rows are the same.
        DependencyError: for the hub where huggingface_hub is not installed.
    """
    instructions = read_instructions(name, columns)
    seen: dict[str, int] = {}
    for number, instruction in enumerate(instructions, start=1):
        if instruction.id in seen:
            raise DataError(
                f"{name}: rows {seen[instruction.id]} and {number} hold the same instruction. Remove one, or it "
                "counts twice in every rate."
            )
        seen[instruction.id] = number
    counted = Counter(instruction.source for instruction in instructions)
    return EvaluationSet(tuple(instructions), dict(counted.most_common()), _checksum(instructions))


def read_instructions(
    name: str | Path, columns: InstructionColumns | None = None, split: str = "evaluation"
) -> list[Instruction]:
    """The instructions of a file, a folder or a data set of the hub, in order, repeated ones included.

    Raises:
        DataError: if nothing can be read, or a row has no instruction.
        DependencyError: for the hub where huggingface_hub is not installed.
    """
    names = columns or InstructionColumns()
    instructions = []
    for path in data_files(str(name)):
        rows = read_rows(path)
        if not rows:
            raise DataError(f"{path}: expected instructions, the file holds no rows.")
        instructions += [
            _instruction(row, names, f"{path}: row {number}", path, split) for number, row in enumerate(rows, start=1)
        ]
    return instructions


def require_alpaca_farm(evaluation: EvaluationSet) -> None:
    """Check that a set is the 805 of AlpacaFarm, source by source.

    Raises:
        DataError: saying which sources differ.
    """
    wrong = [
        f"{source} {evaluation.sources.get(source, 0)} instead of {count}"
        for source, count in ALPACA_FARM_SOURCES.items()
        if evaluation.sources.get(source, 0) != count
    ]
    wrong += [f"{source} is none of its sources" for source in evaluation.sources if source not in ALPACA_FARM_SOURCES]
    if wrong:
        raise DataError(f"not the 805 instructions of AlpacaFarm: {', '.join(wrong[:5])}.")


def _instruction(row: Row, names: InstructionColumns, where: str, path: Path, split: str) -> Instruction:
    text = text_field(row, names.instruction, where)
    if not text.strip():
        raise DataError(f"{where}: the instruction under {names.instruction!r} is empty.")
    material = text_field(row, names.material, where, "")
    source = text_field(row, names.source, where, "").strip() or path.name.split(".")[0] or "file"
    identity = content_id(text, material)
    return made(Instruction, where, id=identity, instruction=text, input=material, source=source, split=split)


def _checksum(instructions: list[Instruction]) -> str:
    texts = sorted(json.dumps([item.instruction, item.input]) for item in instructions)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
