"""How noisy and how mixed a pool must be to agree, and to vary, as people do.

A label of the pool is that of annotator r with weight w_r, turned over with probability f; ties stay. For a pair with
shares p of its labels, q = (1 - f) p + f p turned over, and

    agreement = 1 - E |label - majority of people|
    variance  = E |label - majority of the others|, of as many labels as people gave.

People's own variance is that of their labels, and their agreement 1 - variance. A majority is the side that more labels
take, ties left out; an even split is a half, so that no side gains by it.

Source: Dubois et al. 2023, https://arxiv.org/abs/2305.14387, sections 3.2 and 4.1
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, softmax

from pasture.core.errors import DataError
from pasture.core.seeds import stream
from pasture.core.statistics import Estimate, Floats, percentile_interval, resampled_sums
from pasture.validate.cross_annotations import CrossAnnotations
from pasture.validate.plain import plain

TOLERANCE = 0.02
"""How far the pool's agreement and variance may be from people's on the held-out half."""
LEAST_PAIRS = 40
_EVEN_WEIGHTS = 1e-4
"""Pull towards equal weights: of the mixtures that match alike, the one is taken that leaves most to everyone."""
_VERDICTS = np.array([0.0, 0.5, 1.0])


@dataclass(frozen=True)
class Half:
    """Pool and people on one half of the pairs."""

    pair_count: int
    people_agreement: float
    pool_agreement: float
    people_variance: float
    pool_variance: float
    agreement_gap: Estimate
    """Pool less people."""
    variance_gap: Estimate

    @property
    def within_tolerance(self) -> bool:
        """Whether both gaps are at most `TOLERANCE`."""
        return max(abs(self.agreement_gap.value), abs(self.variance_gap.value)) <= TOLERANCE


@dataclass(frozen=True)
class Calibration:
    """The pool that comes closest to people, and whether that is close enough."""

    label_flip_probability: float
    weights: Mapping[str, float]
    """By annotator; they sum to 1."""
    fitted: Half
    held_out: Half
    uncalibrated: Half
    """The pool with equal weights and no flips, on the held-out half."""
    left_out_count: int
    """Pairs that lack a label of a member, or some of people's."""
    matches: bool
    """Whether both halves are within tolerance: a half that was met without being fitted was met by luck."""
    findings: tuple[str, ...]
    """What a reader must know: why it does not match, or how sure the match is."""

    def to_dict(self) -> dict[str, object]:
        """The result as plain JSON values, NaN as null."""
        return {name: plain(value) for name, value in asdict(self).items()}


def shares_of(annotator: CrossAnnotations, pairs: Sequence[str]) -> Floats:
    """Shares of first, tie and second among the annotator's labels of each pair; NaN rows where there is none.

    A label between the verdicts is a probability of the second.
    """
    place = {pair: number for number, pair in enumerate(annotator.pairs)}
    shares = np.full((len(pairs), 3), np.nan)
    for number, pair in enumerate(pairs):
        if pair in place:
            labels = annotator.labels[place[pair]]
            shares[number] = _shares(labels[np.isfinite(labels)])
    return shares


def _shares(labels: Floats) -> Floats:
    if len(labels) == 0:
        return np.full(3, np.nan)
    tie = labels == 0.5
    second = float(labels[~tie].sum()) / len(labels)
    return np.array([1 - second - float(tie.mean()), float(tie.mean()), second])


def calibrate(people: CrossAnnotations, members: Mapping[str, Floats], seed: int) -> Calibration:
    """The flip probability and the weights of a pool whose agreement and variance are nearest to people's.

    `members` maps each annotator to its shares of first, tie and second, a row for each of `people.pairs`, as
    `shares_of` makes them; what a member said is taken for what it always says. A random half of the pairs is fitted,
    the other one judges the fit.

    Raises:
        DataError: if fewer than `LEAST_PAIRS` pairs have two labels of people and one of every member.
    """
    if not members:
        raise DataError("a pool needs at least one annotator, got none.")
    labels, shares = _usable(people, members)
    order = stream(seed, "validate", "calibration-halves").permutation(len(labels))
    halves = [np.sort(order[start::2]) for start in range(2)]
    first, second = ((labels[half], shares[:, half]) for half in halves)
    weights, flips = _fitted(*first)
    even = np.full(len(members), 1 / len(members))
    fitted = _half(*first, weights, flips, seed=seed)
    held_out = _half(*second, weights, flips, seed=seed)
    return Calibration(
        label_flip_probability=flips,
        weights=dict(zip(members, weights.tolist(), strict=True)),
        fitted=fitted,
        held_out=held_out,
        uncalibrated=_half(*second, even, 0.0, seed=seed),
        left_out_count=len(people.pairs) - len(labels),
        matches=fitted.within_tolerance and held_out.within_tolerance,
        findings=_findings(fitted, held_out, flips),
    )


def _usable(people: CrossAnnotations, members: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    """People's labels (N, H) and the members' shares (R, N, 3) of the pairs that all have labelled fully."""
    shares = np.stack(list(members.values()))
    given = np.isfinite(people.labels).sum(axis=1)
    wanted = int(np.bincount(given).argmax()) if len(given) else 0
    chosen = (given == max(2, wanted)) & np.isfinite(shares).all(axis=(0, 2))
    if chosen.sum() < LEAST_PAIRS:
        raise DataError(
            f"{int(chosen.sum())} of {len(given)} pairs have {max(2, wanted)} labels of people and one of each of "
            f"{len(members)} annotators; calibration needs {LEAST_PAIRS}. Have every annotator of the pool label the "
            "same pairs, as with pasture annotate --judge, once for each."
        )
    rows = people.labels[chosen]
    labels = np.stack([row[np.isfinite(row)] for row in rows])
    return labels, shares[:, chosen]


def _side(lead: Floats) -> Floats:
    """0, 1/2 or 1 by the sign of how many more labels take the second."""
    result: Floats = (np.sign(np.round(lead, 9)) + 1) / 2
    return result


def people_errors(labels_NH: Floats) -> Floats:
    """For each pair the mean distance of one label from the majority of the others."""
    leads = 2 * labels_NH - 1
    others = _side(leads.sum(axis=1, keepdims=True) - leads)
    result: Floats = np.abs(labels_NH - others).mean(axis=1)
    return result


def pool_shares(shares_RN3: Floats, weights_R: Floats, flips: float) -> Floats:
    """Shares of first, tie and second among the labels of a pool with these weights and flips."""
    mixed = np.tensordot(weights_R, shares_RN3, axes=1)
    result: Floats = (1 - flips) * mixed + flips * mixed[:, ::-1]
    return result


def pool_errors(shares_N3: Floats, label_count: int) -> Floats:
    """For each pair the expected distance of one label from the majority of `label_count` - 1 others."""
    total: Floats = np.zeros(len(shares_N3))
    others = label_count - 1
    for first in range(others + 1):
        for second in range(others + 1 - first):
            tie = others - first - second
            ways = math.factorial(others) / (math.factorial(first) * math.factorial(second) * math.factorial(tie))
            chance = ways * shares_N3[:, 0] ** first * shares_N3[:, 1] ** tie * shares_N3[:, 2] ** second
            majority = float(_side(np.array(float(second - first))))
            total += chance * (shares_N3 @ np.abs(_VERDICTS - majority))
    return total


def pool_agreements(shares_N3: Floats, labels_NH: Floats) -> Floats:
    """For each pair the expected agreement of one label with the majority of people."""
    majority = _side((2 * labels_NH - 1).sum(axis=1))
    result: Floats = 1 - (shares_N3 * np.abs(_VERDICTS[None, :] - majority[:, None])).sum(axis=1)
    return result


def _fitted(labels_NH: Floats, shares_RN3: Floats) -> tuple[Floats, float]:
    size, label_count = len(shares_RN3), labels_NH.shape[1]
    variance = float(people_errors(labels_NH).mean())

    def loss(parameters: Floats) -> float:
        weights, flips = _unpacked(parameters)
        pool = pool_shares(shares_RN3, weights, flips)
        agreement_gap = float(pool_agreements(pool, labels_NH).mean()) - (1 - variance)
        variance_gap = float(pool_errors(pool, label_count).mean()) - variance
        uneven = float(((weights - 1 / size) ** 2).sum())
        return agreement_gap**2 + variance_gap**2 + _EVEN_WEIGHTS * uneven

    agreements = [pool_agreements(shares, labels_NH).mean() for shares in shares_RN3]
    best = np.zeros(size)
    best[int(np.argmax(agreements))] = 2.0
    starts = [np.append(weights, flips) for weights in (np.zeros(size), best) for flips in (-4.0, 0.0)]
    found = min((minimize(loss, start, method="L-BFGS-B", bounds=[(-8, 8)] * size + [(-9, 9)]) for start in starts),
                key=lambda result: float(result.fun))  # fmt: skip
    return _unpacked(found.x)


def _unpacked(parameters: Floats) -> tuple[Floats, float]:
    """Weights that sum to 1, and a flip probability between 0 and 1/2."""
    weights: Floats = softmax(parameters[:-1])
    flips = float(expit(parameters[-1])) / 2
    # The edge of the search is half a ten-thousandth of a flip: none.
    return weights, 0.0 if flips < 1e-4 else flips


def _half(labels_NH: Floats, shares_RN3: Floats, weights: Floats, flips: float, *, seed: int) -> Half:
    pool = pool_shares(shares_RN3, weights, flips)
    people_error = people_errors(labels_NH)
    agreement, error = pool_agreements(pool, labels_NH), pool_errors(pool, labels_NH.shape[1])
    return Half(
        pair_count=len(labels_NH),
        people_agreement=1 - float(people_error.mean()),
        pool_agreement=float(agreement.mean()),
        people_variance=float(people_error.mean()),
        pool_variance=float(error.mean()),
        agreement_gap=_mean(agreement - (1 - people_error), seed),
        variance_gap=_mean(error - people_error, seed),
    )


def _mean(values_N: Floats, seed: int) -> Estimate:
    drawn = resampled_sums(values_N[:, None], stream(seed, "validate", "pairs"))[:, 0] / len(values_N)
    value, error = float(values_N.mean()), float(np.std(drawn, ddof=1))
    return Estimate(value, error, percentile_interval(drawn, len(values_N)))


def _findings(fitted: Half, held_out: Half, flips: float) -> tuple[str, ...]:
    lines = []
    if not fitted.within_tolerance:
        lines.append(
            f"no mixture of these annotators comes within {100 * TOLERANCE:g} points of people on the fitted half: the "
            f"nearest agrees with them in {_percent(fitted.pool_agreement)} where a person agrees in "
            f"{_percent(fitted.people_agreement)}, and has a variance of {_percent(fitted.pool_variance)} where people "
            f"have {_percent(fitted.people_variance)}."
        )
        if fitted.agreement_gap.value < 0 and flips < 0.01:
            lines.append(
                "flips would only lower its agreement: it takes annotators that agree with people more often, or more "
                "kinds of them."
            )
    if fitted.within_tolerance and not held_out.within_tolerance:
        gaps = max(held_out.agreement_gap, held_out.variance_gap, key=lambda gap: abs(gap.value))
        low, high = gaps.interval
        off = f"off by {100 * gaps.value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
        if low <= TOLERANCE and high >= -TOLERANCE:
            lines.append(
                f"on the held-out half the fit is {off}: whether it is within {100 * TOLERANCE:g} points cannot be "
                f"told from {held_out.pair_count} pairs."
            )
        else:
            lines.append(f"the fit does not carry over to the held-out half: {off}. Chance does not explain it.")
    if fitted.within_tolerance and held_out.within_tolerance:
        widest = max(gap.interval.high - gap.interval.low for gap in (held_out.agreement_gap, held_out.variance_gap))
        if widest > 2 * TOLERANCE:
            lines.append(
                f"{held_out.pair_count} held-out pairs settle the gaps to about ±{50 * widest:.1f} points; more pairs "
                "would make the match surer."
            )
    return tuple(lines)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"
