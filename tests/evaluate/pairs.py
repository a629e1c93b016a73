"""Small comparisons and preferences for the tests of this folder."""

import numpy as np
from numpy.typing import ArrayLike

from pasture.annotate.pool import of_both_orders
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.evaluate.outcomes import Outcomes


def compare(
    number: int, *, system: str = "new", reference: str = "old", texts: tuple[str, str] = ("old text", "new text")
) -> Comparison:
    """The reference first and the system second, on instruction `number`."""
    instruction = Instruction(
        id=f"i{number}", instruction=f"Do {number}.", source="even" if number % 2 == 0 else "odd", split="eval"
    )
    old = Completion(instruction_id=instruction.id, text=texts[0], system=reference, seed=0)
    new = Completion(instruction_id=instruction.id, text=texts[1], system=system, seed=0)
    return Comparison.of(instruction, old, new)


def prefer(comparison: Comparison, verdict: str, **more: object) -> Preference:
    """What judge "j" says of `comparison`."""
    error = "no verdict" if verdict == "unjudged" else None
    return Preference.model_validate(
        {"comparison_id": comparison.id, "annotator": "j", "preferred": verdict, "error": error, **more}
    )


def prefer_in_both_orders(
    comparison: Comparison, verdicts: tuple[str, str], probabilities: tuple[float, float] | None = None
) -> Preference:
    """What a pool makes of the two verdicts of judge "j", the first with the first completion shown first.

    Probabilities are those of the first completion.
    """
    first, second = (
        prefer(comparison, verdict, shown_first=side, **({"probability_first": value} if probabilities else {}))
        for verdict, side, value in zip(verdicts, ("first", "second"), probabilities or (0, 0), strict=True)
    )
    return of_both_orders(first, second)


def outcomes(
    credit: ArrayLike,
    *,
    system: str = "new",
    instruction: ArrayLike | None = None,
    lengths: tuple[ArrayLike, ArrayLike] | None = None,
    judge: str = "j",
) -> Outcomes:
    """Outcomes with the given credit, an instruction each unless they are named, lengths (system, reference) or 1."""
    credit = np.asarray(credit, dtype=np.float64)
    count = len(credit)
    names = [f"i{number}" for number in range(count)] if instruction is None else instruction
    own, other = lengths or (np.ones(count), np.ones(count))
    return Outcomes(
        system=system,
        reference="old",
        judge=judge,
        instruction=np.array(names),
        source=np.array(["s"] * count),
        credit=credit,
        shown_first=np.arange(count) % 2 == 0,
        system_length=np.array(own, dtype=np.float64),
        reference_length=np.array(other, dtype=np.float64),
        system_list=np.zeros(count, dtype=np.bool_),
        reference_list=np.zeros(count, dtype=np.bool_),
    )
