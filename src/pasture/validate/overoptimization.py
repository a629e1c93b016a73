"""Over-optimization: how win rates go on, and turn, while a method pushes its proxy reward further up.

A curve is one method under one kind of feedback by one judge, a point a number of PPO steps, of samples, of rounds.

Source: Gao et al. 2022, https://arxiv.org/abs/2210.10760, section 3; Dubois et al. 2023,
https://arxiv.org/abs/2305.14387, section 4.3
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from pasture.core.errors import DataError
from pasture.core.statistics import LEVEL, Estimate, Floats, Interval, percentile_interval
from pasture.validate.plain import plain
from pasture.validate.resampling import Rates, resampled_rates

Form = Literal["best-of-n", "rl"]
LINE_POINTS = 33
"""Of a fitted line, so that it can be drawn."""


@dataclass(frozen=True, eq=False)
class Curve:
    """What was measured of one method along its way, from its start to its end."""

    family: str
    """The method."""
    feedback: str
    """Whose labels it learned from."""
    judge: str
    form: Form
    """Which of the two laws is fitted: selection among n samples, or reinforcement learning."""
    progress_name: str
    """Such as "step" or "n"."""
    progress: tuple[float, ...]
    kl: tuple[float, ...]
    """Nats between the policy and the one it set out from, of whole answers; NaN where it is not known."""
    proxy: tuple[float, ...]
    """Mean reward that the method sees."""
    outcomes: tuple[Floats, ...]
    """At each point an array "seeds instructions" of 0, 1/2 and 1, NaN where nothing was judged."""

    def __post_init__(self) -> None:
        counts = {len(self.progress), len(self.kl), len(self.proxy), len(self.outcomes)}
        if counts != {len(self.progress)} or len(self.progress) < 2:
            raise DataError(
                f"curve {self.family!r} by {self.judge!r}: expected the same number of progress, kl, proxy and "
                f"outcomes, at least two; got {len(self.progress)}, {len(self.kl)}, {len(self.proxy)}, "
                f"{len(self.outcomes)}."
            )


@dataclass(frozen=True)
class CurvePoint:
    """One point of a curve."""

    progress: float
    kl: float
    proxy: float
    rate: Estimate


@dataclass(frozen=True)
class LinePoint:
    """One point of the fitted line, with the 95% band of the fit."""

    kl: float
    rate: float
    interval: Interval


@dataclass(frozen=True)
class Fit:
    """The law's coefficients, with d the square root of the KL divergence in nats.

    rate(d) = start + d (a - b d) for best-of-n, start + d (a - b log d) for RL.
    """

    form: Form
    start: Estimate
    a: Estimate
    """What the first steps gain."""
    b: Estimate
    """What takes the gain back: positive where the curve bends down."""
    r_squared: float
    """Share of the variance of the points that the law explains."""
    peak_kl: float | None
    """Where the law is highest; None where it does not bend down."""
    peak_kl_interval: Interval | None
    """Of the peaks among the draws that bend down."""
    line: tuple[LinePoint, ...]


@dataclass(frozen=True)
class Excess:
    """How far the best point of a curve lies above one of its points, the choice of the best allowed for."""

    progress: float
    """Of the best point."""
    difference: float
    """Its win rate less that of the other; as it was chosen for being best, this is more than the truth on average."""
    interval: Interval
    """The true difference between the truly best point and the other; each bound holds in 95% of repetitions."""
    p_value: float
    """Of "no point is truly above the other", by the largest of the studentized differences."""


@dataclass(frozen=True)
class Overoptimization:
    """One curve, its law and its turns."""

    family: str
    feedback: str
    judge: str
    progress_name: str
    points: tuple[CurvePoint, ...]
    fit: Fit | None
    """None with fewer than four different KL divergences."""
    rise: Excess
    """Of the best point over the first."""
    downturn: Excess
    """Of the best point over the last."""
    proxy_change: float
    """Of the proxy reward from the best point to the last: positive where the proxy praises what the judge does not."""

    @property
    def turns_down(self) -> bool:
        """Whether the last point lies below the best by more than chance explains in 95 of 100 cases."""
        return self.downturn.interval.low > 0

    def to_dict(self) -> dict[str, object]:
        """The result as plain JSON values, NaN as null."""
        return {**{name: plain(value) for name, value in asdict(self).items()}, "turns_down": self.turns_down}


def best_of_n_kl(n: int) -> float:
    """The KL divergence of the best of `n` samples from the policy they are drawn from, in nats: log n - (n - 1) / n.

    Exact where no two samples score alike, an upper bound else.

    Source: Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, appendix G.3; Beirami et al. 2024,
    https://arxiv.org/abs/2401.01879, for the bound

    Raises:
        DataError: if `n` is below 1.
    """
    if n < 1:
        raise DataError(f"best of n needs at least one sample, got n = {n}.")
    return math.log(n) - (n - 1) / n


def overoptimization(curve: Curve, seed: int) -> Overoptimization:
    """The curve's rates, its fitted law, and whether it rises and turns down.

    Everything comes from one bootstrap over instructions and seeds, shared by all points.

    Raises:
        DataError: if a point has no judgement, or points do not share their instructions and seeds.
    """
    rates = resampled_rates(curve.outcomes, seed, "overoptimization")
    missing = [place for place, value in zip(curve.progress, rates.value, strict=True) if math.isnan(value)]
    if missing:
        raise DataError(
            f"curve {curve.family!r} by {curve.judge!r}: nothing judged at {curve.progress_name} "
            f"{', '.join(f'{place:g}' for place in missing)}. Leave out the point, or judge it."
        )
    best = int(np.argmax(rates.value))
    return Overoptimization(
        family=curve.family,
        feedback=curve.feedback,
        judge=curve.judge,
        progress_name=curve.progress_name,
        points=tuple(
            CurvePoint(curve.progress[place], curve.kl[place], curve.proxy[place], rates.estimate(place))
            for place in range(len(curve.progress))
        ),
        fit=_fit(curve, rates),
        rise=excess(curve.progress, rates, 0),
        downturn=excess(curve.progress, rates, len(curve.progress) - 1),
        proxy_change=curve.proxy[-1] - curve.proxy[best],
    )


def excess(progress: Sequence[float], rates: Rates, other: int) -> Excess:
    """How far the best point lies above point `other`.

    The best point is the largest of several noisy values, so its lead over the last is positive by chance alone. The
    lead is held against the largest studentized lead that draws centred on "all are alike" show; the lower bound is
    the largest over points of lead - critical * error, the upper bound of lead + critical * error.

    Source: Romano and Wolf 2005, https://doi.org/10.1198/016214504000000539, section 3
    """
    lead = rates.value - rates.value[other]
    drawn = rates.drawn - rates.drawn[:, [other]]
    error = np.nanstd(drawn, axis=0, ddof=1)
    tested = error > 1e-12
    best = int(np.argmax(rates.value))
    if not tested.any():
        return Excess(progress[best], float(lead[best]), Interval(float(lead.max()), float(lead.max())), 1.0)
    t = lead[tested] / error[tested]
    alike = (drawn[:, tested] - lead[tested]) / error[tested]
    highest, lowest = np.nanmax(alike, axis=1), np.nanmax(-alike, axis=1)
    below, above = (float(np.nanquantile(extreme, LEVEL)) for extreme in (highest, lowest))
    low = float(np.max(lead[tested] - below * error[tested]))
    high = max(0.0, float(np.max(lead[tested] + above * error[tested])))
    p = (1 + float((highest >= t.max()).sum())) / (1 + len(highest))
    return Excess(progress[best], float(lead[best]), Interval(low, high), p)


def _fit(curve: Curve, rates: Rates) -> Fit | None:
    d = np.sqrt(np.maximum(np.array(curve.kl), 0.0))
    known = np.isfinite(d)
    if len(np.unique(d[known])) < 4:
        return None
    design = _design(d[known], curve.form)
    solve = np.linalg.pinv(design)
    value: Floats = solve @ rates.value[known]
    drawn: Floats = rates.drawn[:, known] @ solve.T
    residual = rates.value[known] - design @ value
    spread = float(np.var(rates.value[known]))
    count = rates.instruction_count
    start, a, b = (
        Estimate(
            float(value[place]), float(np.nanstd(drawn[:, place], ddof=1)), percentile_interval(drawn[:, place], count)
        )
        for place in range(3)
    )
    bent = drawn[drawn[:, 2] > 0]
    grid = np.linspace(0, float(d[known].max()), LINE_POINTS)
    lines = _design(grid, curve.form)
    bands = drawn @ lines.T
    return Fit(
        form=curve.form,
        start=start,
        a=a,
        b=b,
        r_squared=1 - float(np.mean(residual**2)) / spread if spread > 0 else math.nan,
        peak_kl=float(_peak_kl(value[None, 1:], curve.form)[0]) if value[2] > 0 else None,
        peak_kl_interval=percentile_interval(_peak_kl(bent[:, 1:], curve.form), count) if value[2] > 0 else None,
        line=tuple(
            LinePoint(float(place) ** 2, float(rate), percentile_interval(band, count))
            for place, rate, band in zip(grid, lines @ value, bands.T, strict=True)
        ),
    )


def _design(d_P: Floats, form: Form) -> Floats:
    """Columns whose weights are start, a and b; d log d is 0 at 0."""
    bend = d_P * d_P if form == "best-of-n" else d_P * np.log(np.maximum(d_P, 1e-12))
    return np.column_stack([np.ones(len(d_P)), d_P, -bend])


def _peak_kl(ab_D2: Floats, form: Form) -> Floats:
    """Where the law is highest: d = a / 2b for best-of-n, exp(a / b - 1) for RL; 0 where it only falls."""
    a, b = ab_D2[:, 0], ab_D2[:, 1]
    with np.errstate(over="ignore"):
        d: Floats = np.maximum(a / (2 * b), 0) if form == "best-of-n" else np.exp(a / b - 1)
        return d * d
