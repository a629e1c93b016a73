"""Ground of every number: formulas against SciPy and by hand, intervals and tests in simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from pasture.core.layout import has_list
from pasture.core.seeds import stream
from pasture.core.statistics import (
    clustered_mean,
    correlation,
    percentile_interval,
    resampled_sums,
    sign_flip_p_value,
    standard_error_of_mean,
    student_quantile,
    unseen_interval,
)


def test_the_standard_error_is_scipys():
    values = np.random.default_rng(0).random(50)
    assert standard_error_of_mean(values) == pytest.approx(stats.sem(values), abs=1e-15)
    assert math.isnan(standard_error_of_mean(values[:1]))


def test_resampled_sums_have_the_moments_of_resampling_with_replacement():
    columns = np.column_stack([np.arange(40.0), np.ones(40)])
    drawn = resampled_sums(columns, stream(0, "t"), draws=20_000)
    assert (drawn[:, 1] == 40).all()
    # By hand: the mean of the sums is the sum, their variance n times the population variance, 40 * (40^2 - 1) / 12.
    assert drawn[:, 0].mean() == pytest.approx(780, rel=0.003)
    assert drawn[:, 0].var() == pytest.approx(40 * (40**2 - 1) / 12, rel=0.05)


def test_resampling_in_blocks_is_the_same_as_at_once(monkeypatch):
    columns = np.random.default_rng(1).random((30, 2))
    whole = resampled_sums(columns, stream(0, "t"), draws=100)
    monkeypatch.setattr("pasture.core.statistics._CELLS", 30 * 7)
    np.testing.assert_allclose(resampled_sums(columns, stream(0, "t"), draws=100), whole)


def test_the_interval_is_as_wide_as_students_for_the_mean_of_a_normal_sample():
    # Bootstrap means of n values have the variance (n - 1) / n of the usual estimate; the expansion undoes that.
    values = np.random.default_rng(2).normal(size=12)
    drawn = resampled_sums(values[:, None], stream(0, "t"), draws=200_000)[:, 0] / 12
    low, high = percentile_interval(drawn, 12)
    reach = stats.t.ppf(0.975, 11) * stats.sem(values)
    assert (high - low) / 2 == pytest.approx(reach, rel=0.06)


def test_outcomes_not_seen_get_the_exact_binomial_bound():
    exact = stats.binomtest(25, 25).proportion_ci(0.95, method="exact")
    assert unseen_interval(1.0, 25) == pytest.approx((exact.low, exact.high))
    mirrored = stats.binomtest(0, 25).proportion_ci(0.95, method="exact")
    assert unseen_interval(0.0, 25) == pytest.approx((mirrored.low, mirrored.high))
    low, high = unseen_interval(0.5, 25)
    assert low < 0.5 < high


def test_means_that_differ_in_the_last_digit_of_a_float_are_alike():
    # (0.7 + 0.7 + 0.7) / 3 is not the float 0.7: cluster 1 holds three values, the others one.
    found = clustered_mean(np.array([0, 1, 1, 1, 2, 3, 4]), np.full(7, 0.7), stream(0, "t"))
    assert found.standard_error == 0
    assert found.interval == pytest.approx(unseen_interval(0.7, 5))


def test_coverage_of_a_mean_near_the_edge():
    rng = np.random.default_rng(3)
    covered, trials = 0, 400
    for trial in range(trials):
        values = (rng.random(250) < 0.06).astype(float)
        low, high = clustered_mean(np.arange(250), values, stream(trial, "t"), draws=500).interval
        covered += low <= 0.06 <= high
    assert 0.92 <= covered / trials <= 0.98


def test_sign_flips_give_the_exact_probability_on_a_small_sample():
    # Of the 2^4 sign patterns of 1, 1, 1, 1 two reach a sum of 4: both count half in the mid-p form.
    p = sign_flip_p_value(np.ones(4), stream(0, "t"), draws=200_000)
    assert p == pytest.approx(1 / 16, abs=0.002)
    assert sign_flip_p_value(np.zeros(5), stream(0, "t")) == 1.0


@pytest.mark.parametrize("kind", ["coarse", "fine"])
def test_sign_flips_reject_a_true_hypothesis_at_their_level(kind):
    rng = np.random.default_rng(4)
    rejected, trials = 0, 1000
    for trial in range(trials):
        values = rng.choice([-1.0, 0.0, 1.0], 60, p=[0.2, 0.6, 0.2]) if kind == "coarse" else rng.normal(size=60)
        rejected += sign_flip_p_value(values, stream(trial, "t"), draws=1000) < 0.05
    assert 0.036 <= rejected / trials <= 0.064  # two standard errors of 1,000 draws at 5%


def test_correlations_are_scipys_ties_included():
    rng = np.random.default_rng(5)
    x = rng.integers(0, 6, 25).astype(float)
    y = x + rng.integers(0, 6, 25).astype(float)
    result = correlation(x, y, stream(0, "t"))
    assert result.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert result.pearson == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert result.r_squared == pytest.approx(stats.linregress(x, y).rvalue ** 2, abs=1e-12)
    assert result.spearman_interval.low < result.spearman < result.spearman_interval.high


def test_a_constant_list_has_no_correlation():
    result = correlation(np.ones(5), np.linspace(0, 4, 5), stream(0, "t"))
    assert math.isnan(result.spearman)
    assert math.isnan(result.pearson_interval.low)


def test_coverage_of_a_correlation():
    rng = np.random.default_rng(6)
    covered, trials = 0, 200
    for trial in range(trials):
        x = rng.normal(size=60)
        y = 0.6 * x + 0.8 * rng.normal(size=60)
        low, high = correlation(x, y, stream(trial, "t"), draws=200).pearson_interval
        covered += low <= 0.6 <= high
    assert 0.9 <= covered / trials <= 0.985


def test_students_quantile_is_scipys():
    assert student_quantile(0.975, 7) == pytest.approx(stats.t.ppf(0.975, 7), abs=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- one\n- two", True),
        ("Steps:\n  2) go", True),
        ("a. first", True),
        ("• item", True),
        ("a.b is no item", False),
        ("well-known - dash inside", False),
        ("-\n-\n-", False),  # no word follows
        ("", False),
        ("10 apples", False),
    ],
)
def test_lists_are_told_from_prose(text, expected):
    assert has_list(text) is expected


@pytest.mark.parametrize("unit", ["-\n", "\n", " ", "1", "- ", "a.", "* * "])
def test_telling_lists_takes_time_in_proportion_to_the_text(unit):
    # A megabyte that makes a backtracking pattern take hours; the suite's own timeout is the judge.
    has_list(unit * 500_000)
