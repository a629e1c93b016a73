"""Two sets of instructions, one ranking; SciPy and planted worlds are the oracles."""

import json

import numpy as np
import pytest
from scipy import stats

from pasture.core.errors import DataError
from pasture.core.statistics import Floats
from pasture.validate.evaluation_validity import evaluation_validity


def judged(rates: dict[str, float], seeds: int, count: int, seed: int) -> dict[str, Floats]:
    generator = np.random.default_rng(seed)
    return {name: (generator.random((seeds, count)) < rate).astype(np.float64) for name, rate in rates.items()}


RATES = {"sft": 0.35, "ppo": 0.5, "dpo": 0.45, "best of n": 0.48, "base": 0.2}


def test_the_correlations_are_those_of_scipy() -> None:
    aggregated, live = judged(RATES, 2, 300, 0), judged(RATES, 2, 100, 1)
    found = evaluation_validity(aggregated, live, 0)
    x, y = ([float(world[name].mean()) for name in RATES] for world in (aggregated, live))
    assert found.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.r_squared.value == pytest.approx(stats.linregress(x, y).rvalue ** 2)
    assert found.slope == pytest.approx(stats.linregress(x, y).slope)
    assert (found.aggregated_count, found.live_count) == (300, 100)
    assert found.points[-1].system == "base"
    json.dumps(found.to_dict(), allow_nan=False)


def test_fewer_live_instructions_widen_the_interval() -> None:
    few = evaluation_validity(judged(RATES, 1, 400, 0), judged(RATES, 1, 50, 1), 0)
    many = evaluation_validity(judged(RATES, 1, 400, 0), judged(RATES, 1, 2000, 1), 0)
    assert few.spearman.interval.low < many.spearman.interval.low


def test_sets_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(DataError, match="same three systems or more"):
        evaluation_validity(judged({"a": 0.1}, 1, 5, 0), judged({"b": 0.1}, 1, 5, 0), 0)
    live = judged(RATES, 1, 5, 0)
    with pytest.raises(DataError, match="no judgement at all of dpo on one of the sets"):
        evaluation_validity(live, {**live, "dpo": np.full((1, 5), np.nan)}, 0)
