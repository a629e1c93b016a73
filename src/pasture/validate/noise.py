"""What label noise and the number of annotators do to a pool: agreement with people, bias, variance.

Everything here is an expectation, worked out from one label of every annotator on every pair, not drawn: a label of
the pool is that of an annotator chosen at random among k, turned over with the flip probability.

    q = flips + (1 - 2 flips) p        p: share of the k annotators that prefer the second completion
    agreement = 1 - |q - majority of people|
    variance  = q (1 - M) + (1 - q) M,   M = 3 q^2 - 2 q^3: a label is not what the majority of three others says

Source: Dubois et al. 2023, https://arxiv.org/abs/2305.14387, section 3 and appendix E.1; variance as in alpaca_eval's
analyze.py, where four labels of a pair are held against each other
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import comb

import numpy as np

from pasture.core.errors import DataError
from pasture.core.seeds import stream
from pasture.core.statistics import Estimate, Floats, clustered_mean
from pasture.validate.agreement import majority
from pasture.validate.plain import plain

SUBSETS = 300
"""Choices of k annotators that are averaged, where there are more."""


@dataclass(frozen=True)
class NoisePoint:
    """A pool of so many annotators with so much noise."""

    annotator_count: int
    flip_probability: float
    agreement: Estimate
    """Of one label with the majority of people."""
    variance: Estimate
    """How often one label is not what the majority of three others says."""
    bias: Estimate
    """How often the majority of endlessly many labels of a pair is not people's; uniform flips leave it as it is."""

    def to_dict(self) -> dict[str, object]:
        """The point as plain JSON values, NaN as null."""
        return {name: plain(value) for name, value in asdict(self).items()}


def flipped_agreement(agreement: float, flip_probability: float) -> float:
    """The agreement that is left when labels that agree so often are flipped: f + (1 - 2 f) agreement."""
    return flip_probability + (1 - 2 * flip_probability) * agreement


def variance_of_labels(second_share: Floats) -> Floats:
    """How often one of four independent labels is not what the majority of the other three says.

    `second_share` is the chance of each label to be the second completion, of any shape.
    """
    others: Floats = 3 * second_share**2 - 2 * second_share**3
    result: Floats = second_share * (1 - others) + (1 - second_share) * others
    return result


def noise_ablation(
    labels_AN: Floats, people_NH: Floats, flips: Sequence[float], counts: Sequence[int], seed: int
) -> tuple[NoisePoint, ...]:
    """Agreement, variance and bias for every number of annotators and flip probability, counts in the outer order.

    `labels_AN` holds one label of each annotator for each pair, `people_NH` people's labels: 0 for the first
    completion, 1 for the second, 1/2 for a tie, NaN for none. A tie counts as a coin. Where there are more than
    `SUBSETS` ways to choose k annotators, that many are drawn. Intervals resample pairs; the annotators and their
    labels are taken as they are.

    Raises:
        DataError: if shapes do not fit, a count asks for more annotators than there are, or a flip probability lies
            outside 0 to 1/2.
    """
    available, pair_count = labels_AN.shape
    if len(people_NH) != pair_count:
        raise DataError(
            f"annotators labelled {pair_count} pairs, people {len(people_NH)}: give the same pairs to both."
        )
    if not counts or min(counts) < 1 or max(counts) > available:
        raise DataError(f"numbers of annotators must lie between 1 and {available}, got {list(counts)}.")
    if not flips or min(flips) < 0 or max(flips) > 0.5:
        raise DataError(f"flip probabilities must lie between 0 and 1/2, got {list(flips)}.")
    gold_N = majority(people_NH)
    return tuple(
        _point(_shares(labels_AN, _subsets(available, count, seed)), gold_N, count, flip, seed)
        for count in counts
        for flip in flips
    )


def _subsets(available: int, count: int, seed: int) -> Floats:
    """Rows that mark the chosen annotators: all choices, or `SUBSETS` drawn ones."""
    if comb(available, count) <= SUBSETS:
        chosen = list(combinations(range(available), count))
    else:
        generator = stream(seed, "validate", "annotator-subsets", count)
        chosen = [tuple(generator.permutation(available)[:count].tolist()) for _ in range(SUBSETS)]
    marks = np.zeros((len(chosen), available))
    for row, members in enumerate(chosen):
        marks[row, list(members)] = 1.0
    return marks


def _shares(labels_AN: Floats, subsets_CA: Floats) -> Floats:
    """For each choice and pair the mean label of the chosen annotators, NaN where none has one; shape (C, N)."""
    given = np.isfinite(labels_AN).astype(np.float64)
    with np.errstate(invalid="ignore"):
        shares: Floats = (subsets_CA @ np.nan_to_num(labels_AN)) / (subsets_CA @ given)
    return shares


def _point(shares_CN: Floats, gold_N: Floats, count: int, flip: float, seed: int) -> NoisePoint:
    noisy_CN = flip + (1 - 2 * flip) * shares_CN
    # An even split of the annotators decides like a coin; noise does not move a majority.
    decided_CN = (np.sign(shares_CN - 0.5) + 1) / 2
    return NoisePoint(
        annotator_count=count,
        flip_probability=flip,
        agreement=_mean(1 - np.abs(noisy_CN - gold_N), seed),
        variance=_mean(variance_of_labels(noisy_CN), seed),
        bias=_mean(np.abs(decided_CN - gold_N), seed),
    )


def _mean(values_CN: Floats, seed: int) -> Estimate:
    known_CN = np.isfinite(values_CN)
    judged_N = known_CN.any(axis=0)
    by_pair = np.where(known_CN, values_CN, 0.0).sum(axis=0)[judged_N] / known_CN.sum(axis=0)[judged_N]
    return clustered_mean(np.arange(len(by_pair)), by_pair, stream(seed, "validate", "pairs"))
