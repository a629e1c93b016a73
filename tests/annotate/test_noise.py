import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import optimize, stats

from pasture.annotate.draws import ContentDraws, Side
from pasture.annotate.noise import (
    LengthLeaning,
    MarginFlips,
    Noise,
    PerAnnotatorFlips,
    PositionLeaning,
    UniformFlips,
    noise_label,
    with_noise,
)
from pasture.annotate.panel import Panel, load_panel
from pasture.core.errors import DataError, RecipeError
from pasture.core.records import Comparison, Preference
from tests.annotate.judging import pair

DRAWS = ContentDraws()
MANY = 10_000
PAIRS = [pair(f"question {i}", "long " * 9 + str(i), f"short {i}") for i in range(MANY)]


def judged(comparison: Comparison, preferred: Side, probability_first: float | None = None) -> Preference:
    return Preference(
        comparison_id=comparison.id, annotator="judge", preferred=preferred, probability_first=probability_first
    )


def labels(noise: Noise, judgement: Side, shown_first: Side = "first", annotator: str = "judge") -> list[str]:
    return [noise_label(noise, each, annotator, shown_first, DRAWS) or judgement for each in PAIRS]


def recovered(successes: int, probability: float, count: int = MANY) -> bool:
    """Whether the 99% interval of the share (Clopper-Pearson, scipy) holds the parameter."""
    interval = stats.binomtest(successes, count).proportion_ci(0.99)
    return bool(interval.low <= probability <= interval.high)


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.4])
def test_uniform_flips_recover_their_probability(probability):
    flipped = labels(UniformFlips(probability=probability), "first").count("second")
    assert recovered(flipped, probability)


def test_each_annotator_recovers_its_own_probability():
    noise = PerAnnotatorFlips(probabilities={"careless": 0.4, "careful": 0.05}, otherwise=0.2)
    for annotator, probability in (("careless", 0.4), ("careful", 0.05), ("stranger", 0.2)):
        assert recovered(labels(noise, "second", annotator=annotator).count("first"), probability)


@pytest.mark.parametrize("shown_first", ["first", "second"])
def test_position_leaning_recovers_its_probability_on_whichever_side_was_shown_first(shown_first):
    judgement: Side = "second" if shown_first == "first" else "first"
    taken = labels(PositionLeaning(probability=0.3), judgement, shown_first).count(shown_first)
    assert recovered(taken, 0.3)


def test_length_leaning_recovers_its_probability():
    # The first is the longer of every pair.
    assert recovered(labels(LengthLeaning(probability=0.35), "second").count("first"), 0.35)
    assert "second" not in labels(LengthLeaning(probability=1.0), "second")


def test_length_leaning_leaves_answers_of_one_length_to_the_judge():
    assert noise_label(LengthLeaning(probability=1.0), pair("q", "aaa", "bbb"), "judge", "first", DRAWS) is None


def _temperature(margins: Sequence[float], kept: Sequence[bool]) -> float:
    """The likeliest temperature, by scipy's minimizer on the Bradley-Terry likelihood."""
    signs = np.where(kept, 1.0, -1.0)
    loss = optimize.minimize_scalar(
        lambda t: np.logaddexp(0, -signs * np.asarray(margins) / t).sum(), bounds=(0.01, 20), method="bounded"
    )
    return float(loss.x)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_margin_noise_recovers_its_temperature(temperature):
    probabilities = np.random.default_rng(0).uniform(0.02, 0.98, MANY)
    noise = MarginFlips(temperature=temperature)
    margins, kept = [], []
    for comparison, p in zip(PAIRS, probabilities, strict=True):
        before = judged(comparison, "first" if p > 0.5 else "second", float(p))
        after = with_noise(noise, comparison, before, DRAWS)
        margins.append(abs(math.log(p / (1 - p))))
        kept.append(after.preferred == before.preferred)
        assert after.flipped_by_noise != kept[-1]
    # A tenth is about four standard errors of the likeliest value at 10,000 labels.
    assert _temperature(margins, kept) == pytest.approx(temperature, rel=0.1)


def test_margin_noise_at_temperature_one_draws_from_the_judges_probability():
    noise = MarginFlips(temperature=1.0)
    firsts = sum(with_noise(noise, each, judged(each, "first", 0.7), DRAWS).preferred == "first" for each in PAIRS)
    assert recovered(firsts, 0.7)


def test_margin_noise_spares_certainty_ties_and_the_unjudged():
    noise = MarginFlips(temperature=2.0)
    comparison = PAIRS[0]
    sure = judged(comparison, "first", 1.0)
    tie = sure.model_copy(update={"preferred": "tie", "probability_first": 0.5})
    unjudged = Preference(comparison_id=comparison.id, annotator="judge", preferred="unjudged", error="none")
    assert [with_noise(noise, comparison, each, DRAWS) for each in (sure, tie, unjudged)] == [sure, tie, unjudged]


def test_a_flipped_judgement_turns_its_probability_over_and_keeps_the_reply():
    noise = MarginFlips(temperature=1e6)
    flipped = next(
        after
        for each in PAIRS
        if (after := with_noise(noise, each, judged(each, "first", 0.8), DRAWS)).flipped_by_noise
    )
    assert flipped.preferred == "second"
    assert flipped.probability_first == pytest.approx(0.2)


def test_margin_noise_without_a_probability_is_refused_before_and_after_asking():
    with pytest.raises(DataError, match="probability"):
        with_noise(MarginFlips(temperature=1.0), PAIRS[0], judged(PAIRS[0], "first"), DRAWS)
    greedy = load_panel("greedy", ["x"])
    with pytest.raises(RecipeError, match="margin noise needs a probability"):
        Panel("noisy", greedy.judges, greedy.weights, noise=MarginFlips(temperature=1.0))


def test_the_kinds_of_noise_strike_independently():
    # A pair that is noise to one kind is no likelier to be noise to another.
    uniform = [noise_label(UniformFlips(probability=0.25), each, "judge", "first", DRAWS) is None for each in PAIRS]
    position = [noise_label(PositionLeaning(probability=0.5), each, "judge", "first", DRAWS) is None for each in PAIRS]
    table = [[sum(u == a and p == b for u, p in zip(uniform, position, strict=True)) for a in (0, 1)] for b in (0, 1)]
    assert stats.chi2_contingency(table).pvalue > 0.01
