"""Win rates at equal length, for any judge and any set of instructions.

For the systems that one judge compared with one reference, the share of a win is modelled as

    logit P(system s wins on instruction i) = quality_s + taste * tanh(gap_si / spread) + slope * z_i

where `gap` is the difference of the two answers' lengths in characters, `spread` the standard deviation of the
reference's lengths and z the standardized logarithm of the reference's length, which stands for how long an answer
the instruction calls for. The taste for length is the judge's own, so all systems share it, and it is learnt from the
pairs at hand alone. The controlled rate is the mean prediction at gap 0. A judge who tosses coins has no taste to
find and gives one half; answers that only grow longer move the gap, not the quality.

It cannot tell a taste for length from a taste for what longer answers say: where longer answers of the same system
are better, that is taken for taste too, as in every length control.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from pasture.core.errors import DataError
from pasture.core.seeds import stream
from pasture.core.statistics import Codes, Floats, Interval, percentile_interval, unseen_interval
from pasture.evaluate.board import LengthControlled
from pasture.evaluate.outcomes import Outcomes
from pasture.evaluate.win_rate import BOOTSTRAP_STREAM, require_systems

METHOD = "pooled taste"
DRAWS = 500
"""Bootstrap draws, each with a refit."""

_PRIOR_PRECISION = 0.04
"""Of every coefficient: a standard deviation of 5 on the scale of logits keeps a system that never lost finite."""
_TINY = 1e-9
_DRAW_TOLERANCE = 1e-3
"""Size of the last step, in logits, of a resample's fit: Newton's method squares errors, so what is left is 1e-6."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """The judged rows of all systems as columns, an entry a row."""

    credit: Floats
    system: Codes
    starts: Codes
    """Where each system's rows begin."""
    instruction: Codes
    shared: Floats
    """Two features that all systems share: scaled gap, standardized log length of the reference."""
    system_count: int
    instruction_count: int

    def sums(self, values_R: Floats) -> Floats:
        """The sum over each system's rows; they lie side by side."""
        totals: Floats = np.add.reduceat(values_R, self.starts)
        return totals


@dataclass(frozen=True, eq=False)
class _Fit:
    """Coefficients of the regression."""

    quality: Floats
    shared: Floats
    """Taste for length; slope over the reference's length."""


@dataclass(frozen=True, eq=False)
class EqualLength:
    """Systems at equal length, with the draws that they share, so that two of them can be paired."""

    rates: Mapping[str, LengthControlled]
    drawn: Mapping[str, Floats]
    """By system the rate in each draw; without those whose rate is no draw's."""
    counts: Mapping[str, int]
    """Judged instructions."""

    def gap(self, system: str, other: str) -> tuple[float, Interval] | None:
        """How much more `system` would win than `other`, with the 95% interval; None where it is not known."""
        if not {system, other} <= self.drawn.keys():
            return None
        count = min(self.counts[system], self.counts[other])
        interval = percentile_interval(self.drawn[system] - self.drawn[other], count)
        difference = self.rates[system].rate - self.rates[other].rate
        return None if math.isnan(interval.low) else (difference, interval)


def length_control(systems: Sequence[Outcomes], seed: int, draws: int = DRAWS) -> dict[str, LengthControlled]:
    """The controlled win rate of each system that has a judgement, by name; see `equal_length`."""
    return dict(equal_length(systems, seed, draws).rates)


def equal_length(systems: Sequence[Outcomes], seed: int, draws: int = DRAWS) -> EqualLength:
    """The controlled win rate of each system that has a judgement, with bootstrap error and 95% interval.

    The more systems are given together, the better the judge's taste is known. Every draw resamples instructions and
    fits again, so the error includes that of the taste. A system that won, lost or tied every time keeps its rate.

    Raises:
        DataError: if the systems differ in judge or reference, or none has a judgement.
    """
    require_systems(systems, "length control")
    if len({(outcomes.judge, outcomes.reference) for outcomes in systems}) != 1:
        raise DataError("length control needs systems of one judge and one reference; call it for each apart.")
    usable = [outcomes for outcomes in systems if outcomes.judged.any()]
    if not usable:
        raise DataError("length control needs at least one judgement, got none.")
    rows = _rows(usable)
    fit = _fitted(rows, np.ones(len(rows.credit)), None, 1e-6)
    rate_S = _controlled(rows, fit, np.ones(len(rows.credit)))
    generator = stream(seed, *BOOTSTRAP_STREAM, "length-control")
    drawn_DS = np.empty((draws, rows.system_count))
    for draw in range(draws):
        picks = generator.integers(0, rows.instruction_count, size=rows.instruction_count)
        weight_R = np.bincount(picks, minlength=rows.instruction_count)[rows.instruction].astype(np.float64)
        drawn_DS[draw] = _controlled(rows, _fitted(rows, weight_R, fit, _DRAW_TOLERANCE), weight_R)
    return EqualLength(
        rates={
            outcomes.system: _result(outcomes, float(rate_S[number]), drawn_DS[:, number])
            for number, outcomes in enumerate(usable)
        },
        drawn={
            outcomes.system: drawn_DS[:, number]
            for number, outcomes in enumerate(usable)
            if np.ptp(outcomes.credit[outcomes.judged]) > 0
        },
        counts={outcomes.system: _instruction_count(outcomes) for outcomes in usable},
    )


def _rows(systems: Sequence[Outcomes]) -> _Rows:
    judged = [outcomes.where(outcomes.judged) for outcomes in systems]
    labels, instruction_R = np.unique(np.concatenate([rows.instruction for rows in judged]), return_inverse=True)
    own_R = np.concatenate([rows.system_length for rows in judged])
    reference_R = np.concatenate([rows.reference_length for rows in judged])
    spread = float(np.std(reference_R)) or float(np.mean(reference_R)) or 1.0
    calls_for_R = np.log1p(reference_R)
    scale = float(np.std(calls_for_R)) or 1.0
    shared_R2 = np.column_stack(
        [np.tanh((own_R - reference_R) / spread), (calls_for_R - float(np.mean(calls_for_R))) / scale]
    )
    counts = [len(rows) for rows in judged]
    return _Rows(
        credit=np.concatenate([rows.credit for rows in judged]),
        system=np.repeat(np.arange(len(judged)), counts),
        starts=np.concatenate([[0], np.cumsum(counts)[:-1]]),
        instruction=instruction_R,
        shared=shared_R2,
        system_count=len(judged),
        instruction_count=len(labels),
    )


def _fitted(rows: _Rows, weight_R: Floats, start: _Fit | None, tolerance: float) -> _Fit:
    """The penalized maximum of the weighted likelihood, by Newton's method; S systems, R rows, 2 shared features.

    The Hessian is diagonal but for the two shared coefficients, so one step costs no more than reading the rows.
    """
    quality_S = np.zeros(rows.system_count) if start is None else start.quality.copy()
    shared_2 = np.zeros(2) if start is None else start.shared.copy()
    for _ in range(100):
        p_R = expit(quality_S[rows.system] + rows.shared @ shared_2)
        residual_R = weight_R * (rows.credit - p_R)
        curve_R = weight_R * p_R * (1 - p_R)
        gradient_S = rows.sums(residual_R) - _PRIOR_PRECISION * quality_S
        gradient_2 = residual_R @ rows.shared - _PRIOR_PRECISION * shared_2
        diagonal_S = rows.sums(curve_R) + _PRIOR_PRECISION
        cross_S2 = np.column_stack([rows.sums(curve_R * rows.shared[:, column]) for column in range(2)])
        corner_22 = (rows.shared * curve_R[:, None]).T @ rows.shared + _PRIOR_PRECISION * np.eye(2)
        left_22 = corner_22 - cross_S2.T @ (cross_S2 / diagonal_S[:, None])
        step_2 = np.linalg.solve(left_22, gradient_2 - cross_S2.T @ (gradient_S / diagonal_S))
        step_S = (gradient_S - cross_S2 @ step_2) / diagonal_S
        largest = max(float(np.abs(step_2).max()), float(np.abs(step_S).max()))
        # A step of more than two logits can overshoot where almost every judgement went one way.
        damping = min(1.0, 2.0 / max(largest, _TINY))
        quality_S += damping * step_S
        shared_2 += damping * step_2
        if largest < tolerance:
            break
    return _Fit(quality_S, shared_2)


def _controlled(rows: _Rows, fit: _Fit, weight_R: Floats) -> Floats:
    """Mean prediction of each system at equal length; NaN where a draw holds none of its instructions."""
    level_R = fit.quality[rows.system] + rows.shared[:, 1] * fit.shared[1]
    with np.errstate(invalid="ignore"):
        return rows.sums(weight_R * expit(level_R)) / rows.sums(weight_R)


def _result(outcomes: Outcomes, rate: float, drawn_D: Floats) -> LengthControlled:
    credit = outcomes.credit[outcomes.judged]
    count = _instruction_count(outcomes)
    if np.ptp(credit) == 0:
        return LengthControlled(METHOD, float(credit[0]), 0.0, unseen_interval(float(credit[0]), count))
    interval = percentile_interval(drawn_D, count)
    if math.isnan(interval.low):
        interval = Interval(0.0, 1.0)  # one instruction: nothing is known of the spread
    return LengthControlled(METHOD, rate, float(np.nanstd(drawn_D, ddof=1)), interval)


def _instruction_count(outcomes: Outcomes) -> int:
    """Instructions on which the system was judged."""
    return len(np.unique(outcomes.instruction[outcomes.judged]))
