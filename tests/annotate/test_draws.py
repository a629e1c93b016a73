import json
import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from scipy import stats

from pasture.annotate import compat
from pasture.annotate.draws import annotator_for, noise_label, shows_second_first
from pasture.core.errors import DataError
from pasture.core.records import Comparison, Completion, Instruction


def comparison(number: int, first: str = "yes", second: str = "no") -> Comparison:
    asked = Instruction(id=f"i{number}", instruction=f"question {number}", input="", source="test", split="eval")
    a, b = (
        Completion(instruction_id=asked.id, text=f"{text} {number}", system=text, seed=0) for text in (first, second)
    )
    return Comparison.of(asked, a, b)


POOL = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}


def test_assignment_is_uniform_over_ten_thousand_instructions():
    counts = Counter(annotator_for(f"question {i}", "", 0, POOL) for i in range(10_000))
    assert stats.chisquare([counts[name] for name in POOL]).pvalue > 0.01


def test_assignment_follows_the_weights():
    weights = {"five": 5.0, "four": 4.0, "never": 0.0, "one": 1.0}
    counts = Counter(annotator_for(f"question {i}", "", 0, weights) for i in range(10_000))
    assert counts["never"] == 0
    drawn = [counts[name] for name in ("five", "four", "one")]
    assert stats.chisquare(drawn, [5000, 4000, 1000]).pvalue > 0.01


def test_assignment_depends_on_instruction_input_and_seed():
    names = [f"n{i}" for i in range(1000)]
    pool = dict.fromkeys(names, 1.0)
    drawn = {annotator_for(*key, pool) for key in [("q", "", 0), ("q", "x", 0), ("q", "", 1), ("p", "", 0)]}
    assert len(drawn) == 4


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": float("nan")}])
def test_weights_that_draw_nobody_are_refused(weights):
    with pytest.raises(DataError, match="annotator weights"):
        annotator_for("q", "", 0, weights)


def test_half_of_the_pairs_are_shown_the_second_first():
    switched = sum(shows_second_first(comparison(i), 0) for i in range(10_000))
    assert stats.binomtest(switched, 10_000, 0.5).pvalue > 0.01


def test_a_pair_named_the_other_way_round_is_shown_the_same_texts_in_the_same_order():
    for i in range(200):
        assert shows_second_first(comparison(i), 0) != shows_second_first(comparison(i, "no", "yes"), 0)


def test_different_pairs_of_one_instruction_get_different_orders():
    orders = {shows_second_first(comparison(7, f"yes{i}", "zzz"), 0) for i in range(20)}
    assert orders == {True, False}


def test_noise_replaces_twice_its_probability_and_flips_its_probability():
    # AlpacaFarm: weights 1 - 2p, p, p over (judge, first, second); p = 0.25 replaces half, half of it wrong.
    labels = [noise_label(comparison(i), 0, 0.25) for i in range(10_000)]
    replaced = [label for label in labels if label is not None]
    assert stats.binomtest(len(replaced), 10_000, 0.5).pvalue > 0.01
    assert stats.binomtest(sum(label == "second" for label in replaced), len(replaced), 0.5).pvalue > 0.01


def test_noise_of_a_lower_probability_is_part_of_that_of_a_higher_one():
    for i in range(500):
        low, high = (noise_label(comparison(i), 0, p) for p in (0.1, 0.3))
        assert low is None or low == high


def test_no_probability_no_noise_and_one_half_leaves_no_judgement():
    assert all(noise_label(comparison(i), 0, 0.0) is None for i in range(500))
    assert all(noise_label(comparison(i), 0, 0.5) is not None for i in range(500))


@pytest.mark.parametrize("probability", [-0.1, 0.51, float("nan")])
def test_impossible_flip_probabilities_are_refused(probability):
    with pytest.raises(DataError, match="flip probability"):
        noise_label(comparison(1), 0, probability)


def test_order_and_noise_are_independent():
    table = Counter((shows_second_first(c, 0), noise_label(c, 0, 0.5)) for c in map(comparison, range(4000)))
    counts = [[table[switched, label] for label in ("first", "second")] for switched in (True, False)]
    assert stats.chi2_contingency(counts).pvalue > 0.01


PROGRAM = """
import json
from tests.annotate.test_draws import POOL, comparison
from pasture.annotate import compat
from pasture.annotate.draws import annotator_for, noise_label, shows_second_first
pairs = [comparison(i) for i in range(300)]
print(json.dumps([
    [annotator_for(c.instruction.instruction, "", 3, POOL) for c in pairs],
    [shows_second_first(c, 3) for c in pairs],
    [noise_label(c, 3, 0.25) for c in pairs],
    [compat.annotator_for(c.instruction.instruction, 0, list(POOL)) for c in pairs],
    [compat.shows_second_first(c.instruction.instruction, 0) for c in pairs],
    [compat.noise_label(c.instruction.instruction, 0, 0.25) for c in pairs],
]))
"""


def test_three_fresh_processes_draw_the_same():
    results = []
    for hash_seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True)
        results.append(json.loads(done.stdout))
    assert results[0] == results[1] == results[2]


def test_alpaca_eval_noise_flips_a_quarter_of_its_labels():
    labels = [compat.noise_label(f"question {i}", 0, 0.25) for i in range(10_000)]
    assert stats.binomtest(labels.count("first"), 10_000, 0.25).pvalue > 0.01
    assert stats.binomtest(labels.count("second"), 10_000, 0.25).pvalue > 0.01


def test_alpaca_evals_draws_follow_its_published_formulas():
    # The formulas as alpaca_eval 0.6.6 has them, written out; its data holds them to it where it is at hand.
    for i in range(200):
        text = f"question {i}"
        switched = random.Random("is_switched_outputs" + text + "0").choices([False, True], k=1)[0]
        annotator = random.Random("annotator" + text + "0").choices(list(POOL), k=1)[0]
        noise = random.Random("noisy_preference" + text + "0").choices([None, "first", "second"], [0.5, 0.25, 0.25])[0]
        assert compat.shows_second_first(text, 0) == switched
        assert compat.annotator_for(text, 0, list(POOL)) == annotator
        assert compat.noise_label(text, 0, 0.25) == noise
