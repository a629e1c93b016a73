"""How alike two worlds rank systems; scipy, hand arithmetic, the paper's table and planted worlds are the oracles."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats

from pasture.core.errors import DataError
from pasture.core.statistics import Floats
from pasture.report.published import METHODS
from pasture.validate.likeness import kendalls, r_squareds, spearmans
from pasture.validate.rank_correlation import RankCorrelation, holm, p_value, pair_tests, rank_correlation
from pasture.validate.resampling import SeedSquares, crossed_mean, mean_squares, resampled_rates

PAPER = [(row.name, row.simulated, row.people) for row in METHODS if row.people is not None]


def exact(rate: float, count: int = 1000) -> Floats:
    """One seed's outcomes with exactly this win rate."""
    wins = round(rate * count)
    return np.repeat([1.0, 0.0], [wins, count - wins])[None, :]


def world(rates: dict[str, float], seeds: int, count: int, generator: np.random.Generator) -> dict[str, Floats]:
    return {name: (generator.random((seeds, count)) < rate).astype(np.float64) for name, rate in rates.items()}


@pytest.fixture(scope="module")
def paper() -> RankCorrelation:
    return rank_correlation(
        {name: exact(rate) for name, rate, _ in PAPER}, {name: exact(rate) for name, _, rate in PAPER}, 0, sizes=()
    )


def test_the_papers_table_gives_the_papers_correlations(paper: RankCorrelation) -> None:
    # Recomputed from the published table: 0.976 and 0.871 (the figure prints 0.98 and 0.87).
    assert paper.spearman.value == pytest.approx(0.976, abs=5e-4)
    assert paper.r_squared.value == pytest.approx(0.871, abs=5e-4)


def test_the_papers_table_has_its_two_swaps(paper: RankCorrelation) -> None:
    # Read off the table by eye: PPO and ChatGPT, SFT 10k and SFT 52k.
    found = {frozenset((pair.first, pair.second)) for pair in paper.swapped()}
    assert found == {frozenset(("PPO", "ChatGPT")), frozenset(("SFT 10k", "SFT 52k"))}


def test_the_line_is_the_least_squares_line(paper: RankCorrelation) -> None:
    _, simulated, people = zip(*PAPER, strict=True)
    line = stats.linregress(simulated, people)
    assert paper.slope == pytest.approx(line.slope)
    assert paper.intercept == pytest.approx(line.intercept)
    assert paper.kendall.value == pytest.approx(stats.kendalltau(simulated, people).statistic)


def test_correlations_of_many_rows_are_those_of_scipy_ties_included() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.integers(0, 5, (20, 8)) / 4, generator.integers(0, 5, (20, 8)) / 4
    for row in range(20):
        assert spearmans(x, y)[row] == pytest.approx(stats.spearmanr(x[row], y[row]).statistic)
        assert kendalls(x, y)[row] == pytest.approx(stats.kendalltau(x[row], y[row]).statistic)
        assert r_squareds(x, y)[row] == pytest.approx(stats.pearsonr(x[row], y[row]).statistic ** 2)


def test_a_constant_list_has_no_correlation() -> None:
    flat, other = np.ones((1, 4)), np.array([[1.0, 2.0, 3.0, 4.0]])
    assert [np.isnan(measure(flat, other)[0]) for measure in (spearmans, kendalls, r_squareds)] == [True] * 3


def test_holm_corrects_as_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; none may fall below the one before.
    assert holm([0.04, 0.01, float("nan"), 0.03, 0.02]) == pytest.approx([0.06, 0.04, np.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_one_seed_is_tested_as_by_the_paired_t_test() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.choice([0.0, 0.5, 1.0], (2, 300))
    found = crossed_mean(mean_squares((a - b)[None, :]))
    assert p_value(found) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.degrees == 299


def test_the_crossed_variance_is_that_of_the_mean_squares_by_hand() -> None:
    # Rows are seeds, of means 1/4 and 3/4; instructions have 1/2, 1, 1/2, 0; all together 1/2. Mean squares: seeds
    # 4 * (1/16 + 1/16) / 1 = 1/2, instructions 2 * (1/4 + 1/4) / 3 = 1/3, the rest cell by cell.
    table = np.array([[0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    rest = (
        sum(
            (table[s, i] - table[s].mean() - table[:, i].mean() + 0.5) ** 2
            for s, i in itertools.product((0, 1), range(4))
        )
        / 3
    )
    found = crossed_mean(mean_squares(table))
    assert rest == pytest.approx(1 / 6)
    assert found.variance == pytest.approx((1 / 2 + 1 / 3 - 1 / 6) / 8)
    assert found.seed_variance == pytest.approx((1 / 2 - 1 / 6) / 4)
    # With another table's spread of seeds: 1 in place of 1/2, 1/3 in place of 1/6, on 8 degrees of freedom.
    shared = crossed_mean(mean_squares(table), SeedSquares(1.0, 1 / 3, 8.0))
    assert shared.variance == pytest.approx((1 + 1 / 3 - 1 / 3) / 8)
    assert shared.degrees == pytest.approx(1 / ((1 / 3) ** 2 / 3 + 1 / 8 + (1 / 3) ** 2 / 24))


def test_an_unjudged_outcome_is_no_loss() -> None:
    judged = exact(0.6, 100)
    half = judged.copy()
    half[0, 60:80] = np.nan  # twenty losses that nobody judged: 60 of 80
    rates = resampled_rates([judged, half], 0, "test")
    assert rates.value.tolist() == [0.6, 0.75]
    assert rates.judged.tolist() == [100, 80]


def test_a_planted_swap_is_found_and_called_significant() -> None:
    generator = np.random.default_rng(3)
    rates = {"a": 0.2, "b": 0.4, "c": 0.6, "d": 0.8}
    simulated = world(rates, 3, 400, generator)
    people = world({**rates, "b": 0.6, "c": 0.4}, 3, 400, generator)
    found = rank_correlation(simulated, people, 0, sizes=())
    assert [(pair.first, pair.second) for pair in found.contradictions()] == [("c", "b")]
    assert found.spearman.value == pytest.approx(0.8)  # ranks 1 3 2 4: 1 - 6 * 2 / 60
    assert [point.system for point in found.points] == ["d", "b", "c", "a"]


def test_a_swap_within_noise_is_not_called_significant() -> None:
    generator = np.random.default_rng(4)
    rates = {"a": 0.3, "b": 0.5, "c": 0.5, "d": 0.7}
    found = rank_correlation(world(rates, 1, 300, generator), world(rates, 1, 300, generator), 0, sizes=())
    (twins,) = (pair for pair in found.pairs if {pair.first, pair.second} == {"b", "c"})
    assert not twins.simulated_significant
    assert not twins.people_significant
    assert found.contradictions() == ()


def test_more_instructions_make_the_conclusion_more_likely() -> None:
    generator = np.random.default_rng(5)
    rates = {f"system {number}": 0.2 + 0.05 * number for number in range(10)}
    found = rank_correlation(world(rates, 1, 805, generator), world(rates, 1, 805, generator), 0, sizes=(25, 200, 1600))
    small, middle, large = found.power
    assert small.reaches_goal < middle.reaches_goal < large.reaches_goal
    assert small.interval.low < middle.interval.low < large.interval.low
    assert small.clear_pairs_right is not None
    assert large.clear_pairs_right is not None
    assert small.clear_pairs_right < large.clear_pairs_right
    assert middle.label_count == 200 * 20  # ten systems, two worlds


def test_the_result_is_json_and_the_same_every_time() -> None:
    generator = np.random.default_rng(6)
    simulated, people = (world({"a": 0.3, "b": 0.5, "c": 0.6}, 2, 50, generator) for _ in range(2))
    first, second = (rank_correlation(simulated, people, 0, sizes=(10,)).to_dict() for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert set(first["points"][0]["people"]) == {"value", "standard_error", "interval"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("simulated", "people", "message"),
    [
        ({"a": exact(0.1), "b": exact(0.2)}, {"a": exact(0.1), "c": exact(0.2)}, "in one alone: b, c"),
        ({"a": exact(0.1), "b": exact(0.2)}, {"a": exact(0.1), "b": exact(0.2)}, "at least three systems, got 2"),
        (
            {name: exact(0.1, 10) for name in "abc"},
            {name: exact(0.1, 12) for name in "abc"},
            "same instructions, one column each",
        ),
        (
            {name: exact(0.1, 10) for name in "abc"},
            {"a": np.ones((2, 10)), "b": np.ones((3, 10)), "c": np.ones((1, 10))},
            r"same number of seeds; got \[2, 3\]",
        ),
        (
            {name: exact(0.1, 10) for name in "abc"},
            {"a": exact(0.1, 10), "b": exact(0.2, 10), "c": np.full((1, 10), np.nan)},
            "no judgement at all of c",
        ),
    ],
)
def test_worlds_that_cannot_be_compared_are_refused(
    simulated: dict[str, Floats], people: dict[str, Floats], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        rank_correlation(simulated, people, 0)


def crossed_world(
    generator: np.random.Generator, rates: Floats, seeds: int, count: int, seed_spread: float
) -> tuple[list[Floats], Floats]:
    """Outcomes with effects of instructions, shared by all systems, and of seeds; and the rates in the long run."""
    shared = 0.15 * generator.standard_normal(count)
    effects = seed_spread * generator.standard_normal((len(rates), seeds, 1)) * (seeds > 1)
    level = np.clip(rates[:, None, None] + effects + shared, 0, 1)
    noise = np.sqrt(0.15**2 + (seed_spread if seeds > 1 else 0) ** 2) * generator.standard_normal(20_000)
    truth = np.clip(rates[:, None] + noise, 0, 1).mean(axis=1)
    return list((generator.random(level.shape) < level).astype(np.float64)), truth


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "count", "apart"), [(1, 805, 0.0), (1, 805, 0.05), (3, 400, 0.0), (3, 400, 0.05)])
def test_the_spearman_interval_holds_the_truth_in_nine_worlds_of_ten(seeds: int, count: int, apart: float) -> None:
    generator = np.random.default_rng(7)
    held = []
    for _ in range(150):
        simulated = np.clip(generator.normal(0.45, 0.15, 10), 0.1, 0.9)
        people = np.clip(simulated + generator.normal(0, apart, 10), 0.1, 0.9)
        arrays, truth = crossed_world(generator, np.r_[simulated, people], seeds, count, 0.02)
        names = "abcdefghij"
        found = rank_correlation(
            dict(zip(names, arrays[:10], strict=True)), dict(zip(names, arrays[10:], strict=True)), 0, sizes=()
        )
        true = float(spearmans(truth[None, :10], truth[None, 10:])[0])
        held.append(found.spearman.interval.low - 1e-9 <= true <= found.spearman.interval.high + 1e-9)
    assert np.mean(held) >= 0.90


def test_three_seeds_of_many_systems_tell_a_clear_difference_from_chance() -> None:
    # Twelve points at 805 instructions and three seeds are about nine standard errors; one pair's own three seeds have
    # two degrees of freedom, on which no difference would survive a correction for 45 pairs.
    generator = np.random.default_rng(9)
    rates = {f"system {number}": 0.40 for number in range(9)} | {"better": 0.52}
    found = rank_correlation(world(rates, 3, 805, generator), world(rates, 3, 805, generator), 0, sizes=())
    better = [pair for pair in found.pairs if "better" in (pair.first, pair.second)]
    assert all(pair.simulated_significant and pair.people_significant for pair in better)
    assert not any(pair.simulated_significant for pair in found.pairs if pair not in better)


@pytest.mark.slow
@pytest.mark.parametrize("systems", [2, 10])
@pytest.mark.parametrize("seed_spread", [0.0, 0.02, 0.05])
def test_equal_systems_are_called_different_in_at_most_five_cases_of_a_hundred(
    seed_spread: float, systems: int
) -> None:
    generator = np.random.default_rng(8)
    names = [f"system {number}" for number in range(systems)]
    rejected = []
    for _ in range(1500):
        effects = seed_spread * generator.standard_normal((systems, 3, 1)) + 0.15 * generator.standard_normal(200)
        outcomes = (generator.random((systems, 3, 200)) < np.clip(0.5 + effects, 0, 1)).astype(np.float64)
        found = pair_tests(dict(zip(names, outcomes, strict=True)), list(itertools.combinations(names, 2)))
        rejected.append(p_value(found[0]) < 0.05)
    # Two systems of three seeds know little of their spread, and Satterthwaite's degrees err to the careful side.
    assert 0.01 <= np.mean(rejected) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)
