"""Equal-length win rates: no taste gives one half, verbosity alone moves nothing, errors are honest."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from pasture.core.errors import DataError
from pasture.evaluate.board import LengthControlled
from pasture.evaluate.length_control import equal_length, length_control
from pasture.evaluate.outcomes import Outcomes
from tests.evaluate import published
from tests.evaluate.pairs import outcomes


def judged(rng: np.random.Generator, *, taste: float, factors: dict[str, float], count: int = 805) -> list[Outcomes]:
    """Systems of one quality whose answers differ in nothing but a factor of length, before a judge with a taste."""
    need = rng.normal(0, 0.6, count)
    reference = np.exp(6.5 + need + rng.normal(0, 0.4, count))
    own = np.exp(6.3 + need + rng.normal(0, 0.4, count))
    quality = -0.3 + rng.normal(0, 1, count) + 0.5 * (np.log(reference) - 6.5)
    systems = []
    for name, factor in factors.items():
        chance = expit(quality + taste * np.tanh((own * factor - reference) / reference.std()))
        systems.append(
            outcomes((rng.random(count) < chance).astype(float), system=name, lengths=(own * factor, reference))
        )
    return systems


def holds(result: LengthControlled, truth: float) -> bool:
    assert result.interval is not None
    return bool(result.interval.low <= truth <= result.interval.high)


def test_verbosity_alone_moves_the_raw_rate_and_not_the_controlled_one():
    rng = np.random.default_rng(0)
    raw, controlled = [], []
    for _ in range(8):
        plain, wordy = judged(rng, taste=1.5, factors={"plain": 1.0, "wordy": 2.0})
        rates = length_control([plain, wordy], seed=0, draws=2)
        raw.append(wordy.credit.mean() - plain.credit.mean())
        controlled.append(rates["wordy"].rate - rates["plain"].rate)
    assert np.mean(raw) > 0.12
    # Standard error of the mean difference is about 0.01.
    assert abs(np.mean(controlled)) < 0.03


def test_the_planted_rate_at_equal_length_is_recovered():
    # By hand: one half at equal length for a quality of 0 everywhere.
    rng = np.random.default_rng(1)
    reference = np.exp(rng.normal(6.5, 0.5, 4000))
    own = np.exp(rng.normal(7.0, 0.5, 4000))
    chance = expit(1.2 * np.tanh((own - reference) / reference.std()))
    system = outcomes((rng.random(4000) < chance).astype(float), lengths=(own, reference))
    result = length_control([system], seed=0, draws=100)["new"]
    assert system.credit.mean() > 0.6
    assert result.standard_error is not None
    assert result.rate == pytest.approx(0.5, abs=2.5 * result.standard_error)
    assert result.standard_error < 0.02


def test_interval_coverage_under_a_judge_with_a_taste():
    rng = np.random.default_rng(3)
    covered, trials = 0, 120
    for trial in range(trials):
        reference = np.exp(rng.normal(6.5, 0.5, 200))
        own = np.exp(rng.normal(6.8, 0.5, 200))
        chance = expit(0.4 + 1.2 * np.tanh((own - reference) / reference.std()))
        system = outcomes((rng.random(200) < chance).astype(float), lengths=(own, reference))
        covered += holds(length_control([system], seed=trial, draws=150)["new"], expit(0.4))
    # Two standard errors of 120 draws at 95% are 0.04.
    assert 0.91 <= covered / trials <= 0.99


def test_the_paired_interval_at_equal_length_covers_the_gap_of_two_systems_that_length_alone_parts():
    rng = np.random.default_rng(5)
    covered, trials = 0, 120
    for trial in range(trials):
        pair = judged(rng, taste=1.0, factors={"plain": 1.0, "wordy": 1.6}, count=300)
        found = equal_length(pair, seed=trial, draws=150).gap("wordy", "plain")
        assert found is not None
        covered += found[1].low <= 0 <= found[1].high
    # Two standard errors of 120 draws at 95% are 0.04.
    assert 0.91 <= covered / trials <= 0.99


def test_the_fit_is_scikit_learns_penalized_logistic_regression():
    rng = np.random.default_rng(4)
    systems = judged(rng, taste=1.0, factors={"a": 1.0, "b": 1.4}, count=120)
    ours = length_control(systems, seed=0, draws=2)

    reference = np.concatenate([system.reference_length for system in systems])
    own = np.concatenate([system.system_length for system in systems])
    log = np.log1p(reference)
    shared = [np.tanh((own - reference) / reference.std()), (log - log.mean()) / log.std()]
    dummies = np.repeat(np.eye(2), 120, axis=0)
    credit = np.concatenate([system.credit for system in systems])
    model = LogisticRegression(C=25, fit_intercept=False, tol=1e-10, max_iter=1000)  # prior precision 1 / 25
    model.fit(np.column_stack([dummies, *shared]), credit.astype(int))
    equal = np.column_stack([dummies, np.zeros(240), shared[1]])
    expected = model.predict_proba(equal)[:, 1].reshape(2, 120).mean(axis=1)
    assert [ours["a"].rate, ours["b"].rate] == pytest.approx(expected.tolist(), abs=1e-5)


def test_hostile_lengths_do_not_break_the_fit():
    silent = outcomes([0.0, 0.0, 1.0, 0.0], system="silent", lengths=([0, 0, 0, 0], [10, 20, 30, 0]))
    huge = outcomes([1.0, 1.0, 1.0, 1.0], system="huge", lengths=([1e6] * 4, [10, 20, 30, 0]))
    same = outcomes([0.5, 0.5, 0.5, 0.5], system="copy", lengths=([5] * 4, [5] * 4))
    rates = length_control([silent, huge, same], seed=0, draws=50)
    assert all(0 <= rate.rate <= 1 for rate in rates.values())
    assert rates["huge"].rate == 1.0
    assert rates["copy"].rate == 0.5
    # 0.025 ** (1 / 4): nothing but wins in four is no proof.
    interval = rates["huge"].interval
    assert interval is not None
    assert interval.low == pytest.approx(0.3976, abs=1e-4)


def test_one_judge_at_a_time_and_at_least_one_judgement():
    with pytest.raises(DataError, match="one judge and one reference"):
        length_control([outcomes([1.0]), outcomes([1.0], judge="k")], seed=0)
    with pytest.raises(DataError, match="at least one judgement"):
        length_control([outcomes([np.nan])], seed=0)


@published.needs_published
@pytest.mark.parametrize("version", ["ae1", "ae2"])
def test_a_judge_who_tosses_coins_gives_one_half_on_real_answers(version):
    rng = np.random.default_rng(7)
    inside, rates = [], []
    for system in published.systems(version):
        real = published.read(version, system)
        for seed in range(5):
            tossed = replace(real, credit=rng.integers(0, 2, len(real)).astype(float))
            result = length_control([tossed], seed=seed, draws=100)[system]
            inside.append(holds(result, 0.5))
            rates.append(result.rate)
    assert np.mean(rates) == pytest.approx(0.5, abs=0.02)  # 30 rates with an error of 0.03 to 0.05 each
    assert sum(inside) >= 26  # of 30 at 95%: fewer would come up once in 60
