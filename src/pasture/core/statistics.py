"""Means with errors: standard errors, bootstrap intervals clustered on instructions, paired tests, correlations.

Every interval here resamples whole clusters, because several judgements of one instruction are no independent
witnesses. Randomness comes in as a generator, so that a table can be made again to the last digit.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

DRAWS = 2000
"""Bootstrap draws of an interval: at this number a bound of a 95% interval moves by about 3% of the interval's width
when the seed changes."""
LEVEL = 0.95
ALIKE = 1e-12
"""Difference of two credits, or of means of them, up to which they are the same: three of 0.7 have another mean than
one in the last digit of a float."""
_CELLS = 4_000_000


class Interval(NamedTuple):
    """A range that holds the truth in the stated share of repetitions."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A figure, its bootstrap standard error and its interval."""

    value: float
    standard_error: float
    interval: Interval


NO_ESTIMATE = Estimate(math.nan, math.nan, Interval(math.nan, math.nan))
"""What is known where nothing was measured."""


def standard_error_of_mean(values: Floats) -> float:
    """Sample standard deviation (n - 1) over the square root of n; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def group_sums(codes: Codes, values: Floats, group_count: int) -> tuple[Floats, Floats]:
    """Sum of `values` and number of entries for each code in [0, group_count)."""
    sums = np.bincount(codes, weights=values, minlength=group_count).astype(np.float64)
    return sums, np.bincount(codes, minlength=group_count).astype(np.float64)


def resampled_sums(columns_NK: Floats, generator: np.random.Generator, draws: int = DRAWS) -> Floats:
    """Column sums over `draws` resamples of the N rows with replacement, shape (draws, K).

    All columns share a resample, so that differences between them are paired.
    """
    row_count = len(columns_NK)
    sums = np.empty((draws, columns_NK.shape[1]))
    block = max(1, _CELLS // row_count)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        picks = generator.integers(0, row_count, size=(size, row_count))
        picks += np.arange(size)[:, None] * row_count
        counts = np.bincount(picks.ravel(), minlength=size * row_count).reshape(size, row_count)
        sums[start : start + size] = counts @ columns_NK
    return sums


def percentile_interval(draws: Floats, cluster_count: int, level: float = LEVEL) -> Interval:
    """The expanded percentile interval of bootstrap `draws`; NaN draws are left out.

    The plain percentile interval is too narrow by a factor of about sqrt((n - 1) / n) times normal over t quantile;
    the tail probabilities are widened to make up for both. NaN bounds where fewer than two clusters were drawn from.

    Source: Hesterberg 2015, section 4.2, https://doi.org/10.1080/00031305.2015.1089789
    """
    draws = draws[np.isfinite(draws)]
    if cluster_count < 2 or len(draws) == 0:
        return Interval(math.nan, math.nan)
    stretch = math.sqrt(cluster_count / (cluster_count - 1))
    tail = float(ndtr(stretch * stdtrit(cluster_count - 1, (1 - level) / 2)))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high))


def unseen_interval(value: float, cluster_count: int, level: float = LEVEL) -> Interval:
    """The interval of a rate in [0, 1] when every cluster came out alike and resampling shows no spread.

    An outcome as likely as 1 - (tail)^(1/n) would still be missed in n clusters with probability `tail`; the bounds
    are where it would take the rate. At 0 and 1 this is the exact binomial interval.

    Source: Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404
    """
    missed = 1 - ((1 - level) / 2) ** (1 / cluster_count)
    return Interval(value * (1 - missed), value * (1 - missed) + missed)


def clustered_mean(codes: Codes, values: Floats, generator: np.random.Generator, draws: int = DRAWS) -> Estimate:
    """Mean over all entries, with error and interval from resampling the clusters that `codes` (0, 1, ...) name.

    For values in [0, 1]. Where all clusters have the same mean, the interval is `unseen_interval`; NaN without any.
    """
    if len(values) == 0:
        return NO_ESTIMATE
    labels, dense = np.unique(codes, return_inverse=True)
    sums, counts = group_sums(dense, values, len(labels))
    return mean_from_sums(sums, counts, resampled_sums(np.column_stack([sums, counts]), generator, draws))


def mean_from_sums(sums: Floats, counts: Floats, drawn_D2: Floats, level: float = LEVEL) -> Estimate:
    """The ratio of `sums` to `counts` over clusters, given both columns' resampled sums.

    Clusters with a count of zero carry nothing and are not counted.
    """
    present = counts > 0
    cluster_count = int(present.sum())
    if cluster_count == 0:
        return NO_ESTIMATE
    value = float(sums.sum() / counts.sum())
    if np.ptp(sums[present] / counts[present]) <= ALIKE:
        error = 0.0 if cluster_count > 1 else math.nan
        return Estimate(value, error, unseen_interval(value, cluster_count, level))
    with np.errstate(invalid="ignore"):
        means = drawn_D2[:, 0] / drawn_D2[:, 1]
    return Estimate(value, float(np.nanstd(means, ddof=1)), percentile_interval(means, cluster_count, level))


def sign_flip_p_value(differences: Floats, generator: np.random.Generator, draws: int = 10_000) -> float:
    """Two-sided p-value of "the mean difference is zero", from flipping the signs of whole pairs at random.

    The mid-p form: draws as extreme as what was observed count half, the observed signs are one such draw. Wins and
    losses are coarse, and counting those draws whole rejects a true hypothesis in 3 of 100 cases instead of 5.

    Source: Fisher 1935, The Design of Experiments, section 21; Fagerland et al. 2013 for mid-p in paired binary data,
    https://doi.org/10.1186/1471-2288-13-91
    """
    moved = differences[differences != 0]
    if len(moved) == 0:
        return 1.0
    observed = abs(float(moved.sum()))
    slack = 1e-9 * float(np.abs(moved).sum())
    extreme, block = 0.5, max(1, _CELLS // len(moved))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        signs = generator.integers(0, 2, size=(size, len(moved)), dtype=np.int8).astype(np.float64) * 2 - 1
        flipped = np.abs(signs @ moved)
        extreme += float((flipped > observed + slack).sum())
        extreme += float((np.abs(flipped - observed) <= slack).sum()) / 2
    return extreme / (draws + 1)


class Correlation(NamedTuple):
    """How two lists of figures for the same items go together, each with a bootstrap interval over the items."""

    spearman: float
    spearman_interval: Interval
    pearson: float
    pearson_interval: Interval
    r_squared: float
    """Share of the variance of one that a straight line through the other explains: Pearson squared."""
    r_squared_interval: Interval
    item_count: int


def correlation(x: Floats, y: Floats, generator: np.random.Generator, draws: int = DRAWS) -> Correlation:
    """Spearman, Pearson and R squared between paired figures, with intervals.

    Resamples in which either list is constant have no correlation and are left out. NaN where `x` or `y` is
    constant or holds fewer than three items.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    count = len(x)
    nothing = Interval(math.nan, math.nan)
    if count < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(math.nan, nothing, math.nan, nothing, math.nan, nothing, count)
    picks = generator.integers(0, count, size=(draws, count))
    pearson_draws = _row_correlation(x[picks], y[picks])
    spearman_draws = _row_correlation(_row_ranks(x[picks]), _row_ranks(y[picks]))
    spearman = float(_row_correlation(_row_ranks(x[None, :]), _row_ranks(y[None, :]))[0])
    pearson = float(_row_correlation(x[None, :], y[None, :])[0])
    return Correlation(
        spearman,
        percentile_interval(spearman_draws, count),
        pearson,
        percentile_interval(pearson_draws, count),
        pearson**2,
        percentile_interval(pearson_draws**2, count),
        count,
    )


def _row_ranks(values_DN: Floats) -> Floats:
    """Ranks within each row from 1, equal values sharing the mean of theirs."""
    ranks = np.empty_like(values_DN)
    for number, row in enumerate(values_DN):
        _, place, count = np.unique(row, return_inverse=True, return_counts=True)
        ranks[number] = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def student_quantile(probability: float, degrees: int) -> float:
    """The value that Student's t with that many degrees of freedom stays below with the given probability."""
    return float(stdtrit(degrees, probability))


def _row_correlation(x_DN: Floats, y_DN: Floats) -> Floats:
    x = x_DN - x_DN.mean(axis=1, keepdims=True)
    y = y_DN - y_DN.mean(axis=1, keepdims=True)
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 1e-12, (x * y).sum(axis=1) / scale, np.nan)
