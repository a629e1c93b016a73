"""What an annotator is worth: agreement with people, bias, variance, leanings, price; each with an interval.

Agreement, bias, variance, shares and counts follow AlpacaEval's evaluator leaderboard to the digit, its way of
breaking even votes included; kappa, alpha and all intervals are added.

Source: Dubois et al. 2023, https://arxiv.org/abs/2305.14387, section 3; alpaca_eval 0.6.6, analyze.py
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations

import krippendorff
import numpy as np
from numpy.typing import NDArray

from pasture.core.errors import DataError
from pasture.core.seeds import stream
from pasture.core.statistics import (
    Correlation,
    Estimate,
    Floats,
    Interval,
    clustered_mean,
    correlation,
    percentile_interval,
    resampled_sums,
)
from pasture.validate.cross_annotations import Booleans, CrossAnnotations
from pasture.validate.plain import plain

SIGNIFICANT_LENGTH = 30
"""Characters by which two completions must differ for one to count as longer."""
LEAST_PAIRS = 100
"""A system needs more pairs than this to enter the correlation over systems."""

_VERDICTS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class AnnotatorReport:
    """One annotator's row; shares are fractions, None where the file does not say."""

    annotator: str
    agreement: Estimate | None
    """Of one label with the majority of people; among people, of one with the majority of the others."""
    bias: Estimate | None
    """How far the majority of the annotator's labels is from the majority of people's; 0 for people themselves."""
    variance: Estimate | None
    """How far one label is from the majority of the annotator's others; None with fewer than two a pair."""
    pairwise_agreement: Estimate | None
    """Of two labels of one pair by this annotator, or by two members of a crowd."""
    spearman_pearson: Correlation | None
    """Of the systems' win rates by this annotator and by people."""
    prefer_longer: Estimate | None
    prefer_list: Estimate | None
    prefer_first: Estimate | None
    """How often the first completion of the file wins, ties half."""
    kappa: Estimate | None
    """Cohen's, of the first label with the majority of people."""
    alpha: Estimate | None
    """Krippendorff's, nominal, among the annotator's own labels."""
    usd_per_thousand: float | None
    seconds_per_thousand: float | None
    pair_count: int
    parsed_count: int
    label_count: int
    """Labels asked for: parsed ones and failures."""

    def to_dict(self) -> dict[str, object]:
        """The row as plain JSON values, NaN as null."""
        return {name: plain(value) for name, value in asdict(self).items()}


def analyze(annotator: CrossAnnotations, people: CrossAnnotations | None, seed: int) -> AnnotatorReport:
    """The report of one annotator against `people`, pairs matched by content; against itself for people.

    Raises:
        DataError: if annotator and people share no pair.
    """
    itself = people is annotator
    agreement = bias = kappa = systems = None
    variance = _leave_one_out_error(annotator, seed)
    if people is not None and itself:
        agreement = None if variance is None else _complement(variance)
        bias = Estimate(0.0, 0.0, Interval(0.0, 0.0))
    elif people is not None:
        rows, others = _shared(annotator, people)
        labels, gold = annotator.labels[rows], majority(people.labels[others])
        agreement = _complement(_mean_error(labels, gold[:, None], seed, by_column=annotator.evenly_asked))
        if labels.shape[1] > 1:
            bias = _mean_error(majority(labels)[:, None], gold[:, None], seed, by_column=True)
        kappa = _kappa(labels[:, 0], gold, seed)
        systems = _over_systems(annotator, people, rows, others, seed)
    return AnnotatorReport(
        annotator=annotator.annotator,
        agreement=agreement,
        bias=bias,
        variance=variance,
        pairwise_agreement=_pairwise(annotator, seed),
        spearman_pearson=systems,
        prefer_longer=_prefer_longer(annotator, seed),
        prefer_list=_prefer_list(annotator, seed),
        prefer_first=_prefer_first(annotator, seed),
        kappa=kappa,
        alpha=_alpha(annotator.labels, seed),
        usd_per_thousand=1000 * float(annotator.price_usd.mean()) if len(annotator.price_usd) else None,
        seconds_per_thousand=1000 * float(annotator.seconds.mean()) if len(annotator.seconds) else None,
        pair_count=len(annotator.pairs),
        parsed_count=annotator.parsed_count,
        label_count=int(annotator.asked.sum()),
    )


def majority(labels_NA: Floats) -> Floats:
    """The most frequent label of each pair, or the median where labels are probabilities; NaN without any.

    An even vote falls to one of the tied labels by AlpacaEval's fixed draw: always the same place among them, so
    that it favors nobody on average only where sides were shuffled.
    """
    counts = np.stack([(labels_NA == verdict).sum(axis=1) for verdict in _VERDICTS], axis=1)
    is_mode = counts == counts.max(axis=1, keepdims=True)
    mode_count = is_mode.sum(axis=1)
    wanted = np.array([_DRAW_AMONG[size] for size in range(1, 4)])[mode_count - 1]
    result: Floats = np.array(_VERDICTS)[
        np.argmax(is_mode & (np.cumsum(is_mode, axis=1) == wanted[:, None] + 1), axis=1)
    ]
    given = np.isfinite(labels_NA)
    result[~given.any(axis=1)] = np.nan
    for number in np.flatnonzero((given & ~np.isin(labels_NA, _VERDICTS)).any(axis=1)):
        result[number] = np.median(labels_NA[number][given[number]])
    return result


_DRAW_AMONG = {size: int(np.random.RandomState(123).choice(size, size=1, replace=False)[0]) for size in (1, 2, 3)}
"""What `pandas.Series.sample(1, random_state=123)` picks among so many modes in ascending order."""


def _mean_error(labels_NA: Floats, target_NA: Floats, seed: int, *, by_column: bool) -> Estimate:
    """Mean distance to the target; the interval resamples pairs.

    By column, AlpacaEval's way, it is the mean of the columns' means. That is fair where every pair was asked for
    equally many labels; else a column that few pairs reach would weigh as much as a full one, and the mean is that
    over pairs, each the mean of its own labels.
    """
    errors = np.abs(labels_NA - target_NA)
    present = np.isfinite(errors)
    if not present.any():
        raise DataError("no pair has labels on both sides.")
    if not by_column:
        errors = _row_means(errors, present)
        present = np.isfinite(errors)
    columns = np.hstack([np.where(present, errors, 0.0), present.astype(np.float64)])
    width = errors.shape[1]

    def statistic(sums: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            means: Floats = sums[:, :width] / sums[:, width:]
            average: Floats = np.nansum(means, axis=1) / np.isfinite(means).sum(axis=1)
        return average

    drawn = statistic(resampled_sums(columns, stream(seed, "validate", "pairs")))
    value = float(statistic(columns.sum(axis=0)[None, :])[0])
    return Estimate(value, float(np.nanstd(drawn, ddof=1)), percentile_interval(drawn, len(columns)))


def _row_means(errors_NA: Floats, present_NA: Booleans) -> Floats:
    """The mean of each row's present entries, as one column; NaN where there is none."""
    with np.errstate(invalid="ignore"):
        means: Floats = np.where(present_NA, errors_NA, 0.0).sum(axis=1) / present_NA.sum(axis=1)
    return means[:, None]


def _leave_one_out_error(annotator: CrossAnnotations, seed: int) -> Estimate | None:
    labels = annotator.labels
    width = labels.shape[1]
    if width < 2:
        return None
    # A majority of the others needs all of them: pairs with more than one label missing are left out.
    given = np.isfinite(labels).sum(axis=1)
    labels = labels[(given >= annotator.asked - 1) & (given > 1)]
    if len(labels) == 0:
        return None
    others = np.column_stack([majority(np.delete(labels, column, axis=1)) for column in range(width)])
    return _mean_error(labels, others, seed, by_column=annotator.evenly_asked)


def _pairwise(annotator: CrossAnnotations, seed: int) -> Estimate | None:
    columns = np.array(list(combinations(range(annotator.labels.shape[1]), 2)), dtype=np.int64).reshape(-1, 2)
    left, right = annotator.labels[:, columns[:, 0]], annotator.labels[:, columns[:, 1]]
    if not (np.isfinite(left) & np.isfinite(right)).any():
        return None
    return _complement(_mean_error(left, right, seed, by_column=annotator.evenly_asked))


def _complement(error: Estimate) -> Estimate:
    return Estimate(1 - error.value, error.standard_error, Interval(1 - error.interval.high, 1 - error.interval.low))


def _shared(annotator: CrossAnnotations, people: CrossAnnotations) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    place = {pair: number for number, pair in enumerate(people.pairs)}
    rows = [number for number, pair in enumerate(annotator.pairs) if pair in place]
    if not rows:
        raise DataError(
            f"{annotator.annotator!r} and {people.annotator!r} share no pair, of {len(annotator.pairs)} and "
            f"{len(people.pairs)}. Their instruction, input and outputs must be the same to the letter."
        )
    return np.array(rows), np.array([place[annotator.pairs[number]] for number in rows])


def _share(chosen: Floats, seed: int) -> Estimate | None:
    return clustered_mean(np.arange(len(chosen)), chosen, stream(seed, "validate", "pairs")) if len(chosen) else None


def _decided(annotator: CrossAnnotations) -> Floats:
    """The first label of each pair; NaN for a tie or none."""
    first = annotator.labels[:, 0]
    return np.where(first == 0.5, np.nan, first)


def _prefer_longer(annotator: CrossAnnotations, seed: int) -> Estimate | None:
    label = _decided(annotator)
    gap = annotator.length_second - annotator.length_first
    counted = np.isfinite(label) & (np.abs(gap) > SIGNIFICANT_LENGTH)
    return _share(((label > 0.5) == (gap > 0))[counted].astype(np.float64), seed)


def _prefer_list(annotator: CrossAnnotations, seed: int) -> Estimate | None:
    label = _decided(annotator)
    counted = np.isfinite(label) & (annotator.list_first != annotator.list_second)
    return _share(((label > 0.5) == annotator.list_second)[counted].astype(np.float64), seed)


def _prefer_first(annotator: CrossAnnotations, seed: int) -> Estimate | None:
    present = np.isfinite(annotator.labels)
    codes = np.nonzero(present)[0]
    if len(codes) == 0:
        return None
    return clustered_mean(codes, 1 - annotator.labels[present], stream(seed, "validate", "pairs"))


def _kappa(label_N: Floats, gold_N: Floats, seed: int) -> Estimate | None:
    both = np.isfinite(label_N) & np.isfinite(gold_N)
    ours, theirs = label_N[both], gold_N[both]
    if not _discrete(ours) or not _discrete(theirs) or len(np.union1d(ours, theirs)) < 2:
        return None
    cells = np.eye(9)[(6 * ours + 2 * theirs).astype(np.int64)]
    return _from_counts(float(kappas(cells.sum(axis=0)[None, :])[0]), cells, kappas, seed)


def kappas(cells_D9: Floats) -> Floats:
    """Cohen's kappa of each 3 by 3 table of counts, rows one after the other; NaN where all fall into one cell."""
    table = cells_D9.reshape(-1, 3, 3) / cells_D9.sum(axis=1)[:, None, None]
    observed = np.trace(table, axis1=1, axis2=2)
    expected = (table.sum(axis=1) * table.sum(axis=2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)


def _alpha(labels_NA: Floats, seed: int) -> Estimate | None:
    if labels_NA.shape[1] < 2 or not _discrete(labels_NA):
        return None
    counts = np.column_stack([(labels_NA == verdict).sum(axis=1) for verdict in _VERDICTS])
    counts = counts[counts.sum(axis=1) > 1]
    if len(counts) < 2 or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    value = float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
    size = counts.sum(axis=1)
    disagreement = (size**2 - (counts**2).sum(axis=1)) / (size - 1)
    return _from_counts(value, np.column_stack([disagreement, counts]).astype(np.float64), alphas, seed)


def alphas(sums_D4: Floats) -> Floats:
    """Krippendorff's nominal alpha from sums over pairs: their disagreement, and how often each verdict was given.

    A pair with m labels, n_c of them c, disagrees by (m^2 - sum of n_c^2) / (m - 1). NaN where all labels are alike.

    Source: Krippendorff 2011, https://repository.upenn.edu/asc_papers/43, section C
    """
    counts = sums_D4[:, 1:]
    total = counts.sum(axis=1)
    expected = (total**2 - (counts**2).sum(axis=1)) / (total - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - sums_D4[:, 0] / expected, np.nan)


def _from_counts(value: float, columns: Floats, statistic: Callable[[Floats], Floats], seed: int) -> Estimate:
    drawn = statistic(resampled_sums(columns, stream(seed, "validate", "pairs")))
    return Estimate(value, float(np.nanstd(drawn, ddof=1)), percentile_interval(drawn, len(columns)))


def _discrete(labels: Floats) -> bool:
    return bool(np.isin(labels[np.isfinite(labels)], _VERDICTS).all())


def _over_systems(
    annotator: CrossAnnotations,
    people: CrossAnnotations,
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    seed: int,
) -> Correlation | None:
    names = np.array(
        [people.systems[number] or annotator.systems[row] or "" for row, number in zip(rows, others, strict=True)]
    )
    ours, theirs = [], []
    for name in np.unique(names[names != ""]):
        mine, gold = annotator.labels[rows[names == name]], people.labels[others[names == name]]
        if np.isfinite(gold).sum() > LEAST_PAIRS and np.isfinite(mine).any():
            ours.append(float(np.nanmean(mine)))
            theirs.append(float(np.nanmean(gold)))
    if len(ours) < 3:
        return None
    return correlation(np.array(ours), np.array(theirs), stream(seed, "validate", "systems"))
