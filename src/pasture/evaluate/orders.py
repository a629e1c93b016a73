"""What the order of presentation did to a judge who saw pairs both ways around."""

from dataclasses import dataclass

import numpy as np

from pasture.core.errors import DataError
from pasture.core.seeds import stream
from pasture.core.statistics import Estimate, clustered_mean
from pasture.evaluate.outcomes import Outcomes
from pasture.evaluate.win_rate import BOOTSTRAP_STREAM, instruction_means


@dataclass(frozen=True)
class BothOrders:
    """A win rate in which both orders weigh the same."""

    win_rate: Estimate
    """Over instructions judged in both orders, each the mean of its two orders."""
    flip_rate: Estimate
    """Share of these whose verdict turned with the order: a judge without position bias has few, at random."""
    first_gain: float
    """Win rate when shown first less that when shown second: what the place at the front is worth."""
    both: int
    """Instructions judged in both orders."""
    single: int
    """Instructions judged in one order only, left out here."""


def both_orders(outcomes: Outcomes, seed: int) -> BothOrders:
    """The both-order estimate of one system, from preferences that hold each pair twice, once in each order.

    A verdict turns when one order says win or tie and the other says something else.

    Raises:
        DataError: if no instruction was judged in both orders.
    """
    first, second = _by_order(outcomes)
    names = sorted(first.keys() & second.keys())
    if not names:
        raise DataError(
            f"no instruction of {outcomes.system!r} was judged in both orders ({len(first)} only with it first, "
            f"{len(second)} only with it second). Ask the judge for both orders."
        )
    shown_first = np.array([first[name] for name in names])
    shown_second = np.array([second[name] for name in names])
    flips = (np.sign(shown_first - 0.5) != np.sign(shown_second - 0.5)).astype(np.float64)
    codes = np.arange(len(names))
    return BothOrders(
        win_rate=clustered_mean(codes, (shown_first + shown_second) / 2, stream(seed, *BOOTSTRAP_STREAM)),
        flip_rate=clustered_mean(codes, flips, stream(seed, *BOOTSTRAP_STREAM)),
        first_gain=float(np.mean(shown_first - shown_second)),
        both=len(names),
        single=len(first) + len(second) - 2 * len(names),
    )


def has_both_orders(outcomes: Outcomes) -> bool:
    """Whether any instruction was judged in both orders, so that `both_orders` has an estimate."""
    first, second = _by_order(outcomes)
    return not first.keys().isdisjoint(second)


def _by_order(outcomes: Outcomes) -> tuple[dict[str, float], dict[str, float]]:
    """Mean credit by instruction where the judge saw the system's completion first, and where second."""
    first = instruction_means(outcomes.where(outcomes.shown_first))
    return first, instruction_means(outcomes.where(~outcomes.shown_first))
