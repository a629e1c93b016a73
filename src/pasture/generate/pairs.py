"""Completions of the same instruction side by side, to be judged."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pasture.core.errors import DataError
from pasture.core.records import Comparison, Completion, Instruction, Record

R = TypeVar("R", bound=Record)


def sample_pairs(instructions: Sequence[Instruction], completions: Iterable[Completion]) -> list[Comparison]:
    """One comparison per instruction: its completions with the two lowest seeds, in that order.

    Raises:
        DataError: if an instruction has fewer than two completions, or what is given are other things than those.
    """
    asked = _records(instructions, Instruction)
    by_instruction: dict[str, list[Completion]] = defaultdict(list)
    for completion in _records(completions, Completion):
        by_instruction[completion.instruction_id].append(completion)
    comparisons = []
    for instruction in asked:
        found = sorted(by_instruction[instruction.id], key=lambda completion: completion.seed)
        if len(found) < 2:
            raise DataError(f"instruction {instruction.id!r} has {len(found)} completions; a comparison needs two.")
        comparisons.append(Comparison.of(instruction, found[0], found[1]))
    return comparisons


def against_reference(
    instructions: Sequence[Instruction], reference: Iterable[Completion], answers: Iterable[Completion]
) -> list[Comparison]:
    """One comparison per answer: the reference's completion first, the system's second.

    Raises:
        DataError: if an instruction lacks a reference or an answer, an answer belongs to no instruction, or what is
            given are other things than those, such as texts.
    """
    known = {instruction.id: instruction for instruction in _records(instructions, Instruction)}
    references = {completion.instruction_id: completion for completion in _records(reference, Completion)}
    comparisons = []
    answered = set()
    for answer in _records(answers, Completion):
        if answer.instruction_id not in known:
            raise DataError(
                f"{answer.system!r} answers {answer.instruction_id!r}, which is no instruction of this set."
            )
        if answer.instruction_id not in references:
            raise DataError(f"the reference has no completion for instruction {answer.instruction_id!r}.")
        answered.add(answer.instruction_id)
        comparisons.append(Comparison.of(known[answer.instruction_id], references[answer.instruction_id], answer))
    missing = [instruction.id for instruction in instructions if instruction.id not in answered]
    if missing:
        raise DataError(f"{len(missing)} of {len(instructions)} instructions have no answer (first: {missing[0]!r}).")
    return comparisons


def _records(given: Iterable[R], kind: type[R]) -> list[R]:
    """What is given, as a list.

    Raises:
        DataError: at the first that is no record of this kind.
    """
    records = list(given)
    other = next((one for one in records if not isinstance(one, kind)), None)
    if other is not None:
        example = "Completion(instruction_id=instruction.id, text='...', system='mine', seed=0)"
        advice = f" A text becomes one by {example}." if kind is Completion else ""
        raise DataError(f"expected records of the kind {kind.__name__}, got {other!r:.60}.{advice}")
    return records
