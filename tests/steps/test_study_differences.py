"""Systems of a study pair by pair: held against Student's paired test of scipy, and named from the best two on."""

import numpy as np
import pytest
from scipy import stats

from pasture.core.seeds import stream
from pasture.core.statistics import Floats
from pasture.steps.study_differences import paired_differences


def outcomes(name: str, rate: float, count: int = 200) -> Floats:
    return (stream(0, name).random((1, count)) < rate).astype(np.float64)


def test_with_one_seed_a_pair_is_tested_as_scipy_does() -> None:
    world = {"worse": outcomes("worse", 0.4), "better": outcomes("better", 0.6)}
    [pair] = paired_differences(world)
    expected = stats.ttest_rel(world["better"][0], world["worse"][0])
    span = expected.confidence_interval(0.95)
    assert (pair["system"], pair["baseline"]) == ("better", "worse")
    assert pair["difference"] == pytest.approx(float(world["better"].mean() - world["worse"].mean()))
    assert pair["p_value"] == pytest.approx(expected.pvalue)
    assert (pair["interval_low"], pair["interval_high"]) == pytest.approx((span.low, span.high))


def test_pairs_come_from_the_best_two_on_and_the_better_one_stands_first() -> None:
    world = {name: outcomes(name, rate) for name, rate in (("c", 0.2), ("a", 0.8), ("b", 0.5))}
    found = [(pair["system"], pair["baseline"]) for pair in paired_differences(world)]
    assert found == [("a", "b"), ("a", "c"), ("b", "c")]


def test_what_nobody_judged_is_no_pair() -> None:
    nothing = np.full((1, 200), np.nan)
    once = nothing.copy()
    once[0, 0] = 1.0
    assert paired_differences({"a": outcomes("a", 0.5), "b": nothing, "c": once}) == []


def test_an_interval_stays_within_what_rates_can_differ() -> None:
    [pair] = paired_differences({"a": np.array([[1.0, 1.0, 1.0, 1.0]]), "b": np.array([[0.0, 0.0, 0.0, 1.0]])})
    assert pair["interval_high"] == 1.0
