"""Who judges a comparison, what is shown first, and which labels are noise: drawn by content, never by position.

Every draw depends on texts and a seed alone, so it is the same in every process, in any order and for any subset of
the comparisons. Draws about a pair do not depend on which completion is called first: the comparison of B and A is
asked, and flipped, exactly as that of A and B.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pasture.core.errors import DataError
from pasture.core.records import Comparison
from pasture.core.seeds import uniform

Side = Literal["first", "second"]


class Draws(Protocol):
    """Where a pool takes its draws from."""

    @property
    def identity(self) -> Mapping[str, object]:
        """What the draws depend on, as plain JSON."""
        ...

    def annotator_for(self, comparison: Comparison, weights: Mapping[str, float]) -> str:
        """Who judges."""
        ...

    def shows_second_first(self, comparison: Comparison) -> bool:
        """In which order."""
        ...

    def noise_label(self, comparison: Comparison, probability: float) -> Side | None:
        """The noise that takes the judgement's place, if any."""
        ...

    def uniform(self, comparison: Comparison, name: str) -> float:
        """A draw from [0, 1) for everything else."""
        ...

    @property
    def chunk_size(self) -> int | None:
        """Comparisons that are put together into calls by themselves; None puts together what has equal content."""
        ...

    def places(self, count: int, batch_size: int) -> Sequence[int]:
        """In which order `count` pairs of a chunk fill the places of one judge's calls; from `count` on they are empty.

        Asked for only where there is a `chunk_size`.
        """
        ...


def other_side(side: Side) -> Side:
    """The side that `side` is not."""
    return "second" if side == "first" else "first"


def annotator_for(instruction: str, input_text: str, seed: int, weights: Mapping[str, float]) -> str:
    """The name of the annotator that judges all comparisons of one instruction, drawn in proportion to `weights`.

    Completions play no part: every system that answers an instruction meets the same annotator (common random
    numbers), as in AlpacaFarm.

    Raises:
        DataError: if `weights` is empty, has a negative or non-finite weight, or adds up to nothing.
    """
    total = math.fsum(weights.values())
    if not weights or not math.isfinite(total) or total <= 0 or min(weights.values()) < 0:
        raise DataError(f"expected annotator weights that are finite, not negative and not all 0, got {dict(weights)}.")
    mark = uniform(seed, "annotator", instruction, input_text) * total
    chosen = ""
    for name, weight in weights.items():
        if weight > 0:
            chosen = name
            mark -= weight
            if mark < 0:
                break
    return chosen


def shows_second_first(comparison: Comparison, seed: int) -> bool:
    """Whether the annotator sees the second completion first; a fair coin per pair of texts."""
    return _drawn_side(comparison, seed, "order") == "second"


def noise_label(comparison: Comparison, seed: int, probability: float) -> Side | None:
    """The label that takes the place of the judgement, or None where the annotator is asked.

    In `2 * probability` of the comparisons the label is a fair coin, so that `probability` of all labels are expected
    to differ from the judgement that was never made, or paid for. A comparison that is noise at one probability is
    noise, with the same label, at every higher one.

    Source: Dubois et al. 2023, section 3.1 and its published code, https://arxiv.org/abs/2305.14387

    Raises:
        DataError: if `probability` is not in [0, 0.5].
    """
    if not 0 <= probability <= 0.5:
        raise DataError(f"expected a label flip probability from 0 to 0.5, got {probability}.")
    if pair_uniform(comparison, seed, "label-noise") >= 2 * probability:
        return None
    return _drawn_side(comparison, seed, "label-coin")


def pair_uniform(comparison: Comparison, seed: int, name: str) -> float:
    """One draw from [0, 1) that belongs to `name`, the instruction and the two texts, whichever is called first."""
    asked = comparison.instruction
    texts = sorted((comparison.first.text, comparison.second.text))
    return uniform(seed, name, asked.instruction, asked.input, *texts)


def _drawn_side(comparison: Comparison, seed: int, name: str) -> Side:
    earlier: Side = "first" if comparison.first.text <= comparison.second.text else "second"
    return earlier if pair_uniform(comparison, seed, name) < 0.5 else other_side(earlier)


@dataclass(frozen=True)
class ContentDraws:
    """The draws of this module, with one seed."""

    seed: int = 0

    @property
    def identity(self) -> Mapping[str, object]:
        """The seed."""
        return {"draws": "content", "seed": self.seed}

    def annotator_for(self, comparison: Comparison, weights: Mapping[str, float]) -> str:
        """See `annotator_for`."""
        return annotator_for(comparison.instruction.instruction, comparison.instruction.input, self.seed, weights)

    def shows_second_first(self, comparison: Comparison) -> bool:
        """See `shows_second_first`."""
        return shows_second_first(comparison, self.seed)

    def noise_label(self, comparison: Comparison, probability: float) -> Side | None:
        """See `noise_label`."""
        return noise_label(comparison, self.seed, probability)

    def uniform(self, comparison: Comparison, name: str) -> float:
        """See `pair_uniform`."""
        return pair_uniform(comparison, self.seed, name)

    @property
    def chunk_size(self) -> int | None:
        """None: what shares a call is settled by content."""
        return None

    def places(self, count: int, batch_size: int) -> Sequence[int]:
        """As they come."""
        return range(count)
