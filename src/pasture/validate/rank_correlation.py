"""Does the simulator rank methods as people do? Two worlds, one list of methods, one number that says how alike.

In one world every method learns from simulated preferences and the noise-free pool judges; in the other it learns from
people's and people judge.

Source: Dubois et al. 2023, https://arxiv.org/abs/2305.14387, section 4.2 and Figure 3
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from pasture.core.errors import DataError
from pasture.core.seeds import stream
from pasture.core.statistics import Estimate, Floats, Interval
from pasture.validate.likeness import Measure, likeness, spearmans
from pasture.validate.plain import plain
from pasture.validate.resampling import CrossedMean, Rates, SeedSquares, crossed_mean, mean_squares, resampled_rates

SIGNIFICANCE = 0.05
"""Of a pair's difference, after Holm's correction over all pairs of one world."""
GOAL = 0.9
"""The Spearman correlation that the simulator is held to."""
STUDY_SIZES = (25, 50, 100, 200, 400, 800, 1600)
"""Numbers of instructions at which a study's power is shown."""
STUDIES = 1000
"""Studies drawn for each number of instructions."""

Outcomes = Mapping[str, Floats]
"""By system, an array "seeds instructions" of 0, 1/2 and 1, NaN where nothing was judged."""


@dataclass(frozen=True)
class SystemPoint:
    """One system in both worlds."""

    system: str
    simulated: Estimate
    """Win rate in the simulation."""
    people: Estimate
    """Win rate among people."""
    simulated_judged: int
    people_judged: int


@dataclass(frozen=True)
class PairOrder:
    """Two systems in both worlds; differences are those of the first's win rate less the second's."""

    first: str
    """The one that is better in the simulation."""
    second: str
    simulated_difference: float
    people_difference: float
    simulated_p_value: float
    """Of "no difference", two-sided, Holm-corrected over all pairs of this world; NaN where it cannot be tested."""
    people_p_value: float
    swapped: bool
    """Whether people have them the other way round."""
    simulated_significant: bool
    people_significant: bool


@dataclass(frozen=True)
class StudySize:
    """What studies of so many instructions would have reported."""

    instruction_count: int
    label_count: int
    """Judgements in both worlds together, at the share judged here."""
    spearman: float
    """The median study's."""
    interval: Interval
    """Where 95% of the studies' correlations lie."""
    reaches_goal: float
    """Share of the studies that report at least `GOAL`."""
    clear_pairs_right: float | None
    """Share of the studies whose simulation orders every pair that people told apart; None where there is none."""


@dataclass(frozen=True)
class RankCorrelation:
    """How alike the simulation and people rank the same systems."""

    points: tuple[SystemPoint, ...]
    """From best to worst by people."""
    spearman: Measure
    kendall: Measure
    r_squared: Measure
    slope: float
    """Of the least-squares line of people's win rates over the simulation's."""
    intercept: float
    pairs: tuple[PairOrder, ...]
    power: tuple[StudySize, ...]
    instruction_count: int
    seed_count: int

    def swapped(self) -> tuple[PairOrder, ...]:
        """The pairs that change their order."""
        return tuple(pair for pair in self.pairs if pair.swapped)

    def contradictions(self) -> tuple[PairOrder, ...]:
        """The swapped pairs of which both worlds are sure."""
        return tuple(pair for pair in self.swapped() if pair.simulated_significant and pair.people_significant)

    def to_dict(self) -> dict[str, object]:
        """The result as plain JSON values, NaN as null."""
        return {name: plain(value) for name, value in asdict(self).items()}


def rank_correlation(
    simulated: Outcomes, people: Outcomes, seed: int, sizes: Sequence[int] = STUDY_SIZES
) -> RankCorrelation:
    """How alike both worlds rank the systems; column i is the same instruction in both, row s the same seed.

    Instructions and seeds are resampled for all systems and both worlds together.

    Raises:
        DataError: if the worlds hold different systems or fewer than three, a system has no judgement, or arrays do
            not share their instructions and seeds.
    """
    names = _common_systems(simulated, people)
    arrays = [simulated[name] for name in names] + [people[name] for name in names]
    rates = resampled_rates(arrays, seed, "ranking")
    size = len(names)
    unjudged = [name for name, value in zip([*names, *names], rates.value, strict=True) if math.isnan(value)]
    if unjudged:
        raise DataError(f"no judgement at all of {', '.join(unjudged)}: leave out the system, or judge it.")
    alike = likeness(rates.half(slice(None, size)), rates.half(slice(size, None)))
    pairs = _pairs(names, simulated, people)
    return RankCorrelation(
        points=_points(names, rates),
        spearman=alike.spearman,
        kendall=alike.kendall,
        r_squared=alike.r_squared,
        slope=alike.slope,
        intercept=alike.intercept,
        pairs=pairs,
        power=tuple(_study_size(arrays, pairs, names, count, seed) for count in sizes),
        instruction_count=rates.instruction_count,
        seed_count=max(len(array) for array in arrays),
    )


def _common_systems(simulated: Outcomes, people: Outcomes) -> list[str]:
    names = list(simulated)
    alone = sorted(set(simulated) ^ set(people))
    if alone:
        raise DataError(f"both worlds must hold the same systems; in one alone: {', '.join(alone)}.")
    if len(names) < 3:
        raise DataError(f"a ranking needs at least three systems, got {len(names)}: {', '.join(names)}.")
    return names


def _points(names: Sequence[str], rates: Rates) -> tuple[SystemPoint, ...]:
    size = len(names)
    points = [
        SystemPoint(
            system=name,
            simulated=rates.estimate(number),
            people=rates.estimate(size + number),
            simulated_judged=int(rates.judged[number]),
            people_judged=int(rates.judged[size + number]),
        )
        for number, name in enumerate(names)
    ]
    return tuple(sorted(points, key=lambda point: (-point.people.value, -point.simulated.value, point.system)))


def pair_tests(world: Outcomes, couples: Sequence[tuple[str, str]]) -> list[CrossedMean]:
    """The difference of each pair's win rates with its crossed variance.

    The spread between seeds is that of all pairs together, with (systems - 1)(seeds - 1) degrees of freedom, as in an
    analysis of variance of systems by seeds: three seeds of one pair could not tell any difference from chance.
    """
    squares = [mean_squares(world[a] - world[b]) for a, b in couples]
    several = [one for one in squares if one.seed_count > 1 and one.instruction_count > 1]
    systems = sum(len(outcomes) > 1 for outcomes in world.values())
    shared = None
    if several and systems > 1:
        shared = SeedSquares(
            seeds=float(np.mean([one.seeds for one in several])),
            rest=float(np.mean([one.rest for one in several])),
            degrees=float((systems - 1) * (several[0].seed_count - 1)),
        )
    return [crossed_mean(one, shared) for one in squares]


def _pairs(names: Sequence[str], simulated: Outcomes, people: Outcomes) -> tuple[PairOrder, ...]:
    couples = list(combinations(names, 2))
    found = [pair_tests(world, couples) for world in (simulated, people)]
    p_values = [holm([p_value(difference) for difference in differences]) for differences in found]
    pairs = []
    for number, (a, b) in enumerate(couples):
        here, there = float(found[0][number].mean), float(found[1][number].mean)
        first, second = (a, b) if here >= 0 else (b, a)
        sign = 1.0 if here >= 0 else -1.0
        ours, theirs = p_values[0][number], p_values[1][number]
        pairs.append(
            PairOrder(
                first=first,
                second=second,
                simulated_difference=sign * here,
                people_difference=sign * there,
                simulated_p_value=ours,
                people_p_value=theirs,
                swapped=here * there < 0,
                simulated_significant=ours < SIGNIFICANCE,
                people_significant=theirs < SIGNIFICANCE,
            )
        )
    return tuple(pairs)


def p_value(difference: CrossedMean) -> float:
    """Two-sided, of a mean difference of zero by Student's t; NaN where the variance is unknown."""
    if math.isnan(difference.variance):
        return math.nan
    if difference.variance == 0:
        return 1.0 if difference.mean == 0 else 0.0
    t = abs(difference.mean) / math.sqrt(difference.variance)
    return 2 * float(stdtr(difference.degrees, -t))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, corrected so that one false alarm in all of them is as rare as in one.

    NaN is no test and stays NaN.

    Source: Holm 1979, https://www.jstor.org/stable/4615733
    """
    tested = sorted((value, number) for number, value in enumerate(p_values) if not math.isnan(value))
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for place, (value, number) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - place) * value))
        corrected[number] = highest
    return corrected


class _Clear(NamedTuple):
    """Places of the better and the worse system of each pair that people told apart."""

    better: list[int]
    worse: list[int]


def _study_size(
    arrays: Sequence[Floats], pairs: Sequence[PairOrder], names: Sequence[str], count: int, seed: int
) -> StudySize:
    """What `STUDIES` studies report that draw `count` instructions from those at hand, with replacement."""
    credit = np.column_stack([np.nansum(array, axis=0) for array in arrays])
    judged = np.column_stack([np.isfinite(array).sum(axis=0) for array in arrays])
    available, size = len(credit), len(names)
    generator = stream(seed, "validate", "study-size", count)
    counts = generator.multinomial(count, np.full(available, 1 / available), size=STUDIES).astype(np.float64)
    with np.errstate(invalid="ignore"):
        drawn: Floats = (counts @ credit) / (counts @ judged)
    values = spearmans(drawn[:, :size], drawn[:, size:])
    known = values[np.isfinite(values)]
    clear = _clear_pairs(pairs, names)
    right = (drawn[:, clear.better] > drawn[:, clear.worse]).all(axis=1)
    return StudySize(
        instruction_count=count,
        label_count=round(count * float(judged.sum()) / available),
        spearman=float(np.median(known)) if len(known) else math.nan,
        interval=Interval(*np.quantile(known, [0.025, 0.975]).tolist()) if len(known) else Interval(math.nan, math.nan),
        reaches_goal=float((values >= GOAL - 1e-12).mean()),
        clear_pairs_right=float(right.mean()) if clear.better else None,
    )


def _clear_pairs(pairs: Sequence[PairOrder], names: Sequence[str]) -> _Clear:
    place = {name: number for number, name in enumerate(names)}
    ordered = [
        (pair.first, pair.second) if pair.people_difference > 0 else (pair.second, pair.first)
        for pair in pairs
        if pair.people_significant
    ]
    return _Clear([place[better] for better, _ in ordered], [place[worse] for _, worse in ordered])
