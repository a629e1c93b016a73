import itertools
import math

import numpy as np
import pytest
from pydantic import ValidationError

from pasture.core.errors import DataError, ScorerError
from pasture.core.records import Completion
from pasture.learn.best_of_n import Config, analytic_kl, expected_best, select


def _answer(instruction, seed):
    return Completion(instruction_id=instruction, text=f"{instruction}/{seed}", system="sft", seed=seed)


def _texts(completions):
    return [completion.text for completion in completions]


def test_the_highest_score_wins_in_the_order_of_the_instructions():
    answers = [_answer("b", 0), _answer("a", 0), _answer("b", 1), _answer("a", 1)]
    assert _texts(select(answers, [0.1, 2.0, 0.3, -1.0], n=2)) == ["b/1", "a/0"]


def test_ties_go_to_the_lowest_seed_whatever_the_order_of_the_rows():
    answers = [_answer("a", 2), _answer("a", 1), _answer("a", 0), _answer("a", 3)]
    assert _texts(select(answers, [1.0, 1.0, 0.5, 1.0], n=4)) == ["a/1"]


def test_best_of_one_is_the_first_sample():
    answers = [_answer("a", 1), _answer("a", 0)]
    assert _texts(select(answers, [9.0, 0.0], n=1)) == ["a/0"]


def test_smaller_n_takes_the_lowest_seeds_only():
    answers = [_answer("a", seed) for seed in range(4)]
    assert _texts(select(answers, [0.0, 1.0, 2.0, 3.0], n=2)) == ["a/1"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [([_answer("a", 0)], "at least 2"), ([_answer("a", 0), _answer("a", 0)], "with 1 seeds")],
)
def test_too_few_answers_are_refused_by_instruction(answers, message):
    with pytest.raises(DataError, match=f"'a'.*{message}"):
        select(answers, [0.0] * len(answers), n=2)


@pytest.mark.parametrize("scores", [[1.0], [1.0, math.nan], [1.0, math.inf]])
def test_scores_that_are_missing_or_no_numbers_are_refused(scores):
    with pytest.raises(ScorerError):
        select([_answer("a", 0), _answer("a", 1)], scores, n=2)


@pytest.mark.parametrize("n", range(1, 8))
def test_expected_best_is_the_mean_over_every_subset(n):
    # By enumeration; the scores hold a tie, whose members differ in true worth.
    scores = [0.3, -1.0, 2.0, 2.0, 0.0, 1.5, -0.2]
    worth = [1.0, 2.0, -3.0, 5.0, 0.5, 0.0, 4.0]
    subsets = list(itertools.combinations(range(7), n))
    # max keeps the first of equals: the lower place.
    best = [max(subset, key=lambda number: scores[number]) for subset in subsets]
    assert expected_best(scores, n) == pytest.approx(np.mean([scores[number] for number in best]), abs=1e-12)
    assert expected_best(scores, n, values=worth) == pytest.approx(
        np.mean([worth[number] for number in best]), abs=1e-12
    )


def test_expected_best_does_not_overflow_for_many_answers():
    scores = [number / 1024 for number in range(1024)]
    # By hand: the best of 512 of 1,024 evenly spaced values lies at 512/513 of 1,025/1,024, less one step.
    assert expected_best(scores, 512) == pytest.approx((512 / 513 * 1025 - 1) / 1024, abs=1e-9)


@pytest.mark.parametrize("n", [0, 4])
def test_an_n_beyond_the_answers_is_refused(n):
    with pytest.raises(DataError, match=f"n = {n} cannot be estimated from 3"):
        expected_best([1.0, 2.0, 3.0], n)


def test_one_value_for_each_score_is_needed():
    with pytest.raises(ScorerError, match="each of 3 completions, got 2"):
        expected_best([1.0, 2.0, 3.0], 2, values=[1.0, 2.0])


@pytest.mark.parametrize(("n", "nats"), [(1, 0.0), (2, math.log(2) - 0.5), (16, 1.8350887)])
def test_divergence_follows_the_published_formula(n, nats):
    # Stiennon et al. 2020: log n - (n - 1)/n; 1.835 for 16 by hand: 2.7726 - 0.9375.
    assert analytic_kl(n) == pytest.approx(nats, abs=1e-7)


@pytest.mark.parametrize(("probabilities", "n"), [([0.7, 0.2, 0.1], 4), ([0.25] * 4, 16), ([1 / 200] * 200, 2)])
def test_divergence_formula_bounds_the_true_divergence(probabilities, n):
    # Exact, by hand: with answers ranked worst to best, the best of n is k with probability F(k)^n - F(k-1)^n.
    cumulative = [0.0, *np.cumsum(probabilities).tolist()]
    best = [high**n - low**n for low, high in itertools.pairwise(cumulative)]
    true = sum(b * math.log(b / p) for b, p in zip(best, probabilities, strict=True) if b > 0)
    assert true < analytic_kl(n)


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        Config(samples=4)  # type: ignore[call-arg]
