"""Worlds with a known truth, and how often the intervals and tests of evaluation are right about it.

Each simulation takes a random generator and a number of trials and gives the share of trials in which a nominal 95%
interval held the truth, or a test at 5% rejected a true hypothesis.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from scipy.special import expit

from pasture.core.seeds import stream
from pasture.core.statistics import correlation
from pasture.evaluate.human_corrected import prediction_powered, rogan_gladen
from pasture.evaluate.length_control import length_control
from pasture.evaluate.orders import both_orders
from pasture.evaluate.outcomes import Outcomes
from pasture.evaluate.ranking import bradley_terry
from pasture.evaluate.win_rate import against_even, paired_difference, summarize_all
from pasture.validate.agreement import analyze
from pasture.validate.cross_annotations import CrossAnnotations
from tests.evaluate.pairs import outcomes
from tests.evaluate.test_human_corrected import TRUTH, labelled

Simulation = Callable[[np.random.Generator, int], float]

_BLOCK = 50


def win_rate_of_clusters(rng: np.random.Generator, trials: int) -> float:
    """Two judgements an instruction, which go together; 200 instructions, a rate of 0.4."""
    names = np.repeat([f"i{number}" for number in range(200)], 2)
    held = 0
    for start in range(0, trials, _BLOCK):
        systems = []
        for number in range(min(_BLOCK, trials - start)):
            chance = np.repeat(rng.beta(0.8, 1.2, 200), 2)  # mean 0.4
            credit = (rng.random(400) < chance).astype(float)
            systems.append(outcomes(credit, system=f"s{number}", instruction=names))
        held += sum(_holds(row.interval_low, 0.4, row.interval_high) for row in summarize_all(systems, seed=start))
    return held / trials


def _holds(low: float | None, truth: float, high: float | None) -> bool:
    return low is not None and high is not None and low <= truth <= high


def win_rate_of_votes(rng: np.random.Generator, trials: int) -> float:
    """One judgement each of 805 instructions, a rate of 0.12, ties of one in ten."""
    held = 0
    for start in range(0, trials, _BLOCK):
        systems = [
            outcomes(rng.choice([1.0, 0.5, 0.0], size=805, p=[0.07, 0.1, 0.83]), system=f"s{number}")
            for number in range(min(_BLOCK, trials - start))
        ]
        held += sum(_holds(row.interval_low, 0.12, row.interval_high) for row in summarize_all(systems, seed=start))
    return held / trials


def _two_systems(rng: np.random.Generator, gap: float, count: int = 200) -> tuple[Outcomes, Outcomes]:
    """Two systems on the same instructions, some of which are easy for both."""
    ease = rng.normal(0, 1, count)
    a = (rng.random(count) < expit(ease + gap)).astype(float)
    b = (rng.random(count) < expit(ease)).astype(float)
    return outcomes(a, system="a"), outcomes(b, system="b")


def paired_interval(rng: np.random.Generator, trials: int) -> float:
    """The difference of two systems on 200 shared instructions."""
    ease = np.random.default_rng(1).normal(0, 1, 2_000_000)
    truth = float((expit(ease + 0.5) - expit(ease)).mean())
    held = 0
    for trial in range(trials):
        found = paired_difference(*_two_systems(rng, 0.5), seed=trial)
        held += found.interval.low <= truth <= found.interval.high
    return held / trials


def paired_test(rng: np.random.Generator, trials: int) -> float:
    """False alarms of the paired test between equal systems."""
    return float(np.mean([paired_difference(*_two_systems(rng, 0.0), trial).p_value < 0.05 for trial in range(trials)]))


def even_test(rng: np.random.Generator, trials: int) -> float:
    """False alarms of "wins more often than the reference" where neither does, ties of one in seven."""
    alarms = 0
    for trial in range(trials):
        credit = rng.choice([1.0, 0.5, 0.0], size=200, p=[3 / 7, 1 / 7, 3 / 7])
        alarms += against_even(outcomes(credit), trial) < 0.05
    return alarms / trials


def powered(rng: np.random.Generator, trials: int) -> float:
    """People's rate from 150 labels and 850 judgements of a judge 12 points off, by PPI++."""
    found = (prediction_powered(*labelled(rng)) for _ in range(trials))
    return sum(row.interval.low <= TRUTH <= row.interval.high for row in found) / trials


def turned_back(rng: np.random.Generator, trials: int) -> float:
    """The same by Rogan and Gladen."""
    found = (rogan_gladen(*labelled(rng), trial) for trial in range(trials))
    return sum(row.interval.low <= TRUTH <= row.interval.high for row in found) / trials


def equal_length(rng: np.random.Generator, trials: int) -> float:
    """The rate at equal length before a judge with a taste for length; 300 instructions."""
    held = 0
    for trial in range(trials):
        reference = np.exp(rng.normal(6.5, 0.5, 300))
        own = np.exp(rng.normal(6.8, 0.5, 300))
        chance = expit(0.4 + 1.2 * np.tanh((own - reference) / reference.std()))
        system = outcomes((rng.random(300) < chance).astype(float), lengths=(own, reference))
        interval = length_control([system], seed=trial, draws=300)["new"].interval
        held += interval is not None and interval.low <= expit(0.4) <= interval.high
    return held / trials


_STRENGTHS = {"a": 0.5, "b": 0.1, "c": 0.0, "d": -0.6}


def _round_robin(rng: np.random.Generator, count: int = 120, nu: float = 0.3) -> list[Outcomes]:
    names = list(_STRENGTHS)
    rows = []
    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            gap = _STRENGTHS[first] - _STRENGTHS[second]
            weight = np.array([np.exp(gap / 2), nu, np.exp(-gap / 2)])
            credit = rng.choice([1.0, 0.5, 0.0], size=count, p=weight / weight.sum())
            rows.append(replace(outcomes(credit, system=first), reference=second))
    return rows


def strengths(rng: np.random.Generator, trials: int) -> float:
    """Four Bradley-Terry strengths with ties, from a round robin on 120 instructions."""
    held = 0
    for trial in range(trials):
        ranking = bradley_terry(_round_robin(rng), seed=trial, draws=300)
        held += sum(row.interval.low <= _STRENGTHS[row.system] <= row.interval.high for row in ranking.systems)
    return held / trials / len(_STRENGTHS)


def orders(rng: np.random.Generator, trials: int) -> float:
    """The rate over both orders of a judge who leans to the first, 150 instructions."""
    names = np.tile([f"i{number}" for number in range(150)], 2)
    held = 0
    for trial in range(trials):
        chance = rng.beta(2, 3, 150)
        first = rng.random(150) < np.minimum(chance + 0.15, 1)
        second = rng.random(150) < np.maximum(chance - 0.15, 0)
        rows = outcomes(np.concatenate([first, second]).astype(float), instruction=names)
        rows = replace(rows, shown_first=np.repeat([True, False], 150))
        found = both_orders(rows, seed=trial).win_rate.interval
        held += found.low <= _ORDERS_TRUTH <= found.high
    return held / trials


def _mean_over_orders() -> float:
    chance = np.random.default_rng(2).beta(2, 3, 2_000_000)
    return float((np.minimum(chance + 0.15, 1) + np.maximum(chance - 0.15, 0)).mean() / 2)


_ORDERS_TRUTH = _mean_over_orders()


def _crowd(labels: np.ndarray, name: str) -> CrossAnnotations:
    count = len(labels)
    return CrossAnnotations(
        annotator=name,
        pairs=tuple(f"p{number}" for number in range(count)),
        labels=labels.astype(np.float64),
        length_first=np.ones(count),
        length_second=np.ones(count),
        list_first=np.zeros(count, dtype=np.bool_),
        list_second=np.zeros(count, dtype=np.bool_),
        asked=np.full(count, labels.shape[1]),
        systems=(None,) * count,
    )


def _annotated(rng: np.random.Generator, count: int = 200) -> tuple[CrossAnnotations, CrossAnnotations]:
    """A judge with two labels a pair, right as often as the pair is easy, and people who are always right."""
    truth = rng.random(count) < 0.5
    ease = np.repeat(rng.beta(4, 1, count)[:, None], 2, axis=1)  # mean 0.8
    right = rng.random((count, 2)) < ease
    return _crowd(np.where(right, truth[:, None], ~truth[:, None]), "judge"), _crowd(truth[:, None], "people")


def agreement(rng: np.random.Generator, trials: int) -> float:
    """Agreement of 0.8 with people, on 200 pairs that differ in ease."""
    held = 0
    for trial in range(trials):
        found = analyze(*_annotated(rng), seed=trial).agreement
        held += found is not None and found.interval.low <= 0.8 <= found.interval.high
    return held / trials


def kappa(rng: np.random.Generator, trials: int) -> float:
    """Cohen's kappa of 0.6: right in 80 of 100, both verdicts as frequent."""
    held = 0
    for trial in range(trials):
        found = analyze(*_annotated(rng), seed=trial).kappa
        held += found is not None and found.interval.low <= 0.6 <= found.interval.high
    return held / trials


def alpha(rng: np.random.Generator, trials: int) -> float:
    """Krippendorff's alpha of two labels: one less twice the chance that they differ, verdicts as frequent.

    They differ with chance 2 E[e (1 - e)] for an ease e from Beta(4, 1): 2 * 4 / (5 * 6).
    """
    held = 0
    for trial in range(trials):
        found = analyze(*_annotated(rng), seed=trial).alpha
        held += found is not None and found.interval.low <= 1 - 2 * (8 / 30) <= found.interval.high
    return held / trials


def pearson(rng: np.random.Generator, trials: int) -> float:
    """A correlation of 0.8 over 40 items."""
    held = 0
    for trial in range(trials):
        x = rng.normal(size=40)
        y = 0.8 * x + 0.6 * rng.normal(size=40)
        found = correlation(x, y, stream(trial, "simulation")).pearson_interval
        held += found.low <= 0.8 <= found.high
    return held / trials


INTERVALS: Mapping[str, Simulation] = {
    "win rate, clustered": win_rate_of_clusters,
    "win rate of 12%, ties": win_rate_of_votes,
    "paired difference": paired_interval,
    "both orders": orders,
    "prediction-powered": powered,
    "Rogan-Gladen": turned_back,
    "equal length": equal_length,
    "Bradley-Terry strengths": strengths,
    "agreement": agreement,
    "Cohen's kappa": kappa,
    "Krippendorff's alpha": alpha,
    "correlation over systems": pearson,
}
TESTS: Mapping[str, Simulation] = {"paired test": paired_test, "test against one half": even_test}
HEAVY = ("correlation over systems",)
"""Simulations that take half as many trials: a tenth of a second each."""
