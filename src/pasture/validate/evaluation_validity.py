"""Does the evaluation set rank systems as live users' instructions do?

The paper compares its 805 aggregated instructions with those that users sent to a demonstration of Alpaca.

Source: Dubois et al. 2023, https://arxiv.org/abs/2305.14387, section 4.4
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pasture.core.errors import DataError
from pasture.core.statistics import Estimate, Floats
from pasture.validate.likeness import Measure, likeness
from pasture.validate.plain import plain
from pasture.validate.resampling import resampled_rates


@dataclass(frozen=True)
class ValidityPoint:
    """One system on both sets of instructions."""

    system: str
    aggregated: Estimate
    """Win rate on the evaluation set."""
    live: Estimate
    """Win rate on live instructions."""


@dataclass(frozen=True)
class EvaluationValidity:
    """How alike both sets of instructions rank the same systems."""

    points: tuple[ValidityPoint, ...]
    """From best to worst on live instructions."""
    spearman: Measure
    kendall: Measure
    r_squared: Measure
    slope: float
    """Of the least-squares line of live win rates over aggregated ones."""
    intercept: float
    aggregated_count: int
    """Instructions."""
    live_count: int

    def to_dict(self) -> dict[str, object]:
        """The result as plain JSON values, NaN as null."""
        return {name: plain(value) for name, value in asdict(self).items()}


def evaluation_validity(aggregated: Mapping[str, Floats], live: Mapping[str, Floats], seed: int) -> EvaluationValidity:
    """How alike the two sets rank the systems; each maps a system to an array "seeds instructions".

    The sets share no instructions, so each is resampled by itself; seeds are resampled for both together.

    Raises:
        DataError: if the sets hold different systems or fewer than three, or a system has no judgement.
    """
    if set(aggregated) != set(live) or len(aggregated) < 3:
        raise DataError(
            "evaluation validity needs the same three systems or more on both sets; "
            f"got {sorted(aggregated)} and {sorted(live)}."
        )
    names = list(aggregated)
    ours = resampled_rates([aggregated[name] for name in names], seed, "aggregated instructions")
    theirs = resampled_rates([live[name] for name in names], seed, "live instructions")
    unjudged = [
        name for name, a, b in zip(names, ours.value, theirs.value, strict=True) if math.isnan(a) or math.isnan(b)
    ]
    if unjudged:
        raise DataError(f"no judgement at all of {', '.join(unjudged)} on one of the sets: leave it out, or judge it.")
    alike = likeness(ours, theirs)
    points = [ValidityPoint(name, ours.estimate(number), theirs.estimate(number)) for number, name in enumerate(names)]
    return EvaluationValidity(
        points=tuple(sorted(points, key=lambda point: (-point.live.value, point.system))),
        spearman=alike.spearman,
        kendall=alike.kendall,
        r_squared=alike.r_squared,
        slope=alike.slope,
        intercept=alike.intercept,
        aggregated_count=ours.instruction_count,
        live_count=theirs.instruction_count,
    )
