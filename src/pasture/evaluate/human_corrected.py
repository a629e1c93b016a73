"""A judge's win rate, corrected by the human labels that some of its comparisons carry.

Two corrections, for two situations. Prediction-powered inference moves the judge's mean by the judge's mean error on
the labelled instructions: right whenever these were drawn at random from all. Rogan-Gladen turns the judge's rate
back through the rates at which it says "win" where people say win and where they say loss: right also when wins are
rarer or more frequent among the labelled instructions, as long as the judge errs alike on both. An instruction is the
unit throughout; judgements of one instruction are averaged first.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pasture.core.errors import DataError
from pasture.core.seeds import stream
from pasture.core.statistics import (
    DRAWS,
    LEVEL,
    Floats,
    Interval,
    percentile_interval,
    resampled_sums,
    student_quantile,
)
from pasture.evaluate.outcomes import Outcomes, pooled
from pasture.evaluate.win_rate import instruction_means

LEAST_LABELLED = 20
"""Labelled instructions below which no interval here is worth its name."""
_LEAST_SKILL = 0.05


class UnskilledJudgeError(DataError):
    """A judge that does not tell people's wins from their losses."""


@dataclass(frozen=True)
class CorrectedRate:
    """A corrected win rate beside those that it was made from."""

    method: str
    rate: float
    standard_error: float
    interval: Interval
    """At 95%."""
    judge_rate: float
    """The judge's own, over all instructions it judged."""
    human_rate: float
    """People's own, over the labelled instructions."""
    human_interval: Interval
    """What the labels alone would give: a correction is worth its while where it is narrower than this."""
    labelled: int
    unlabelled: int


@dataclass(frozen=True, eq=False)
class _Split:
    human: Floats
    """People's credit on the labelled instructions."""
    judge: Floats
    """The judge's on the same."""
    rest: Floats
    """The judge's on all others."""


def prediction_powered(judge: Outcomes, human: Outcomes) -> CorrectedRate:
    """The win rate by people, estimated from few labels and many judgements.

    The judge's part is weighted by what it is worth, so a useless judge does no harm. Interval from the normal
    approximation with Student's quantile at the number of labels.

    Raises:
        DataError: if fewer than `LEAST_LABELLED` instructions are labelled, or none is left unlabelled.

    Source: Angelopoulos et al. 2023, https://arxiv.org/abs/2311.01453, section 6 and example 6.1 (PPI++)
    """
    split = _split(judge, human)
    n, N = len(split.human), len(split.rest)
    everything = np.concatenate([split.judge, split.rest])
    variance = float(np.var(everything, ddof=1))
    covariance = float(np.cov(split.human, split.judge, ddof=1)[0, 1])
    weight = covariance / ((1 + n / N) * variance) if variance > 0 else 0.0
    rate = float(split.human.mean() + weight * (split.rest.mean() - split.judge.mean()))
    residual = float(np.var(split.human - weight * split.judge, ddof=1))
    error = math.sqrt(residual / n + weight**2 * variance / N)
    reach = student_quantile((1 + LEVEL) / 2, n - 1) * error
    return _result("prediction-powered", rate, error, Interval(rate - reach, rate + reach), split)


def rogan_gladen(judge: Outcomes, human: Outcomes, seed: int) -> CorrectedRate:
    """The win rate by people, from the judge's rate and its rates of error.

    With a the judge's mean credit where people saw a win and b where they saw a loss, the rate is (mean - b) /
    (a - b), held to [0, 1]; a tie is half of each. The interval resamples labelled and unlabelled instructions;
    resamples without a win or without a loss by people are left out, as they leave a or b unknown.

    Raises:
        DataError: as `prediction_powered`.
        UnskilledJudgeError: if the judge does not tell people's wins from their losses.

    Source: Rogan and Gladen 1978, https://doi.org/10.1093/oxfordjournals.aje.a112510
    """
    split = _split(judge, human)
    n, N = len(split.human), len(split.rest)
    columns = np.column_stack(
        [split.human, split.human * split.judge, 1 - split.human, (1 - split.human) * split.judge, split.judge]
    )
    rest_sum = float(split.rest.sum())
    rate, skill = _turned_back(columns.sum(axis=0)[None, :], np.array([rest_sum]), n + N)
    if not skill[0] > _LEAST_SKILL:
        raise UnskilledJudgeError(
            f"judge {judge.judge!r} gives {skill[0]:.2f} more credit where people saw a win than where they saw a "
            f"loss, on {n} labelled instructions. That is too little to correct by; use prediction_powered."
        )
    generator = stream(seed, "evaluate", "rogan-gladen")
    drawn = resampled_sums(columns, generator)
    # The sum over many resampled instructions is normal to all intents, and far cheaper to draw than they are.
    spread = float(np.std(split.rest, ddof=1)) * math.sqrt(N)
    rates, _ = _turned_back(drawn, rest_sum + spread * generator.standard_normal(DRAWS), n + N)
    return _result(
        "Rogan-Gladen", float(rate[0]), float(np.nanstd(rates, ddof=1)), percentile_interval(rates, n), split
    )


def corrected_rates(
    judged: Sequence[Outcomes], labelled: Sequence[Outcomes], seed: int
) -> dict[str, list[CorrectedRate]]:
    """Both corrections of every system that carries labels, by name; Rogan-Gladen's only of a judge with skill.

    Labels that have the reference as their system are turned round.

    Raises:
        DataError: if no system carries labels against its reference, or `prediction_powered` refuses one.
    """
    if not labelled:
        raise DataError(
            "people's labels are an empty list, so there is nothing to correct the judge by. Give annotations by "
            f"people of at least {LEAST_LABELLED} of the pairs that it judges, a row each."
        )
    found: dict[str, list[CorrectedRate]] = {}
    for judge in judged:
        own = [facing for human in labelled if (facing := _facing(judge, human)) is not None]
        if not own:
            continue
        human = pooled(own)
        found[judge.system] = [prediction_powered(judge, human)]
        with contextlib.suppress(UnskilledJudgeError):
            found[judge.system].append(rogan_gladen(judge, human, seed))
    if not found:
        asked = ", ".join(f"{outcomes.system!r} against {outcomes.reference!r}" for outcomes in judged[:3])
        labels = ", ".join(f"{outcomes.system!r} against {outcomes.reference!r}" for outcomes in labelled[:3])
        raise DataError(
            f"people's labels are about {labels}, the judge's about {asked}: none in common. Give labels of a pair of "
            "systems that the judge compares, under the same two names; either may stand first."
        )
    return found


def _facing(judge: Outcomes, human: Outcomes) -> Outcomes | None:
    """The labels as the judge's side has them; None where they are about other systems."""
    if (human.system, human.reference) == (judge.system, judge.reference):
        return human
    return human.turned_round() if (human.reference, human.system) == (judge.system, judge.reference) else None


def _turned_back(sums_D5: Floats, rest_D: Floats, count: int) -> tuple[Floats, Floats]:
    won, won_credit, lost, lost_credit, judge = sums_D5.T
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = won_credit / won, lost_credit / lost
        skill = a - b
        rate = ((judge + rest_D) / count - b) / skill
    # A resample in which the judge shows no skill leaves the rate open; either end of the scale is then as likely.
    # One without a win or without a loss by people, where wins or losses are rare, says nothing at all: NaN.
    rate = np.where((skill > 0) | np.isnan(rate), rate, np.where(rate > 0.5, 0.0, 1.0))
    return np.clip(rate, 0.0, 1.0), skill


def _split(judge: Outcomes, human: Outcomes) -> _Split:
    labels = _facing(judge, human)
    if labels is None:
        raise DataError(
            f"labels are about {human.system!r} against {human.reference!r}, judgements about {judge.system!r} "
            f"against {judge.reference!r}. Both must be about the same two systems."
        )
    by_judge, by_people = instruction_means(judge), instruction_means(labels)
    labelled = sorted(by_judge.keys() & by_people.keys())
    rest = sorted(by_judge.keys() - by_people.keys())
    if len(labelled) < LEAST_LABELLED or len(rest) < 2:
        raise DataError(
            f"a correction needs at least {LEAST_LABELLED} instructions with both a label and a judgement and two "
            f"with a judgement alone, got {len(labelled)} and {len(rest)}."
        )
    return _Split(
        human=np.array([by_people[name] for name in labelled]),
        judge=np.array([by_judge[name] for name in labelled]),
        rest=np.array([by_judge[name] for name in rest]),
    )


def _result(method: str, rate: float, error: float, interval: Interval, split: _Split) -> CorrectedRate:
    n, N = len(split.human), len(split.rest)
    human = float(split.human.mean())
    reach = student_quantile((1 + LEVEL) / 2, n - 1) * float(np.std(split.human, ddof=1)) / math.sqrt(n)
    return CorrectedRate(
        method=method,
        rate=min(1.0, max(0.0, rate)),
        standard_error=error,
        interval=_held(interval),
        judge_rate=float((split.judge.sum() + split.rest.sum()) / (n + N)),
        human_rate=human,
        human_interval=_held(Interval(human - reach, human + reach)),
        labelled=n,
        unlabelled=N,
    )


def _held(interval: Interval) -> Interval:
    return Interval(max(0.0, interval.low), min(1.0, interval.high))
