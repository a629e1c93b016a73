"""Length, lists, and the part of a gain that goes with length; SciPy's line and planted gains are the oracles."""

import json

import numpy as np
import pytest
from scipy import stats

from pasture.core.errors import DataError
from pasture.validate.style import Answers, style


def planted(length_effect: float, own_gain: float, seed: int = 0) -> tuple[Answers, Answers]:
    """A system whose answers are about twice as long, and the baseline."""
    generator = np.random.default_rng(seed)
    count = 3000
    short = generator.integers(40, 80, count).astype(np.float64)
    ratio = generator.normal(0.7, 0.5, count)
    long = np.round(np.exp(ratio) * (short + 1) - 1)
    better = own_gain + length_effect * (np.log1p(long) - np.log1p(short))
    before = (generator.random(count) < 0.35).astype(np.float64)
    after = (generator.random(count) < np.clip(0.35 + better, 0, 1)).astype(np.float64)
    nothing = np.zeros(count)
    return Answers("ppo", long, nothing, after, 30.0), Answers("sft", short, nothing, before)


def test_a_gain_by_length_alone_is_explained_by_it() -> None:
    system, baseline = planted(length_effect=0.15, own_gain=0.0)
    (row,) = style([system], baseline, 0)
    assert row.explained_by_length is not None
    assert row.explained_by_length.interval.low < 1 < row.explained_by_length.interval.high
    assert row.gain_at_equal_length is not None
    assert row.gain_at_equal_length.interval.low < 0 < row.gain_at_equal_length.interval.high


def test_a_gain_of_its_own_is_not_explained_by_length() -> None:
    system, baseline = planted(length_effect=0.0, own_gain=0.15)
    (row,) = style([system], baseline, 0)
    assert row.explained_by_length is not None
    assert row.explained_by_length.interval.low < 0 < row.explained_by_length.interval.high
    assert row.gain_at_equal_length is not None
    assert row.gain_at_equal_length.interval.low < 0.15 < row.gain_at_equal_length.interval.high


def test_the_gain_at_equal_length_is_the_intercept_of_the_line() -> None:
    system, baseline = planted(0.1, 0.05)
    (row,) = style([system], baseline, 0)
    line = stats.linregress(np.log1p(system.lengths) - np.log1p(baseline.lengths), system.credit - baseline.credit)
    assert row.gain_at_equal_length is not None
    assert row.gain_at_equal_length.value == pytest.approx(line.intercept)
    assert row.gain_at_equal_length.standard_error == pytest.approx(line.intercept_stderr, rel=0.1)
    assert row.gain.value == pytest.approx((system.credit - baseline.credit).mean())
    assert row.mean_length.value == pytest.approx(system.lengths.mean())
    assert row.mean_length.standard_error == pytest.approx(stats.sem(system.lengths), rel=0.1)


def test_no_gain_is_not_divided() -> None:
    system, baseline = planted(0.0, -0.1)
    (row,) = style([system], baseline, 0)
    assert row.explained_by_length is None


def test_answers_of_the_same_lengths_keep_their_gain() -> None:
    credit = np.array([1.0, 1.0, 0.0, 1.0])
    a = Answers.of("a", ["one", "two", "six", "ten"], credit)
    b = Answers.of("b", ["two", "one", "ten", "six"], np.array([0.0, 1.0, 0.0, np.nan]))
    (row,) = style([a], b, 0)
    assert row.gain_at_equal_length is not None
    assert row.gain.value == row.gain_at_equal_length.value == pytest.approx(1 / 3)  # three judged in common
    json.dumps(row.to_dict(), allow_nan=False)


def test_a_system_that_is_always_longer_has_no_gain_at_equal_length() -> None:
    system, baseline = planted(0.1, 0.05)
    longer = Answers("ppo", baseline.lengths * 2, system.lists, system.credit)
    (row,) = style([longer], baseline, 0)
    assert row.gain_at_equal_length is None
    assert row.explained_by_length is None


def test_lists_are_counted() -> None:
    answers = Answers.of("a", ["1. fox\n2. owl", "- fox\n- owl", "fox owl", "no"], np.ones(4))
    (row,) = style([answers], answers, 0)
    assert row.list_share.value == 0.5


def test_other_instructions_are_refused() -> None:
    a, b = Answers.of("a", ["x"], np.ones(1)), Answers.of("b", ["x", "y"], np.ones(2))
    with pytest.raises(DataError, match="answered 1 instructions, the baseline 'b' 2"):
        style([a], b, 0)
    unjudged = Answers.of("b", ["x"], np.full(1, np.nan))
    with pytest.raises(DataError, match="no common instruction"):
        style([a], unjudged, 0)
