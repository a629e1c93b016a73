"""Whether instructions that a model is judged on were also trained on, word for word or nearly so."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pasture.core.errors import LeakError
from pasture.core.hostile import on_one_line, shortened
from pasture.core.records import Instruction

NEARLY_SAME = 0.7
"""Share of word triples in common (Jaccard) from which two instructions are taken for one."""

_SHOWN_CHARACTERS = 60
"""Of an instruction in an error."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """An evaluation instruction and the most similar one that was trained on."""

    evaluation_id: str
    training_id: str
    training_split: str
    similarity: float
    """1 where both hold the same words in the same order, or repeat themselves by the same triples of words; case,
    punctuation and spaces do not count."""


def find_overlaps(
    training: Sequence[Instruction], evaluation: Sequence[Instruction], threshold: float = NEARLY_SAME
) -> list[Overlap]:
    """The evaluation instructions with a near duplicate in `training`, each with its nearest, in order.

    Instruction and input are compared together, by the triples of words they hold; texts of fewer than three words
    count as one piece. Time grows with the words read, not with the number of pairs.
    """
    pieces = [_pieces(instruction) for instruction in evaluation]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, held in enumerate(pieces):
        for piece in held:
            holders[piece].append(number)
    nearest: dict[int, Overlap] = {}
    for candidate in training:
        own = _pieces(candidate)
        shared = Counter(number for piece in own for number in holders.get(piece, ()))
        for number, count in shared.items():
            similarity = count / (len(own) + len(pieces[number]) - count)
            if similarity >= threshold and (number not in nearest or similarity > nearest[number].similarity):
                nearest[number] = Overlap(evaluation[number].id, candidate.id, candidate.split, similarity)
    return [nearest[number] for number in sorted(nearest)]


def require_no_overlap(
    training: Sequence[Instruction],
    evaluation: Sequence[Instruction],
    *,
    threshold: float = NEARLY_SAME,
    allow: bool = False,
    repair: str = 'set data.leaks to "leave_out" or "allow"',
) -> list[Overlap]:
    """The overlaps, for the report; unless they are allowed there are none. `repair` says how to allow them.

    Raises:
        LeakError: naming how many, and how the first begins, if there are any and `allow` is not set.
    """
    overlaps = find_overlaps(training, evaluation, threshold)
    if overlaps and not allow:
        first = overlaps[0]
        trained = {(one.split, one.id): one for one in training}[first.training_split, first.training_id]
        judged = {one.id: one for one in evaluation}[first.evaluation_id]
        splits = ", ".join(sorted({repr(overlap.training_split) for overlap in overlaps}))
        raise LeakError(
            f"{len(overlaps)} of {len(evaluation)} evaluation instructions are also in split {splits} "
            f"(first: {_beginning(trained)}, is {first.similarity:.0%} the same as {_beginning(judged)}). "
            f"Remove them, or {repair}."
        )
    return overlaps


def _beginning(instruction: Instruction) -> str:
    """Which instruction it is, for somebody who does not know ids by heart."""
    text = shortened(on_one_line(instruction.instruction), _SHOWN_CHARACTERS)
    return f"{on_one_line(instruction.id)}, {text!r}"


def require_no_leak(
    source: str, training: Mapping[str, Sequence[Instruction]], evaluation: Sequence[Instruction]
) -> None:
    """Refuse overlaps of a run's training splits, by name, with what it evaluates on.

    Raises:
        LeakError: as `require_no_overlap`.
    """
    require_no_overlap(_together(training), evaluation, threshold=_threshold(source))


def leaking_ids(
    source: str, training: Mapping[str, Sequence[Instruction]], evaluation: Sequence[Instruction]
) -> set[str]:
    """The ids of all instructions in the splits `training` that are nearly one in `evaluation`."""
    return {overlap.evaluation_id for overlap in find_overlaps(evaluation, _together(training), _threshold(source))}


def _together(splits: Mapping[str, Sequence[Instruction]]) -> list[Instruction]:
    return [one for instructions in splits.values() for one in instructions]


def _threshold(source: str) -> float:
    """From where on two instructions of `source` are one.

    The meadow writes by a grammar: texts that share most of their words are other tasks there, so only those with all
    triples of words in common count. Elsewhere near duplicates do.
    """
    return 1.0 if source == "meadow" else NEARLY_SAME


def _pieces(instruction: Instruction) -> set[tuple[str, ...]]:
    words = _WORD.findall(f"{instruction.instruction} {instruction.input}".casefold())
    if len(words) < 3:
        # A text of symbols alone has no words: it stands for itself.
        return {tuple(words) or (instruction.instruction, instruction.input)}
    return set(zip(words, words[1:], words[2:], strict=False))
