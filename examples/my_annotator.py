"""A simulated annotator of your own: it likes answers that say the words of the instruction, and errs at times.

In a recipe, for training labels, for picking a step, or for evaluation:

    [annotators.listener]
    file = "examples/my_annotator.py"

    [feedback]
    annotator = "listener"

    pasture run RECIPE --allow-code
"""

import math
from collections.abc import Sequence

from pasture.core.records import Comparison, Completion, Instruction
from pasture.core.seeds import stream

SHARPNESS = 4.0
"""Nats by which the odds of the better answer grow with each share of words."""


def prefer(comparisons: Sequence[Comparison], seed: int) -> list[str]:
    """For each comparison "first", "second" or "tie"; a probability of the first, or None, would do as well."""
    return [_verdict(comparison, seed) for comparison in comparisons]


def _verdict(comparison: Comparison, seed: int) -> str:
    gap = _said_again(comparison.instruction, comparison.first) - _said_again(comparison.instruction, comparison.second)
    if gap == 0:
        return "tie"
    chance = 1 / (1 + math.exp(-SHARPNESS * gap))  # Bradley & Terry 1952
    # The draw depends on the comparison and the seed alone, not on what else is asked.
    return "first" if stream(seed, "my annotator", comparison.id).random() < chance else "second"


def _said_again(instruction: Instruction, completion: Completion) -> float:
    asked = set(instruction.instruction.lower().split())
    return len(asked & set(completion.text.lower().split())) / len(asked)
