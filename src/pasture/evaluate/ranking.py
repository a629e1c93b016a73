"""One scale for all systems from comparisons of any two: Bradley-Terry strengths, ties included, and honest ranks.

Davidson's model: with strengths pi and a readiness to call ties nu,

    P(i wins) = pi_i / (pi_i + pi_j + nu sqrt(pi_i pi_j)),   P(tie) = nu sqrt(pi_i pi_j) / (same).

Strengths are given as logarithms with mean 0. Comparisons may form a round robin, a star around one reference or
anything that connects all systems.

Source: Davidson 1970, https://doi.org/10.1080/01621459.1970.10481082, equations 2.5 and 2.6
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pasture.core.errors import DataError
from pasture.core.seeds import stream
from pasture.core.statistics import ALIKE, LEVEL, Codes, Floats, percentile_interval, unseen_interval
from pasture.evaluate.outcomes import Outcomes
from pasture.evaluate.win_rate import BOOTSTRAP_STREAM

DRAWS = 500
"""Bootstrap draws, each with a refit."""

_PRIOR_PRECISION = 1e-4
"""Of every coefficient: keeps a system that never lost at a finite strength, of about 8 more than its rivals'."""
_LEAST_SPREAD = 1e-6
"""Of a gap between resamples; below it are the errors of the fits."""


@dataclass(frozen=True)
class StrengthInterval:
    """The range of a strength at 95%; infinite on a side where the comparisons set no bound."""

    low: float
    high: float

    def __iter__(self) -> Iterator[float | None]:
        """Both bounds, None for one that is open: JSON has no infinity."""
        return (bound if math.isfinite(bound) else None for bound in (self.low, self.high))

    def in_words(self) -> str:
        """The range as a table shows it."""
        low, high = self
        if low is None:
            return "open" if high is None else f"{high:+.2f} or less"
        return f"{low:+.2f} or more" if high is None else f"{low:+.2f} to {high:+.2f}"


@dataclass(frozen=True)
class RankedSystem:
    """One system's place on the common scale."""

    system: str
    strength: float
    """Logarithm of Davidson's pi, mean 0 over systems: a gap of 1 is odds of 2.7 to 1 among decided comparisons."""
    standard_error: float | None
    """None where all outcomes of the system were alike, so that resampling shows no spread."""
    interval: StrengthInterval
    """Of a system that won every time open above, of one that lost every time open below."""
    rank: int
    """1 is the strongest."""
    rank_low: int
    rank_high: int
    """Ranks that the comparisons do not rule out, at 95% for this system."""
    judged: int


@dataclass(frozen=True)
class Ranking:
    """Systems from strongest to weakest."""

    systems: tuple[RankedSystem, ...]
    tie_readiness: float
    """Davidson's nu: 0 where no tie was called; at 1 equal systems tie in a third of all comparisons."""


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of systems, and what each instruction adds to their wins, losses and ties."""

    first: Codes
    second: Codes
    counts: Floats
    """Shape (instructions, 3 * pairs): wins of the first, of the second, ties."""
    judged: Floats
    """Comparisons of each pair, whole numbers; their shares in `counts` add up to these but for rounding."""
    system_count: int


@dataclass(frozen=True, eq=False)
class _Unseen:
    """Strengths if the other outcome of a system, all of whose outcomes were alike, had merely been missed."""

    low: Floats | None
    """Of all systems, had its losses been missed; None where it lost every time, so that nothing bounds it below."""
    high: Floats | None
    """Had its wins been missed; None where it won every time."""


def bradley_terry(comparisons: Sequence[Outcomes], seed: int, draws: int = DRAWS) -> Ranking:
    """The strengths and ranks of all systems that one judge compared, references among them.

    A credit between win, tie and loss counts as that share of a win and the rest of a loss. Errors and intervals come
    from resampling instructions. The interval of a rank holds the ranks left when every rival that is shown to be
    better or worse, at 95% for all rivals of the system at once, is put above or below it. A system whose outcomes
    were all alike is bounded by the outcome that could have been missed, as `unseen_interval` bounds its win rate.

    Raises:
        DataError: if judges differ, nothing was judged, or the comparisons fall into groups that never met.

    Source of the rank intervals: Mogstad et al. 2024, https://doi.org/10.1093/restud/rdad006, section 3
    """
    if len({outcomes.judge for outcomes in comparisons}) > 1:
        raise DataError("a ranking needs comparisons by one judge; rank each judge's apart.")
    names, pairs = _pairs(comparisons)
    _check_connected(names, pairs)
    coefficients = _fitted(pairs, pairs.counts.sum(axis=0), None)
    strength_S = _centred(coefficients)
    drawn_DS = _resampled(pairs, coefficients, seed, draws)
    unseen = _unseen(pairs, coefficients)
    low_S, high_S = _rank_bounds(strength_S, drawn_DS, _shown_gaps(strength_S, unseen))
    judged_S = _judged(pairs)
    order = np.argsort(-strength_S, kind="stable")
    ranked = [
        RankedSystem(
            system=names[system],
            strength=float(strength_S[system]),
            standard_error=None if system in unseen else float(np.std(drawn_DS[:, system], ddof=1)),
            interval=_interval(system, drawn_DS[:, system], unseen.get(system), len(pairs.counts)),
            rank=place + 1,
            rank_low=int(low_S[system]),
            rank_high=int(high_S[system]),
            judged=int(judged_S[system]),
        )
        for place, system in enumerate(order.tolist())
    ]
    ties = pairs.counts[:, 2::3].sum()
    return Ranking(tuple(ranked), float(np.exp(coefficients[-1])) if ties > 0 else 0.0)


def _resampled(pairs: _Pairs, coefficients: Floats, seed: int, draws: int) -> Floats:
    """The strengths by each resample of instructions."""
    generator = stream(seed, *BOOTSTRAP_STREAM, "bradley-terry")
    instruction_count = len(pairs.counts)
    drawn_DS = np.empty((draws, pairs.system_count))
    for draw in range(draws):
        picks = generator.integers(0, instruction_count, size=instruction_count)
        totals = np.bincount(picks, minlength=instruction_count) @ pairs.counts
        drawn_DS[draw] = _centred(_fitted(pairs, totals, coefficients))
    return drawn_DS


def _interval(system: int, drawn_D: Floats, unseen: _Unseen | None, instruction_count: int) -> StrengthInterval:
    if unseen is None:
        return StrengthInterval(*percentile_interval(drawn_D, instruction_count))
    return StrengthInterval(
        -math.inf if unseen.low is None else float(unseen.low[system]),
        math.inf if unseen.high is None else float(unseen.high[system]),
    )


def _unseen(pairs: _Pairs, coefficients: Floats) -> dict[int, _Unseen]:
    """The systems that came out alike on every instruction, by number, with the strengths that bound theirs."""
    ties = pairs.counts[:, 2::3] / 2
    won_NP, lost_NP = pairs.counts[:, 0::3] + ties, pairs.counts[:, 1::3] + ties
    found = {}
    for system in range(pairs.system_count):
        first, second = pairs.first == system, pairs.second == system
        credit = won_NP[:, first].sum(axis=1) + lost_NP[:, second].sum(axis=1)
        asked = (won_NP + lost_NP)[:, first | second].sum(axis=1)
        means = credit[asked > 0] / asked[asked > 0]
        if np.ptp(means) > ALIKE:
            continue
        missed = unseen_interval(0.0, len(means)).high
        found[system] = _Unseen(
            low=_had_missed(pairs, coefficients, system, missed, 0.0) if means[0] > ALIKE else None,
            high=_had_missed(pairs, coefficients, system, missed, 1.0) if means[0] < 1 - ALIKE else None,
        )
    return found


def _had_missed(pairs: _Pairs, coefficients: Floats, system: int, missed: float, credit: float) -> Floats:
    """The strengths if the share `missed` of the system's comparisons had given it `credit`: 1 a win, 0 a loss."""
    table = pairs.counts.sum(axis=0).reshape(-1, 3)
    own = (pairs.first == system) | (pairs.second == system)
    asked = table[own].sum(axis=1)
    by_first = np.where(pairs.first[own] == system, credit, 1 - credit)
    decided = (1 - missed) * (table[own, :2] + table[own, 2:] / 2)
    decided += missed * (asked * np.stack([by_first, 1 - by_first])).T
    # Ties count as half a win and half a loss: with ties alone no strength would explain a single loss.
    table[own] = np.column_stack([decided, np.zeros(len(decided))])
    return _centred(_fitted(pairs, table.ravel(), coefficients))


def _shown_gaps(strength_S: Floats, unseen: Mapping[int, _Unseen]) -> Floats:
    """How far each system (row) is shown to be from each other before resampling; 0 where nothing is shown.

    Of systems in `unseen` it is the least gap that they may have.
    """
    low_SS = strength_S[:, None] - strength_S[None, :]
    high_SS = low_SS.copy()
    for system, found in unseen.items():
        nothing = np.full(len(strength_S), math.inf)
        low = -nothing if found.low is None else found.low[system] - found.low
        high = nothing if found.high is None else found.high[system] - found.high
        low_SS[system], high_SS[system] = np.minimum(low_SS[system], low), np.maximum(high_SS[system], high)
        low_SS[:, system] = np.minimum(low_SS[:, system], -high)
        high_SS[:, system] = np.maximum(high_SS[:, system], -low)
    shown: Floats = np.where(low_SS > 0, low_SS, np.where(high_SS < 0, high_SS, 0.0))
    return shown


def _pairs(comparisons: Sequence[Outcomes]) -> tuple[list[str], _Pairs]:
    judged = [outcomes.where(outcomes.judged) for outcomes in comparisons if outcomes.judged.any()]
    judged = [outcomes for outcomes in judged if outcomes.system != outcomes.reference]
    if not judged:
        raise DataError("a ranking needs at least one judged comparison of two systems, got none.")
    names = sorted({name for outcomes in judged for name in (outcomes.system, outcomes.reference)})
    code = {name: number for number, name in enumerate(names)}
    labels = np.unique(np.concatenate([outcomes.instruction for outcomes in judged]))
    counts = np.zeros((len(labels), 3 * len(judged)))
    for number, outcomes in enumerate(judged):
        rows = np.searchsorted(labels, outcomes.instruction)
        tie = outcomes.credit == 0.5
        shares = (np.where(tie, 0.0, outcomes.credit), np.where(tie, 0.0, 1 - outcomes.credit), tie.astype(np.float64))
        for kind, share in enumerate(shares):
            counts[:, 3 * number + kind] = np.bincount(rows, weights=share, minlength=len(labels))
    return names, _Pairs(
        first=np.array([code[outcomes.system] for outcomes in judged]),
        second=np.array([code[outcomes.reference] for outcomes in judged]),
        counts=counts,
        judged=np.array([len(outcomes) for outcomes in judged], dtype=np.float64),
        system_count=len(names),
    )


def _check_connected(names: list[str], pairs: _Pairs) -> None:
    size = pairs.system_count
    graph = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(size, size))
    count, group = connected_components(graph, directed=False)
    if count > 1:
        apart = [names[int(np.flatnonzero(group == number)[0])] for number in range(count)]
        raise DataError(
            f"the comparisons fall into {count} groups of systems that never met (one of each: {apart}). "
            "Compare across the groups, or rank each apart."
        )


def _fitted(pairs: _Pairs, totals: Floats, start: Floats | None) -> Floats:
    """Log strengths and, last, the log of nu, at the penalized maximum of the likelihood, by Newton's method.

    The penalty also picks one of the equivalent solutions that differ by a shift; `_centred` moves it to mean 0.
    """
    size = pairs.system_count
    won, lost, tied = totals.reshape(-1, 3).T
    asked = won + lost + tied
    has_ties = bool(tied.sum() > 0)
    at = np.zeros(size + 1) if start is None else start.copy()
    for _ in range(200):
        gap = at[pairs.first] - at[pairs.second]
        weights = np.stack([np.exp(gap / 2), np.exp(-gap / 2), np.full(len(gap), np.exp(at[-1]) * has_ties)])
        p_won, p_lost, p_tied = weights / weights.sum(axis=0)
        lead = (p_won - p_lost) / 2
        slope = (won - lost) / 2 - asked * lead
        gradient = -_PRIOR_PRECISION * at
        gradient[:-1] += _scatter(pairs.first, slope, size) - _scatter(pairs.second, slope, size)
        gradient[-1] += (tied - asked * p_tied).sum()
        curve = asked * ((p_won + p_lost) / 4 - lead**2)
        mixed = -asked * lead * p_tied
        hessian = np.zeros((size + 1, size + 1))
        crossed = _scatter(pairs.first * size + pairs.second, curve, size * size).reshape(size, size)
        hessian[:-1, :-1] = -crossed - crossed.T
        hessian[:-1, -1] = _scatter(pairs.first, mixed, size) - _scatter(pairs.second, mixed, size)
        hessian[-1, :-1] = hessian[:-1, -1]
        diagonal = np.append(
            _scatter(pairs.first, curve, size) + _scatter(pairs.second, curve, size),
            (asked * p_tied * (1 - p_tied)).sum(),
        )
        hessian[np.diag_indices(size + 1)] += diagonal + _PRIOR_PRECISION
        step = np.linalg.solve(hessian, gradient)
        largest = float(np.abs(step).max())
        # A step of more than two logits can overshoot where almost every comparison went one way.
        at += step * min(1.0, 2.0 / max(largest, 1e-9))
        if largest < 1e-7:
            break
    return at


def _scatter(codes: Codes, values: Floats, size: int) -> Floats:
    return np.bincount(codes, weights=values, minlength=size).astype(np.float64)


def _centred(coefficients: Floats) -> Floats:
    strengths: Floats = coefficients[:-1]
    return strengths - float(strengths.mean())


def _judged(pairs: _Pairs) -> Floats:
    size = pairs.system_count
    return _scatter(pairs.first, pairs.judged, size) + _scatter(pairs.second, pairs.judged, size)


def _rank_bounds(strength_S: Floats, drawn_DS: Floats, shown_SS: Floats) -> tuple[Codes, Codes]:
    """The first and last rank that each system may hold; a gap of 0 in `shown_SS` sets nothing apart."""
    size = len(strength_S)
    low, high = np.ones(size, dtype=np.int64), np.full(size, size, dtype=np.int64)
    for system in range(size):
        rivals = np.flatnonzero(shown_SS[system])
        if not len(rivals):
            continue
        gap = strength_S[system] - strength_S[rivals]
        drawn = drawn_DS[:, [system]] - drawn_DS[:, rivals]
        error = np.maximum(np.std(drawn, axis=0, ddof=1), _LEAST_SPREAD)
        critical = np.quantile(np.max(np.abs(drawn - gap) / error, axis=1), LEVEL)
        shown = shown_SS[system, rivals]
        low[system] += int((shown < -critical * error).sum())
        high[system] -= int((shown > critical * error).sum())
    return low, high
