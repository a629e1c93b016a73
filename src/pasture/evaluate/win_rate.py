"""How often a judge prefers one system to a reference, and whether two systems differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pasture.core.errors import DataError
from pasture.core.records import Comparison, Preference, WinRate
from pasture.core.seeds import stream
from pasture.core.statistics import (
    Estimate,
    Floats,
    Interval,
    clustered_mean,
    group_sums,
    mean_from_sums,
    resampled_sums,
    sign_flip_p_value,
    standard_error_of_mean,
)
from pasture.evaluate.outcomes import Outcomes, outcomes_of

BOOTSTRAP_STREAM = "evaluate", "bootstrap-over-instructions"
"""Name of the random stream of every interval over instructions, before the seed that the caller gives."""


def win_rate(
    preferences: Sequence[Preference],
    comparisons: Sequence[Comparison],
    *,
    system: str,
    reference: str,
    judge: str,
    seed: int,
) -> WinRate:
    """The share of judgements that `system` won against `reference`: a win counts 1, a tie 1/2, a loss 0.

    `judge` is the name that the result carries; all `preferences` about the two systems are taken to be its own.
    Unjudged comparisons are counted and left out of the rate. The standard error is the sample standard deviation
    over the square root of the judged count, as published leaderboards have it; the interval is a 95% bootstrap
    interval that resamples instructions, so that several judgements of one instruction are not taken for several
    instructions.

    Raises:
        DataError: if the two systems were never compared, or a preference belongs to no comparison.

    Source: Dubois et al. 2023, https://arxiv.org/abs/2305.14387, section 2
    """
    pairs = outcomes_of(preferences, comparisons, judge=judge, reference=reference)
    for outcomes in pairs:
        if outcomes.system == system:
            return summarize(outcomes, seed)
    met = sorted(outcomes.system for outcomes in pairs)
    raise DataError(f"system {system!r} was never compared with {reference!r}. Systems that were: {met}.")


def summarize(outcomes: Outcomes, seed: int) -> WinRate:
    """The win rate of one system's outcomes; see `win_rate`."""
    judged = outcomes.judged
    credit = outcomes.credit[judged]
    codes = np.unique(outcomes.instruction[judged], return_inverse=True)[1]
    return win_rate_of(outcomes, clustered_mean(codes, credit, stream(seed, *BOOTSTRAP_STREAM)))


def win_rate_of(outcomes: Outcomes, estimate: Estimate) -> WinRate:
    """The record of one system's outcomes, given the estimate of its mean credit; wins, losses, ties by verdict."""
    credit = outcomes.credit[outcomes.judged]
    # By the judge's word: one that changed its mind with the order called a tie, whatever its mean probability.
    verdict = (outcomes.credit if outcomes.verdict is None else outcomes.verdict)[outcomes.judged]
    count = len(credit)
    return WinRate(
        system=outcomes.system,
        reference=outcomes.reference,
        judge=outcomes.judge,
        # fsum: the published rates are met to the last digit, whatever the order of the rows.
        rate=math.fsum(credit) / count if count else None,
        standard_error=standard_error_of_mean(credit) if count > 1 else None,
        interval_low=fraction_or_none(estimate.interval.low),
        interval_high=fraction_or_none(estimate.interval.high),
        asked=len(outcomes),
        judged=count,
        unjudged=len(outcomes) - count,
        wins=int((verdict > 0.5).sum()),
        losses=int((verdict < 0.5).sum()),
        ties=int((verdict == 0.5).sum()),
        mean_length=float(np.mean(outcomes.system_length)) if len(outcomes) else None,
    )


def fraction_or_none(value: float) -> float | None:
    """`value` held to [0, 1], or None for NaN."""
    return None if math.isnan(value) else min(1.0, max(0.0, value))


def discrete_rate(record: WinRate) -> float | None:
    """The win rate by verdicts alone; a judgement without one is rounded to win, tie or loss."""
    return (record.wins + record.ties / 2) / record.judged if record.judged else None


def summarize_all(systems: Sequence[Outcomes], seed: int) -> list[WinRate]:
    """The win rate of every system, all with the same resamples of instructions.

    One resample serves all systems, so a board of hundreds costs little more than one system.

    Raises:
        DataError: if `systems` is no list of outcomes, or is empty.
    """
    require_systems(systems, "a table of win rates")
    instructions = np.concatenate([outcomes.instruction for outcomes in systems])
    owners = np.repeat(np.arange(len(systems)), [len(outcomes) for outcomes in systems])
    codes = np.unique(instructions, return_inverse=True)[1].astype(np.int64)
    credit = np.concatenate([outcomes.credit for outcomes in systems])
    size = int(codes.max()) + 1 if len(codes) else 0
    columns = np.zeros((size, 2 * len(systems)))
    judged = ~np.isnan(credit)
    for number in range(len(systems)):
        own = judged & (owners == number)
        columns[:, 2 * number], columns[:, 2 * number + 1] = group_sums(codes[own], credit[own], size)
    drawn = resampled_sums(columns, stream(seed, *BOOTSTRAP_STREAM))
    records = []
    for number, outcomes in enumerate(systems):
        sums, counts = columns[:, 2 * number], columns[:, 2 * number + 1]
        estimate = mean_from_sums(sums, counts, drawn[:, 2 * number : 2 * number + 2])
        records.append(win_rate_of(outcomes, estimate))
    return records


def require_systems(systems: Sequence[Outcomes], what: str) -> None:
    """See that there are outcomes to make `what` of.

    Raises:
        DataError: if `systems` is no list of outcomes, or is empty.
    """
    if isinstance(systems, Outcomes):
        raise DataError(f"{what} takes a list of systems, got the outcomes of one. Write [outcomes] around it.")
    if not systems:
        raise DataError(f"{what} needs at least one system, got none.")
    other = next((one for one in systems if not isinstance(one, Outcomes)), None)
    if other is not None:
        raise DataError(f"{what} takes Outcomes, one of those that outcomes_of lists, got {type(other).__name__}.")


@dataclass(frozen=True)
class PairedDifference:
    """How much more often one system wins than another, on the instructions that both were judged on."""

    system_a: str
    system_b: str
    difference: float
    """Win rate of a less that of b; each shared instruction counts once."""
    standard_error: float
    interval: Interval
    """Bootstrap over shared instructions, 95%."""
    p_value: float
    """Of "both win equally often", two-sided, by flipping the sign of whole instructions."""
    shared: int
    """Instructions on which both have a judgement."""
    only_a: int
    only_b: int


def paired_difference(a: Outcomes, b: Outcomes, seed: int) -> PairedDifference:
    """The paired comparison of two systems that were judged against the same reference.

    Raises:
        DataError: if judge or reference differ, or no instruction is shared.
    """
    require_systems([a, b], "a paired difference")
    if (a.judge, a.reference) != (b.judge, b.reference):
        raise DataError(
            f"{a.system!r} was judged by {a.judge!r} against {a.reference!r}, {b.system!r} by {b.judge!r} against "
            f"{b.reference!r}. A paired test needs one judge and one reference."
        )
    mean_a, mean_b = instruction_means(a), instruction_means(b)
    shared = sorted(mean_a.keys() & mean_b.keys())
    if not shared:
        raise DataError(f"{a.system!r} and {b.system!r} share no judged instruction, so they cannot be paired.")
    differences = np.array([mean_a[name] - mean_b[name] for name in shared])
    # Credit lies in [0, 1], so half the difference plus a half does too: the interval of a rate serves.
    halved = clustered_mean(np.arange(len(shared)), (differences + 1) / 2, stream(seed, *BOOTSTRAP_STREAM))
    return PairedDifference(
        system_a=a.system,
        system_b=b.system,
        difference=float(differences.mean()),
        standard_error=2 * halved.standard_error,
        interval=Interval(2 * halved.interval.low - 1, 2 * halved.interval.high - 1),
        p_value=sign_flip_p_value(differences, stream(seed, "evaluate", "sign-flips")),
        shared=len(shared),
        only_a=len(mean_a) - len(shared),
        only_b=len(mean_b) - len(shared),
    )


def against_even(outcomes: Outcomes, seed: int) -> float:
    """Two-sided p-value of "system and reference win equally often", by flipping whole instructions.

    Raises:
        DataError: if nothing was judged.
    """
    means = np.array(list(instruction_means(outcomes).values()))
    if len(means) == 0:
        raise DataError(f"{outcomes.system!r}: nothing was judged, so there is nothing to test.")
    return sign_flip_p_value(means - 0.5, stream(seed, "evaluate", "sign-flips"))


def instruction_means(outcomes: Outcomes) -> dict[str, float]:
    """Mean credit on each instruction that has a judgement."""
    judged = outcomes.judged
    labels, codes = np.unique(outcomes.instruction[judged], return_inverse=True)
    sums, counts = group_sums(codes, outcomes.credit[judged], len(labels))
    means: Floats = sums / counts
    return dict(zip(labels.tolist(), means.tolist(), strict=True))
