"""How far apart the systems of a study are, pair by pair, in each arm by the arm's own judge."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import stdtrit

from pasture.recipe import Study
from pasture.steps import Task
from pasture.steps.study import arm_outcomes
from pasture.validate.rank_correlation import p_value, pair_tests
from pasture.validate.resampling import CrossedMean

_UPPER_TAIL = 0.975
_START = "base"
"""The model that everything is made from: nothing was learned there."""


def differences(task: Task, study: Study) -> list[dict[str, Any]]:
    """For each arm, people's first and the simulation's next, the paired differences of what is made there."""
    first = [study.people, study.simulation]
    given = {_START, *task.settings["recipe"]["baselines"]}
    found = []
    for arm in [*first, *(name for name in study.arms if name not in first)]:
        outcomes = arm_outcomes(task, study, arm, "evaluation")
        made = {system: credit for system, credit in outcomes.items() if system not in given}
        world = {"feedback": study.arms[arm].title or arm, "judge": study.arms[arm].judge}
        found.append({**world, "pairs": paired_differences(made)})
    return found


def paired_differences(outcomes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each pair of systems, the better one first, from the best two on; outcomes are arrays "seeds instructions".

    Seeds and instructions both count as drawn from many, as in the ranking: see `pair_tests`. A pair that was judged
    on fewer than two common instructions is left out.
    """
    rates = {system: float(np.nanmean(credit)) for system, credit in outcomes.items() if np.isfinite(credit).any()}
    order = sorted(rates, key=lambda system: (-rates[system], system))
    couples = list(combinations(order, 2))
    tested = zip(couples, pair_tests({system: outcomes[system] for system in order}, couples), strict=True)
    return [_row(couple, found) for couple, found in tested if not math.isnan(found.variance)]


def _row(couple: Sequence[str], found: CrossedMean) -> dict[str, Any]:
    half = float(stdtrit(found.degrees, _UPPER_TAIL)) * math.sqrt(found.variance)
    low, high = (min(1.0, max(-1.0, found.mean + side)) for side in (-half, half))
    return {
        "system": couple[0],
        "baseline": couple[1],
        "difference": found.mean,
        "interval_low": low,
        "interval_high": high,
        "p_value": p_value(found),
    }
