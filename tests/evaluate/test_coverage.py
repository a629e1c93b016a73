"""Intervals hold the truth as often as they promise, and tests cry wolf as seldom: in simulation, at length."""

import numpy as np
import pytest

from tests.evaluate.simulations import HEAVY, INTERVALS, TESTS

TRIALS, HEAVY_TRIALS = 4000, 2000
"""Two standard errors of a share of 95% are 0.7 points in 4,000 trials and 1 point in 2,000."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", list(INTERVALS))
def test_a_nominal_95_is_between_94_and_96(name):
    trials = HEAVY_TRIALS if name in HEAVY else TRIALS
    held = INTERVALS[name](np.random.default_rng(11), trials)
    assert 0.94 <= held <= 0.96, f"{name}: {held:.1%} of {trials}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", list(TESTS))
def test_a_test_at_5_percent_rejects_4_to_6_percent_of_true_hypotheses(name):
    alarms = TESTS[name](np.random.default_rng(11), TRIALS)
    assert 0.04 <= alarms <= 0.06, f"{name}: {alarms:.1%} of {TRIALS}"
