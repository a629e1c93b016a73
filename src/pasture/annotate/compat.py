"""AlpacaEval's draws, seed for seed, so that its published annotations can be repeated.

Source: alpaca_eval 0.6.6, annotators/base.py, pairwise_evaluator.py and processors.py (formulas only).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pasture.annotate.draws import Side, pair_uniform
from pasture.core.errors import DataError
from pasture.core.records import Comparison

T = TypeVar("T")


def annotator_for(instruction: str, seed: int, names: Sequence[str]) -> str:
    """The member of a pool that AlpacaEval asks about `instruction`."""
    return _choice(f"annotator{instruction}{seed}", names)


def shows_second_first(instruction: str, seed: int) -> bool:
    """Whether AlpacaEval shows output 2 first; the same for every pair of one instruction."""
    return _choice(f"is_switched_outputs{instruction}{seed}", (False, True))


def noise_label(instruction: str, seed: int, probability: float) -> Side | None:
    """The label that AlpacaEval puts in the judgement's place, or None where it asks its annotator.

    Raises:
        DataError: if `probability` is not in [0, 0.5].
    """
    if not 0 <= probability <= 0.5:
        raise DataError(f"expected a label flip probability from 0 to 0.5, got {probability}.")
    options: tuple[Side | None, ...] = (None, "first", "second")
    return _choice(f"noisy_preference{instruction}{seed}", options, (1 - 2 * probability, probability, probability))


def _choice(seed: str, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    # Mersenne Twister seeded with text is what AlpacaEval draws with; nothing secret hangs on it.
    return random.Random(seed).choices(options, weights=weights, k=1)[0]  # noqa: S311


@dataclass(frozen=True)
class AlpacaEvalDraws:
    """AlpacaEval's draws in the place of Pasture's, with one seed."""

    seed: int = 0
    order_columns: tuple[str, ...] = ("instruction",)
    """The columns that the order is drawn from (`random_seed_column` of its configs); the others never change."""
    columns: tuple[str, ...] = ("instruction",)
    """The columns that annotators and noise are drawn from: AlpacaFarm's pool took instruction and input."""

    chunk_size: int = 128
    """Rows that AlpacaEval's annotators are given at a time."""

    @property
    def identity(self) -> Mapping[str, object]:
        """The seed and the columns."""
        columns = {"order_columns": list(self.order_columns), "columns": list(self.columns)}
        return {"draws": "alpaca_eval", "seed": self.seed, **columns, "chunk_size": self.chunk_size}

    def annotator_for(self, comparison: Comparison, weights: Mapping[str, float]) -> str:
        """One of the pool, all equally likely: AlpacaEval knows no weights."""
        return annotator_for(_text(comparison, self.columns), self.seed, list(weights))

    def shows_second_first(self, comparison: Comparison) -> bool:
        """See `shows_second_first`."""
        return shows_second_first(_text(comparison, self.order_columns), self.seed)

    def noise_label(self, comparison: Comparison, probability: float) -> Side | None:
        """See `noise_label`."""
        return noise_label(_text(comparison, self.columns), self.seed, probability)

    def places(self, count: int, batch_size: int) -> Sequence[int]:
        """See `places`."""
        return places(count, batch_size, self.seed)

    def uniform(self, comparison: Comparison, name: str) -> float:
        """Pasture's own draw: AlpacaEval has no noise that needs one."""
        return pair_uniform(comparison, self.seed, name)


def places(count: int, batch_size: int, seed: int) -> Sequence[int]:
    """The order in which AlpacaEval puts `count` rows and what pads them to whole batches into a judge's calls.

    It pads first and shuffles then, `df.sample(frac=1, random_state=seed)`, so that padding lies anywhere.
    """
    return [int(place) for place in np.random.RandomState(seed).permutation(count + -count % batch_size)]


def _text(comparison: Comparison, columns: Sequence[str]) -> str:
    known = {
        "instruction": comparison.instruction.instruction,
        "input": comparison.instruction.input,
        "output_1": comparison.first.text,
        "output_2": comparison.second.text,
    }
    try:
        return "".join(known[column] for column in columns)
    except KeyError as error:
        raise DataError(f"draws from column {error.args[0]!r} are not known. Columns: {', '.join(known)}.") from error
