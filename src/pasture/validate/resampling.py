"""Win rates of several systems over seeds and instructions, resampled together so that their differences are paired.

Outcomes of one system are an array "seeds instructions" of 0, 1/2 and 1, NaN where nothing was judged. Row s of every
system comes from the same seed, column i belongs to the same instruction.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pasture.core.errors import DataError
from pasture.core.seeds import stream
from pasture.core.statistics import (
    DRAWS,
    NO_ESTIMATE,
    Estimate,
    Floats,
    Interval,
    percentile_interval,
    resampled_sums,
    unseen_interval,
)


class MeanSquares(NamedTuple):
    """The mean squares of a table "seeds instructions", of the instructions that have a value for every seed."""

    mean: float
    seeds: float
    """NaN with one seed."""
    instructions: float
    """NaN with fewer than two instructions."""
    rest: float
    """NaN with one seed."""
    seed_count: int
    instruction_count: int


def mean_squares(values_SN: Floats) -> MeanSquares:
    """The two-way mean squares of `values_SN`, without replication; instructions with a NaN are left out."""
    complete = values_SN[:, np.isfinite(values_SN).all(axis=0)]
    seeds, count = complete.shape
    mean = float(complete.mean()) if count else math.nan
    if count < 2:
        return MeanSquares(mean, math.nan, math.nan, math.nan, seeds, count)
    by_instruction, by_seed = complete.mean(axis=0), complete.mean(axis=1)
    square_instructions = seeds * float(np.var(by_instruction, ddof=1))
    if seeds == 1:
        return MeanSquares(mean, math.nan, square_instructions, math.nan, seeds, count)
    rest = complete - by_seed[:, None] - by_instruction[None, :] + mean
    square_rest = float((rest * rest).sum()) / ((seeds - 1) * (count - 1))
    square_seeds = count * float(np.var(by_seed, ddof=1))
    return MeanSquares(mean, square_seeds, square_instructions, square_rest, seeds, count)


class SeedSquares(NamedTuple):
    """Mean squares of seeds and of what is left, from several systems together."""

    seeds: float
    rest: float
    degrees: float
    """Of freedom, of the mean square of seeds."""


class CrossedMean(NamedTuple):
    """A mean over seeds and instructions, and what is known of its error when both are a sample of many."""

    mean: float
    variance: float
    """Of the mean; NaN with fewer than two instructions."""
    degrees: float
    """Of freedom, for Student's t."""
    seed_variance: float
    """Of the mean over all instructions from seed to seed; 0 with a single seed, of which nothing can be said."""


def crossed_mean(found: MeanSquares, shared: SeedSquares | None = None) -> CrossedMean:
    """The mean with the variance that seeds and instructions, both drawn at random, give it.

    Two crossed random effects: with mean squares MS, the variance of the mean is (MS_seeds + MS_instructions - MS_rest)
    / (S N), its degrees of freedom are Satterthwaite's. One seed makes it the variance of the paired t-test. A few
    seeds tell little of their own spread; `shared` brings that of several systems, taken to be alike in it.

    Source: Searle, Casella and McCulloch 1992, Variance Components, section 4.3; Satterthwaite 1946,
    https://doi.org/10.2307/3002019
    """
    seeds, count = found.seed_count, found.instruction_count
    if count < 2:
        return CrossedMean(found.mean, math.nan, math.nan, 0.0)
    if seeds == 1:
        return CrossedMean(found.mean, found.instructions / count, count - 1.0, 0.0)
    spread = shared or SeedSquares(found.seeds, found.rest, seeds - 1.0)
    # The estimate by moments can fall below what the instructions alone explain; seeds then add nothing.
    excess = max(0.0, spread.seeds - spread.rest)
    total = found.instructions + excess
    parts = found.instructions**2 / (count - 1) + spread.seeds**2 / spread.degrees
    parts += spread.rest**2 / (spread.degrees * (count - 1))
    return CrossedMean(found.mean, total / (seeds * count), total**2 / parts if total > 0 else 1.0, excess / count)


@dataclass(frozen=True, eq=False)
class Rates:
    """Win rates of K systems and their joint bootstrap draws."""

    value: Floats
    """Shape (K,); the mean over all judged outcomes."""
    drawn: Floats
    """Shape (draws, K)."""
    judged: Floats
    """Shape (K,); how many outcomes were judged."""
    instruction_count: int

    def half(self, systems: slice) -> "Rates":
        """The rates of some of the systems, their draws still joint."""
        return Rates(self.value[systems], self.drawn[:, systems], self.judged[systems], self.instruction_count)

    def estimate(self, number: int) -> Estimate:
        """The rate of one system with its error and interval."""
        value, drawn = float(self.value[number]), self.drawn[:, number]
        if math.isnan(value):
            return NO_ESTIMATE
        if np.nanmax(drawn) == np.nanmin(drawn):
            return Estimate(value, 0.0, unseen_interval(value, self.instruction_count))
        low, high = percentile_interval(drawn, self.instruction_count)
        return Estimate(value, float(np.nanstd(drawn, ddof=1)), Interval(max(0.0, low), min(1.0, high)))


def resampled_rates(outcomes: Sequence[Floats], seed: int, name: str, draws: int = DRAWS) -> Rates:
    """The win rate of every system, with draws that resample instructions and seeds for all systems together.

    Instructions are resampled with all their seeds. What seeds add is drawn on top: S - 1 of the S seeds' deviations,
    shrunk to the variance that instructions do not explain, so that the variance of a draw is the crossed one of
    `crossed_mean`. (To resample both at once would count the noise of single judgements three times.) Calls with the
    same `seed`, `name` and number of instructions draw the same instructions; all calls draw the same seeds.

    Raises:
        DataError: if the arrays do not share their instructions, or have neither one seed nor the same number.

    Source: Rao and Wu 1988 for S - 1, https://doi.org/10.1080/01621459.1988.10478591; Owen 2007 for the threefold
    count, https://doi.org/10.1214/07-AOAS122
    """
    seeds = _common_seed_count(outcomes)
    credit = np.column_stack([np.nansum(array, axis=0) for array in outcomes])
    judged = np.column_stack([np.isfinite(array).sum(axis=0) for array in outcomes]).astype(np.float64)
    columns = np.hstack([credit, judged])
    sums = resampled_sums(columns, stream(seed, "validate", "instructions", name), draws)
    size = len(outcomes)
    with np.errstate(invalid="ignore"):
        value: Floats = credit.sum(axis=0) / judged.sum(axis=0)
        drawn: Floats = sums[:, :size] / sums[:, size:]
    if seeds > 1:
        picks = stream(seed, "validate", "seeds").integers(0, seeds, size=(draws, seeds - 1))
        for number, array in enumerate(outcomes):
            if len(array) > 1:
                drawn[:, number] += _seed_deviations(array)[picks].mean(axis=1)
    return Rates(value, drawn, judged.sum(axis=0), len(columns))


def _common_seed_count(outcomes: Sequence[Floats]) -> int:
    if not outcomes:
        raise DataError("no system to compare: expected outcomes of at least one.")
    widths = sorted({array.shape[1] for array in outcomes})
    if len(widths) > 1:
        raise DataError(
            f"all systems must be judged on the same instructions, one column each; got arrays of {widths} columns. "
            "Leave NaN where a system was not judged."
        )
    counts = sorted({len(array) for array in outcomes} - {1})
    if len(counts) > 1:
        raise DataError(f"systems must have one seed or all the same number of seeds; got {counts}.")
    return counts[0] if counts else 1


def _seed_deviations(values_SN: Floats) -> Floats:
    """Each seed's rate less the mean of all, shrunk to the variance between seeds that instructions do not explain."""
    with np.errstate(invalid="ignore"):
        by_seed = np.nansum(values_SN, axis=1) / np.isfinite(values_SN).sum(axis=1)
    deviation: Floats = by_seed - np.nanmean(by_seed)
    spread = float(np.nanvar(by_seed, ddof=1))
    if not spread > 0:
        return np.zeros(len(values_SN))
    shrunk = math.sqrt(min(1.0, crossed_mean(mean_squares(values_SN)).seed_variance / spread))
    return np.nan_to_num(deviation * shrunk)


def correlation_interval(value: float, draws: Floats, cluster_count: int) -> Interval:
    """The interval of a correlation, at most 1, between figures that are each measured with noise.

    Noise lowers a correlation, and resampling adds noise to what is noisy already: draws lie below the value, which
    lies below the truth. The lower bound is the percentile's, with that caution in it. The upper bound is the
    percentile's or its mirror image about the value, whichever is higher, so that a perfect agreement is not ruled
    out. In simulations of ten and twelve systems 95% intervals held the truth in 93 to 98 of 100 cases (percentile:
    46 to 96; bias-corrected: 69 to 87); docs/studies.md has the table.
    """
    low, high = percentile_interval(draws, cluster_count)
    return Interval(min(low, value), max(value, min(1.0, max(high, 2 * value - low))))
