"""Completions of the same instruction side by side, to be judged."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pasture.core.errors import DataError
from pasture.core.records import Comparison, Completion, Instruction


def sample_pairs(instructions: Sequence[Instruction], completions: Iterable[Completion]) -> list[Comparison]:
    """One comparison per instruction: its completions with the two lowest seeds, in that order.

    Raises:
        DataError: if an instruction has fewer than two completions.
    """
    by_instruction: dict[str, list[Completion]] = defaultdict(list)
    for completion in completions:
        by_instruction[completion.instruction_id].append(completion)
    comparisons = []
    for instruction in instructions:
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
        DataError: if an instruction lacks a reference or an answer, or an answer belongs to no instruction.
    """
    known = {instruction.id: instruction for instruction in instructions}
    references = {completion.instruction_id: completion for completion in reference}
    comparisons = []
    answered = set()
    for answer in answers:
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
