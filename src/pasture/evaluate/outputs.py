"""A system's answers from a file, and the comparisons that two such files make."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pasture.core.errors import DataError
from pasture.core.foreign import made
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


def read_outputs(path: Path, system: str | None = None, instructions: Path | None = None) -> SystemOutputs:
    """The answers in a file of AlpacaEval's `model_outputs` layout, or of completion records as runs leave them.

    AlpacaEval's: instruction, output, generator, dataset, input. Records name their instruction by id alone; its text
    comes from the file `instructions`, or else from the run folder that `path` lies in. Any of the formats of
    `core.tables` will do. The system's name is `system`, or the file's one generator, or the file's name. Rows are
    told apart by instruction and input.

    Raises:
        DataError: if a field is missing, an instruction comes twice or is unknown, or several systems answer.
    """
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path}: expected a system's answers, the file holds no rows.")
    if "instruction" not in rows[0] and "instruction_id" in rows[0]:
        rows = _with_instructions(rows, path, instructions)
    name = system or _generator(rows, path)
    asked, completions = [], []
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}: row {number}"
        instruction = _instruction(row, where)
        if instruction.id in seen:
            raise DataError(
                f"{path}: rows {seen[instruction.id]} and {number} answer the same instruction. {_KEEP_ONE}"
            )
        seen[instruction.id] = number
        asked.append(instruction)
        completions.append(_completion(row, instruction.id, name, where))
    return SystemOutputs(name, tuple(asked), tuple(completions))


_KEEP_ONE = "Keep one answer to each; of a run's best of n the chosen ones lie in 4-learn/best_of_n/completions.jsonl."


def _instruction(row: Row, where: str) -> Instruction:
    text, material = text_field(row, "instruction", where), text_field(row, "input", where, "")
    if not text.strip():
        raise DataError(f"{where}: the instruction is empty.")
    source = text_field(row, "dataset", where, "").strip() or "unknown"
    identity = content_id(text, material)
    return made(Instruction, where, id=identity, instruction=text, input=material, source=source, split="evaluation")


def _completion(row: Row, instruction_id: str, system: str, where: str) -> Completion:
    known = {name: row[name] for name in ("finish_reason", "token_count") if row.get(name) is not None}
    text = text_field(row, "output", where)
    return made(Completion, where, instruction_id=instruction_id, text=text, system=system, seed=0, **known)


def _with_instructions(rows: Sequence[Row], path: Path, instructions: Path | None) -> list[Row]:
    """Completion records as rows that carry their instruction's text."""
    source = instructions or _of_run(path)
    if source is None:
        raise DataError(
            f"{path} names instructions by id alone and lies in no run folder. Say with --instructions which file "
            "holds their texts, such as a run's 1-data/evaluation.jsonl."
        )
    known = {str(row.get("id")): row for row in read_rows(source)}
    unknown = [str(row.get("instruction_id")) for row in rows if str(row.get("instruction_id")) not in known]
    if unknown:
        raise DataError(
            f"{path}: {len(unknown)} of {len(rows)} answers are to instructions that {source} does not hold (first: "
            f"{unknown[0]!r}). Name their file with --instructions."
        )
    joined = []
    for number, row in enumerate(rows, start=1):
        asked = known[str(row["instruction_id"])]
        joined.append(
            {
                **row,
                "instruction": asked.get("instruction"),
                "input": asked.get("input"),
                "dataset": asked.get("source", asked.get("dataset")),
                "generator": row.get("system"),
                "output": text_field(row, "text", f"{path}: row {number}"),
            }
        )
    return joined


def _of_run(path: Path) -> Path | None:
    """The evaluation instructions of the run folder that `path` lies in, be it by a link as in the runs of a study."""
    folders = (*path.absolute().parents, *path.resolve().parents)
    places = [folder / "1-data/evaluation.jsonl" for folder in folders]
    return next((place for place in places if place.exists()), None)


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
        raise DataError(
            f"both files are by {system.system!r}. Call one of the two otherwise: by its column 'generator', or by "
            "--system of pasture generate."
        )
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
