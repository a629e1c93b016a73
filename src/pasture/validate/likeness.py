"""How alike two lists of measured win rates are: rank correlations, the line through them, intervals."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from pasture.core.statistics import Floats, Interval
from pasture.validate.resampling import Rates, correlation_interval


@dataclass(frozen=True)
class Measure:
    """A measure of how alike two lists are, with its 95% interval over instructions and seeds."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Likeness:
    """How alike two lists of win rates of the same systems are."""

    spearman: Measure
    kendall: Measure
    r_squared: Measure
    slope: float
    """Of the least-squares line of the second list over the first."""
    intercept: float


def likeness(first: Rates, second: Rates) -> Likeness:
    """How alike the rates of the same systems are, from draws that belong together row by row."""
    x, y = first.value, second.value
    count = min(first.instruction_count, second.instruction_count)
    measures = [
        Measure(value, correlation_interval(value, correlate(first.drawn, second.drawn), count))
        for correlate in (spearmans, kendalls, r_squareds)
        for value in [float(correlate(x[None, :], y[None, :])[0])]
    ]
    slope = float(np.polyfit(x, y, 1)[0]) if np.ptp(x) > 0 else math.nan
    return Likeness(measures[0], measures[1], measures[2], slope, float(y.mean() - slope * x.mean()))


def spearmans(x_DK: Floats, y_DK: Floats) -> Floats:
    """Spearman's rank correlation of each row, equal values sharing their mean rank; NaN for a constant row."""
    return _row_correlations(rankdata(x_DK, axis=1), rankdata(y_DK, axis=1))


def kendalls(x_DK: Floats, y_DK: Floats) -> Floats:
    """Kendall's tau-b of each row; NaN for a constant row.

    Source: Kendall 1945, https://doi.org/10.1093/biomet/33.3.239
    """
    first, second = np.triu_indices(x_DK.shape[1], 1)
    x, y = np.sign(x_DK[:, first] - x_DK[:, second]), np.sign(y_DK[:, first] - y_DK[:, second])
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = (x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    return result


def r_squareds(x_DK: Floats, y_DK: Floats) -> Floats:
    """Of the least-squares line of each row: Pearson's correlation squared; NaN for a constant row."""
    result: Floats = _row_correlations(x_DK, y_DK) ** 2
    return result


def _row_correlations(x_DK: Floats, y_DK: Floats) -> Floats:
    x, y = x_DK - x_DK.mean(axis=1, keepdims=True), y_DK - y_DK.mean(axis=1, keepdims=True)
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 1e-12, (x * y).sum(axis=1) / scale, np.nan)
