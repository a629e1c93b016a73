"""AlpacaEval's draws, seed for seed, so that its published annotations can be repeated.

Source: alpaca_eval 0.6.6, annotators/base.py, pairwise_evaluator.py and processors.py (formulas only).
"""

import random
from collections.abc import Sequence
from typing import TypeVar

from pasture.annotate.draws import Side

T = TypeVar("T")


def annotator_for(instruction: str, seed: int, names: Sequence[str]) -> str:
    """The member of a pool that AlpacaEval asks about `instruction`."""
    return _choice(f"annotator{instruction}{seed}", names)


def shows_second_first(instruction: str, seed: int) -> bool:
    """Whether AlpacaEval shows output 2 first; the same for every pair of one instruction."""
    return _choice(f"is_switched_outputs{instruction}{seed}", (False, True))


def noise_label(instruction: str, seed: int, probability: float) -> Side | None:
    """The label that AlpacaEval puts in the judgement's place, or None where it asks its annotator."""
    options: tuple[Side | None, ...] = (None, "first", "second")
    return _choice(f"noisy_preference{instruction}{seed}", options, (1 - 2 * probability, probability, probability))


def _choice(seed: str, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    # Mersenne Twister seeded with text is what AlpacaEval draws with; nothing secret hangs on it.
    return random.Random(seed).choices(options, weights=weights, k=1)[0]  # noqa: S311
