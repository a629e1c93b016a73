"""Bradley-Terry strengths are the literature's; ranks hold what they promise."""

from dataclasses import replace

import evalica
import numpy as np
import pytest

from pasture.core.errors import DataError
from pasture.evaluate.outcomes import Outcomes
from pasture.evaluate.ranking import bradley_terry
from tests.evaluate.pairs import outcomes


def duel(first: str, second: str, credit: np.ndarray) -> Outcomes:
    return replace(outcomes(credit, system=first), reference=second)


def davidson(rng: np.random.Generator, strengths: dict[str, float], nu: float, count: int) -> list[Outcomes]:
    """A round robin on `count` instructions, drawn from Davidson's model."""
    names = list(strengths)
    rows = []
    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            gap = strengths[first] - strengths[second]
            weight = np.array([np.exp(gap / 2), nu, np.exp(-gap / 2)])
            rows.append(duel(first, second, rng.choice([1.0, 0.5, 0.0], size=count, p=weight / weight.sum())))
    return rows


def flat(rows: list[Outcomes]) -> tuple[list[str], list[str], list[evalica.Winner]]:
    winner = {1.0: evalica.Winner.X, 0.5: evalica.Winner.Draw, 0.0: evalica.Winner.Y}
    first = [row.system for row in rows for _ in row.credit]
    second = [row.reference for row in rows for _ in row.credit]
    return first, second, [winner[value] for row in rows for value in row.credit.tolist()]


def test_without_ties_the_strengths_are_evalicas_bradley_terry():
    rng = np.random.default_rng(0)
    rows = davidson(rng, {"a": 1.0, "b": 0.0, "c": -0.5, "d": -0.5}, nu=0.0, count=200)
    first, second, winners = flat(rows)
    theirs = np.log(evalica.bradley_terry(first, second, winners, tolerance=1e-12, limit=10_000).scores)
    ours = {row.system: row.strength for row in bradley_terry(rows, seed=0, draws=2).systems}
    for name, value in (theirs - theirs.mean()).items():
        assert ours[name] == pytest.approx(value, abs=1e-4)
    assert bradley_terry(rows, seed=0, draws=2).tie_readiness == 0


def test_with_ties_the_strengths_are_evalicas_newman():
    # Newman 2023 fits the same likelihood by another iteration.
    rng = np.random.default_rng(1)
    rows = davidson(rng, {"a": 0.8, "b": 0.0, "c": -0.8}, nu=0.7, count=300)
    first, second, winners = flat(rows)
    theirs = np.log(evalica.newman(first, second, winners, tolerance=1e-12, limit=10_000).scores)
    ours = {row.system: row.strength for row in bradley_terry(rows, seed=0, draws=2).systems}
    for name, value in (theirs - theirs.mean()).items():
        assert ours[name] == pytest.approx(value, abs=1e-3)


def test_planted_strengths_and_ties_are_recovered():
    truth = {"a": 1.0, "b": 0.2, "c": -0.4, "d": -0.8}
    ranking = bradley_terry(davidson(np.random.default_rng(2), truth, nu=0.5, count=3000), seed=0, draws=100)
    assert [row.system for row in ranking.systems] == ["a", "b", "c", "d"]
    for row in ranking.systems:
        assert row.standard_error is not None
        assert row.strength == pytest.approx(truth[row.system], abs=3 * row.standard_error)
        assert row.standard_error < 0.05
        assert (row.rank_low, row.rank_high) == (row.rank, row.rank)
        assert row.judged == 9000
    assert ranking.tie_readiness == pytest.approx(0.5, abs=0.05)


def test_a_star_around_a_reference_ranks_as_win_rates_do():
    rng = np.random.default_rng(3)
    rows = [duel(name, "reference", (rng.random(500) < rate).astype(float)) for name, rate in
            {"weak": 0.2, "even": 0.5, "strong": 0.8}.items()]  # fmt: skip
    ranking = bradley_terry(rows, seed=0, draws=50)
    order = [row.system for row in ranking.systems]
    assert order[0] == "strong"
    assert order[-1] == "weak"
    strengths = {row.system: row.strength for row in ranking.systems}
    # Without ties a star's maximum likelihood gap to the reference is the log odds of the win rate.
    rate = rows[2].credit.mean()
    assert strengths["strong"] - strengths["reference"] == pytest.approx(np.log(rate / (1 - rate)), abs=1e-4)


def test_intervals_of_strength_and_rank_hold_what_they_promise():
    truth = {"a": 0.5, "b": 0.1, "c": 0.0, "d": -0.6}
    rng = np.random.default_rng(4)
    strength_held, rank_held, trials = 0, 0, 45
    for trial in range(trials):
        ranking = bradley_terry(davidson(rng, truth, nu=0.3, count=120), seed=trial, draws=100)
        for row in ranking.systems:
            strength_held += row.interval.low <= truth[row.system] <= row.interval.high
            place = 1 + sum(value > truth[row.system] for value in truth.values())
            rank_held += row.rank_low <= place <= row.rank_high
    # 180 intervals; those of one trial go together, so two standard errors are about 0.04.
    assert 0.91 <= strength_held / (4 * trials) <= 0.99
    assert rank_held / (4 * trials) >= 0.95


def test_equal_systems_share_their_ranks():
    rng = np.random.default_rng(5)
    ranking = bradley_terry(davidson(rng, {"a": 0.0, "b": 0.0, "c": 0.0}, nu=0.2, count=100), seed=0, draws=100)
    assert all((row.rank_low, row.rank_high) == (1, 3) for row in ranking.systems)


def test_a_system_that_never_lost_has_a_finite_strength():
    ranking = bradley_terry([duel("a", "b", np.ones(50)), duel("b", "c", np.array([1.0, 0.0] * 25))], seed=0, draws=20)
    assert ranking.systems[0].system == "a"
    assert np.isfinite(ranking.systems[0].strength)


def test_groups_that_never_met_cannot_be_ranked():
    with pytest.raises(DataError, match=r"2 groups .*\['a', 'c'\]"):
        bradley_terry([duel("a", "b", np.ones(3)), duel("c", "d", np.ones(3))], seed=0)
    with pytest.raises(DataError, match="at least one judged"):
        bradley_terry([duel("a", "b", np.array([np.nan]))], seed=0)


def test_three_wins_of_three_leave_the_rank_open_and_the_strength_bounded_below_alone():
    # By hand: a rate of 0.025 ** (1 / 3) = 0.292 gives three wins of three in 2.5% of cases; the exact p is 0.25.
    ranking = bradley_terry([duel("a", "b", np.ones(3))], seed=0, draws=50)
    strong, weak = ranking.systems
    assert [(row.system, row.rank_low, row.rank_high) for row in ranking.systems] == [("a", 1, 2), ("b", 1, 2)]
    rate = 0.025 ** (1 / 3)
    assert strong.interval.low == pytest.approx(np.log(rate / (1 - rate)) / 2, abs=1e-3)
    assert list(strong.interval)[1] is None
    assert weak.interval.high == pytest.approx(-strong.interval.low)
    assert next(iter(weak.interval)) is None
    assert strong.standard_error is None


@pytest.mark.parametrize(("count", "ranks"), [(1, (1, 2)), (5, (1, 2)), (6, (1, 1)), (300, (1, 1))])
def test_a_system_that_always_won_is_first_only_where_even_odds_are_excluded(count, ranks):
    # The two-sided exact p of five wins of five is 2 / 32, of six 2 / 64.
    first = bradley_terry([duel("a", "b", np.ones(count))], seed=0, draws=50).systems[0]
    assert (first.rank_low, first.rank_high) == ranks


def test_a_system_that_always_won_ten_times_is_put_above_neither_one_that_mostly_won_nor_another_such():
    mostly = np.ones(60)
    mostly[::6] = 0.0
    weak = np.zeros(60)
    weak[::6] = 1.0
    rows = [duel("always", "reference", np.ones(10)), duel("also", "reference", np.ones(30)),
            duel("mostly", "reference", mostly), duel("weak", "reference", weak)]  # fmt: skip
    ranks = {row.system: (row.rank_low, row.rank_high) for row in bradley_terry(rows, seed=0, draws=200).systems}
    # Fisher's exact p of 10 of 10 beside 50 of 60 is 0.34, of 10 of 10 beside 30 of 30 it is 1.
    assert ranks["always"] == (1, 3)
    assert ranks["also"][0] == ranks["mostly"][0] == 1
    assert ranks["reference"] == (4, 4)
    assert ranks["weak"] == (5, 5)


def test_ties_alone_bound_a_strength_on_both_sides_around_the_other_systems():
    # By hand: with 40 ties a loss of 1 - 0.025 ** (1 / 40) = 8.8% might have been missed, which leaves a rate of 45.6%.
    row = bradley_terry([duel("a", "b", np.full(40, 0.5))], seed=0, draws=20).systems[0]
    rate = 0.025 ** (1 / 40) / 2
    assert (row.interval.low, row.interval.high) == pytest.approx(
        (np.log(rate / (1 - rate)) / 2, -np.log(rate / (1 - rate)) / 2), abs=1e-3
    )
    assert (row.rank_low, row.rank_high) == (1, 2)


def test_comparisons_of_shares_of_wins_are_counted_whole():
    # 805 times 0.1 and 805 times 0.9 add up to less than 805 in floats.
    first, second = bradley_terry([duel("a", "b", np.tile([0.1, 0.3, 0.7, 0.6, 0.2], 161))], seed=0, draws=2).systems
    assert (first.judged, second.judged) == (805, 805)
