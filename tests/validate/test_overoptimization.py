"""Curves that turn; numerical integration, SciPy's fitter, hand arithmetic and planted curves are the oracles."""

import json

import numpy as np
import pytest
from scipy import integrate, optimize

from pasture.core.errors import DataError
from pasture.core.statistics import Floats
from pasture.validate.overoptimization import Curve, Form, best_of_n_kl, overoptimization

STEPS = tuple(float(step) for step in range(0, 70, 10))


def curve(rates: list[float], *, seeds: int = 1, count: int = 800, seed: int = 0, form: Form = "rl") -> Curve:
    """Outcomes with these chances; every instruction is harder or easier for all points alike."""
    generator = np.random.default_rng(seed)
    shared = 0.2 * generator.standard_normal(count)
    level = np.array(rates)[:, None, None] + shared + np.zeros((1, seeds, 1))
    outcomes = (generator.random(level.shape) < level).astype(np.float64)
    points = len(rates)
    return Curve(
        family="PPO",
        feedback="people",
        judge="people",
        form=form,
        progress_name="step",
        progress=tuple(10.0 * number for number in range(points)),
        kl=tuple(2.0 * number for number in range(points)),
        proxy=tuple(0.2 * number for number in range(points)),
        outcomes=tuple(outcomes),
    )


def flat(rate: float, count: int) -> Floats:
    wins = round(rate * count)
    return np.repeat([1.0, 0.0], [wins, count - wins])[None, :]


@pytest.mark.parametrize("n", [1, 2, 4, 16, 64])
def test_the_kl_of_best_of_n_is_that_of_the_largest_of_n_uniform_draws(n: int) -> None:
    # Ranks of scores are uniform; the density of the largest of n is n u^(n-1), so KL is the integral of f log f.
    def integrand(u: float) -> float:
        density = n * u ** (n - 1)
        return density * np.log(density) if density > 0 else 0.0

    assert best_of_n_kl(n) == pytest.approx(integrate.quad(integrand, 0, 1)[0], abs=1e-6)


def test_best_of_none_is_refused() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        best_of_n_kl(0)


@pytest.mark.parametrize("form", ["best-of-n", "rl"])
def test_the_law_is_the_one_that_a_general_fitter_finds(form: Form) -> None:
    made = curve([0.34, 0.50, 0.52, 0.49, 0.46, 0.43, 0.41], form=form)

    def law(kl: Floats, start: float, a: float, b: float) -> Floats:
        d = np.sqrt(kl)
        log_d = np.where(d > 0, np.log(np.where(d > 0, d, 1)), 0)
        result: Floats = start + d * (a - b * (d if form == "best-of-n" else log_d))
        return result

    rates = [float(array.mean()) for array in made.outcomes]
    start, a, b = optimize.curve_fit(law, np.array(made.kl), rates)[0]
    fit = overoptimization(made, 0).fit
    assert fit is not None
    assert (fit.start.value, fit.a.value, fit.b.value) == pytest.approx((start, a, b), abs=1e-6)
    kls = np.linspace(1e-6, 60, 200_001)
    assert fit.peak_kl == pytest.approx(kls[np.argmax(law(kls, start, a, b))], abs=1e-3)
    assert fit.line[-1].kl == pytest.approx(12.0)
    assert fit.line[-1].rate == pytest.approx(float(law(np.array([12.0]), start, a, b)[0]), abs=1e-6)


def test_the_coefficients_of_a_planted_law_lie_in_their_intervals() -> None:
    # start 0.35, a 0.20, b 0.08 of the RL law.
    d = np.sqrt(2.0 * np.arange(1, 7))
    made = curve([0.35, *(0.35 + d * (0.20 - 0.08 * np.log(d)))], count=3000)
    fit = overoptimization(made, 0).fit
    assert fit is not None
    for estimate, truth in ((fit.start, 0.35), (fit.a, 0.20), (fit.b, 0.08)):
        assert estimate.interval.low < truth < estimate.interval.high


def test_a_curve_that_falls_by_ten_points_turns_down() -> None:
    found = overoptimization(curve([0.34, 0.50, 0.52, 0.49, 0.46, 0.43, 0.42]), 0)
    assert found.turns_down
    assert found.downturn.p_value < 0.01
    assert found.downturn.progress in (10.0, 20.0)
    assert found.rise.interval.low > 0
    assert found.proxy_change > 0  # the proxy goes on rising: over-optimization


def test_a_curve_that_rises_to_its_end_does_not_turn_down() -> None:
    found = overoptimization(curve([0.34, 0.42, 0.47, 0.50, 0.52, 0.54, 0.56]), 0)
    assert not found.turns_down
    assert found.rise.interval.low > 0.1


def test_the_lead_of_the_best_point_is_the_difference_of_the_means() -> None:
    made = Curve("PPO", "pool", "pool", "rl", "step", (0.0, 1.0, 2.0), (0.0, 1.0, 2.0), (0.0, 1.0, 2.0),
                 (flat(0.3, 100), flat(0.6, 100), flat(0.5, 100)))  # fmt: skip
    found = overoptimization(made, 0)
    assert found.downturn.difference == pytest.approx(0.1)
    assert found.rise.difference == pytest.approx(0.3)
    assert found.proxy_change == 1.0
    assert found.fit is None  # three divergences leave nothing to judge a law of three weights by


def test_unknown_divergences_leave_the_rest_in_place() -> None:
    made = Curve("expert iteration", "pool", "pool", "best-of-n", "round", (0.0, 1.0), (float("nan"),) * 2, (0.0, 1.0),
                 (flat(0.3, 100), flat(0.6, 100)))  # fmt: skip
    found = overoptimization(made, 0).to_dict()
    assert found["fit"] is None
    assert found["turns_down"] is False
    json.dumps(found, allow_nan=False)


def test_a_point_without_judgements_is_named() -> None:
    made = Curve("PPO", "pool", "people", "rl", "step", (0.0, 40.0), (0.0, 1.0), (0.0, 1.0),
                 (flat(0.3, 10), np.full((1, 10), np.nan)))  # fmt: skip
    with pytest.raises(DataError, match="nothing judged at step 40"):
        overoptimization(made, 0)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="got 2, 1, 2, 2"):
        Curve("PPO", "pool", "people", "rl", "step", (0.0, 1.0), (0.0,), (0.0, 1.0), (flat(0.3, 10),) * 2)


@pytest.mark.slow
@pytest.mark.parametrize("points", [2, 7, 15])
def test_a_level_curve_is_said_to_turn_down_in_at_most_five_cases_of_a_hundred(points: int) -> None:
    # The plain comparison of best and last would say so in every second case with 15 points.
    found = [overoptimization(curve([0.5] * points, count=200, seed=seed), 0) for seed in range(400)]
    share = np.mean([one.downturn.p_value < 0.05 for one in found])
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean([one.turns_down for one in found]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.slow
def test_the_interval_of_the_downturn_holds_the_true_one() -> None:
    rates = [0.35, 0.45, 0.50, 0.48, 0.43]  # truly 0.07 from best to last
    found = [overoptimization(curve(rates, count=300, seed=seed, seeds=2), 0).downturn for seed in range(300)]
    assert np.mean([one.interval.low <= 0.07 for one in found]) >= 0.93
    assert np.mean([one.interval.high >= 0.07 for one in found]) >= 0.93
