"""A system's answers from a file, and the comparisons that two such files make."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pasture.core.errors import DataError
from pasture.core.records import Comparison, Completion, Instruction, content_id
from pasture.core.tables import Row, read_rows, text_field


@dataclass(frozen=True)
class SystemOutputs:
    """One answer of a system to each of its instructions, in the order of its file."""

    system: str
    instructions: tuple[Instruction, ...]
    completions: tuple[Completion, ...]


@dataclass(frozen=True)
class Pairing:
    """The comparisons of a system with a reference, and what could not be compared."""

    comparisons: tuple[Comparison, ...]
    only_system: int
    """Instructions that the system alone answered."""
    only_reference: int


def read_outputs(path: Path, system: str | None = None) -> SystemOutputs:
    """The answers in a file of AlpacaEval's `model_outputs` layout: instruction, output, generator, dataset, input.

    Any of the formats of `core.tables` will do. The system's name is `system`, or the file's one generator, or the
    file's name. Rows are told apart by instruction and input.

    Raises:
        DataError: if a field is missing, an instruction comes twice, or the file names several generators.
    """
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path}: expected a system's answers, the file holds no rows.")
    name = system or _generator(rows, path)
    instructions, completions = [], []
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}: row {number}"
        text, material = text_field(row, "instruction", where), text_field(row, "input", where, "")
        identity = content_id(text, material)
        if not text.strip():
            raise DataError(f"{where}: the instruction is empty.")
        if identity in seen:
            raise DataError(f"{path}: rows {seen[identity]} and {number} answer the same instruction. Keep one.")
        seen[identity] = number
        source = text_field(row, "dataset", where, "").strip() or "unknown"
        instructions.append(
            Instruction(id=identity, instruction=text, input=material, source=source, split="evaluation")
        )
        output = text_field(row, "output", where)
        completions.append(Completion(instruction_id=identity, text=output, system=name, seed=0))
    return SystemOutputs(name, tuple(instructions), tuple(completions))


def _generator(rows: Sequence[Row], path: Path) -> str:
    names = sorted({str(row["generator"]) for row in rows if row.get("generator") not in (None, "")})
    if len(names) > 1:
        raise DataError(f"{path}: expected one generator, found {len(names)}: {names[:5]}. Split the file, or name it.")
    return names[0] if names else path.name.split(".")[0] or "system"


def pair_outputs(system: SystemOutputs, reference: SystemOutputs) -> Pairing:
    """The comparisons on all instructions that both answered, reference first, in the reference's order.

    Raises:
        DataError: if they share no instruction, or carry one name.
    """
    if system.system == reference.system:
        raise DataError(f"both files are by {system.system!r}. Give one of them another name.")
    answers = {completion.instruction_id: completion for completion in system.completions}
    comparisons = [
        Comparison.of(instruction, theirs, answers[instruction.id])
        for instruction, theirs in zip(reference.instructions, reference.completions, strict=True)
        if instruction.id in answers
    ]
    if not comparisons:
        raise DataError(
            f"{system.system!r} and {reference.system!r} answered no instruction in common, of "
            f"{len(system.instructions)} and {len(reference.instructions)}. Texts must be the same to the letter."
        )
    return Pairing(
        tuple(comparisons), len(system.instructions) - len(comparisons), len(reference.instructions) - len(comparisons)
    )
