"""Length and lists: how answers change as a method learns, and how much of its gain length explains.

Source: Dubois et al. 2023, https://arxiv.org/abs/2305.14387, section 4.5: people and the simulation both reward
longer answers, and learning from either lengthens them.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pasture.core.errors import DataError
from pasture.core.layout import has_list
from pasture.core.seeds import stream
from pasture.core.statistics import Estimate, Floats, Interval, percentile_interval, resampled_sums
from pasture.validate.plain import plain

LEAST_SHARE = 0.05
"""Of the answers, that must be no longer than the baseline's, and no shorter, for a gain at equal length."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What one system answered to N instructions, and how it fared; the same instructions for all systems."""

    system: str
    lengths: Floats
    """Shape (N,), characters."""
    lists: Floats
    """Shape (N,), 1 where the answer holds a list, else 0."""
    credit: Floats
    """Shape (N,): the mean of the judgements of the answer, NaN for none."""
    step: float | None = None
    """Of training, where a system is shown along its way."""

    @classmethod
    def of(cls, system: str, texts: Sequence[str], credit: Floats, step: float | None = None) -> "Answers":
        """The lengths and lists of `texts`."""
        lengths = np.array([len(text) for text in texts], dtype=np.float64)
        return cls(system, lengths, np.array([float(has_list(text)) for text in texts]), credit, step)


@dataclass(frozen=True)
class Style:
    """One system's answers beside those of the model that it set out from."""

    system: str
    step: float | None
    mean_length: Estimate
    """Characters."""
    list_share: Estimate
    gain: Estimate
    """Win rate less the baseline's, on the instructions that both were judged on."""
    gain_at_equal_length: Estimate | None
    """What is left of the gain where the answer is as long as the baseline's; None where hardly any is as short."""
    explained_by_length: Estimate | None
    """Share of the gain that goes with length: 1 - gain at equal length / gain; None without it or a clear gain."""

    def to_dict(self) -> dict[str, object]:
        """The row as plain JSON values, NaN as null."""
        return {name: plain(value) for name, value in asdict(self).items()}


def style(systems: Sequence[Answers], baseline: Answers, seed: int) -> tuple[Style, ...]:
    """Each system's length, lists and gain over the baseline; intervals resample instructions.

    The gain on one instruction is regressed on the log ratio of the two answers' lengths; the gain at equal length is
    the line's height at ratio 1. Where fewer than `LEAST_SHARE` of the answers are on the shorter side of that (or on
    the longer), it would be a guess about answers that nobody saw, and is not made. Length here stands for all that
    comes with it, what longer answers say included.

    Raises:
        DataError: if a system was not asked the baseline's instructions, or shares no judged one with it.
    """
    return tuple(_style(system, baseline, seed) for system in systems)


def _style(system: Answers, baseline: Answers, seed: int) -> Style:
    if len(system.lengths) != len(baseline.lengths):
        raise DataError(
            f"{system.system!r} answered {len(system.lengths)} instructions, the baseline {baseline.system!r} "
            f"{len(baseline.lengths)}: give the answers to the same instructions, in the same order."
        )
    gains = system.credit - baseline.credit
    judged = np.isfinite(gains)
    if not judged.any():
        raise DataError(f"{system.system!r} and {baseline.system!r} were judged on no common instruction.")
    ratio = np.log1p(system.lengths) - np.log1p(baseline.lengths)
    gain, ratio = gains[judged], ratio[judged]
    columns = np.column_stack([np.ones(len(gain)), ratio, gain, ratio * ratio, ratio * gain])
    drawn = resampled_sums(columns, stream(seed, "validate", "style"))
    found, draws = _gain_and_height(columns.sum(axis=0)[None, :]), _gain_and_height(drawn)
    total, left = (_estimate(float(value[0]), drawn, len(gain)) for value, drawn in zip(found, draws, strict=True))
    spans_zero = min(float((ratio <= 0).mean()), float((ratio >= 0).mean())) >= LEAST_SHARE
    return Style(
        system=system.system,
        step=system.step,
        mean_length=_mean(system.lengths, seed),
        list_share=_mean(system.lists, seed),
        gain=total,
        gain_at_equal_length=left if spans_zero else None,
        explained_by_length=_explained(total, left, draws, len(gain)) if spans_zero else None,
    )


def _gain_and_height(sums_D5: Floats) -> tuple[Floats, Floats]:
    """The mean gain, and the least-squares line's height at ratio 0; the mean again where all ratios are alike."""
    count, x, y, xx, xy = sums_D5.T
    spread = xx - x * x / count
    slope = np.where(spread > 1e-9, (xy - x * y / count) / np.maximum(spread, 1e-9), 0.0)
    return y / count, (y - slope * x) / count


def _explained(total: Estimate, left: Estimate, draws: tuple[Floats, Floats], count: int) -> Estimate | None:
    """None unless the gain's interval lies above 0: a share of nothing means nothing."""
    if not total.interval.low > 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = 1 - draws[1] / draws[0]
    return _estimate(1 - left.value / total.value, shares[draws[0] > 0], count)


def _estimate(value: float, draws: Floats, count: int) -> Estimate:
    if len(draws) < 2:
        return Estimate(value, math.nan, Interval(math.nan, math.nan))
    return Estimate(value, float(np.std(draws, ddof=1)), percentile_interval(draws, count))


def _mean(values: Floats, seed: int) -> Estimate:
    columns = values[:, None]
    drawn = resampled_sums(columns, stream(seed, "validate", "style"))[:, 0] / len(values)
    return _estimate(float(values.mean()), drawn, len(values))
