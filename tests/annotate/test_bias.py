import math
import random

import pytest

from pasture.annotate.bias import BiasReport, bias_report, has_list
from pasture.annotate.noise import UniformFlips
from pasture.annotate.panel import Panel, load_panel
from pasture.annotate.pool import LLMPool
from pasture.core.records import Comparison
from pasture.core.requests import Reply, Request
from tests.annotate.judging import Answering, RuleEngine, pair, pairs, shown


def report(answering: Answering, comparisons: list[Comparison]) -> BiasReport:
    judge = next(judge for judge in load_panel("p-eval", ["x"]).judges if judge.name == "x/turns-short")
    panel = Panel("single", [judge], [1.0], noise=UniformFlips(probability=0.25))
    return bias_report(LLMPool(panel, RuleEngine(answering)), comparisons)


def first(request: Request) -> str:
    return "Answer (a)"


def longer(request: Request) -> str:
    a, b = shown(request)[0]
    return "Answer (a)" if len(a) > len(b) else "Answer (b)"


def lengths(count: int) -> list[Comparison]:
    """Half of the pairs differ by more than 30 characters, the first being the longer in half of these."""
    sizes = [(100, 10), (10, 100), (20, 10), (10, 20)]
    return [pair(f"q{i}", "good" + "x" * sizes[i % 4][0], "bad" + "y" * sizes[i % 4][1]) for i in range(count)]


def test_a_judge_that_takes_the_first_leans_wholly_to_it_and_always_changes_with_the_order():
    found = report(first, pairs(40))
    assert found.prefers_first_shown.value == 1.0
    assert found.changes_with_order.value == 1.0
    assert found.agrees_with_itself.value == 1.0


def test_a_judge_of_length_leans_to_length_alone():
    found = report(longer, lengths(40))
    assert (found.prefers_longer.value, found.prefers_longer.count) == (1.0, 20)
    assert found.prefers_first_shown.value == 0.5
    assert found.changes_with_order.value == 0.0


def test_a_judge_of_position_leans_to_no_length():
    found = report(first, lengths(40))
    assert found.prefers_longer.value == 0.5


def test_a_judge_of_chance_agrees_with_itself_by_half():
    coin = random.Random(0)
    found = report(lambda request: coin.choice(["Answer (a)", "Answer (b)"]), pairs(1000))
    # Each pair gives the mean of two fair coins: the standard error is 0.5 / sqrt(2000), by hand.
    assert found.agrees_with_itself.standard_error == pytest.approx(0.5 / math.sqrt(2000), rel=0.1)
    assert found.agrees_with_itself.value == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2000))
    assert found.changes_with_order.value == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(1000))


def test_lists_are_measured_where_exactly_one_answer_has_one():
    listed = "good:\n- one\n- two"
    comparisons = [
        pair("q1", listed, "bad"),
        pair("q2", "good", listed.replace("good", "bad")),
        pair("q3", listed, listed.replace("good", "bad")),
        pair("q4", "good", "bad"),
    ]

    def takes_list(request: Request) -> str:
        a, _ = shown(request)[0]
        return "Answer (a)" if "- one" in a else "Answer (b)"

    found = report(takes_list, comparisons)
    assert (found.prefers_list.value, found.prefers_list.count) == (1.0, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1. one\n2. two", True),
        ("Intro:\n  * one\n  * two", True),
        ("a) one\nb) two", True),
        ("• one\n• two", True),
        ("- just one", False),
        ("It cost 3.5 - a lot - of money.", False),
        ("1999 was good.\n2000 was better.", False),
        ("-\n-", False),
    ],
)
def test_a_list_has_two_items(text, expected):
    assert has_list(text) is expected


def test_refusals_are_told_from_bad_form():
    replies = {"0": "I'm sorry, I can't compare these.", "1": "Hm, both.", "2": "Answer (a)"}

    def answering(request: Request) -> str:
        return replies[shown(request)[0][0].split()[1]]

    found = report(answering, pairs(3))
    assert (found.asked, found.judged, found.unjudged, found.refused) == (3, 1, 2, 1)


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        ("Sorry, I will compare no such texts.", True),
        ("I am truly sorry, but no.", True),
        ("I must apologize: this is beyond me.", True),
        ("Both explain how to change a coffee filter equally well.", False),
        ("Both are sorry writing.", False),
        ("Both answers apologize for the delay.", False),
    ],
)
def test_words_of_a_refusal_in_a_discussion_of_the_answers_are_none(reply, refused):
    found = report(lambda request: reply, pairs(2))
    assert (found.unjudged, found.refused) == (2, 2 * refused)


def test_a_filter_in_the_second_order_alone_is_a_refusal():
    def answering(request: Request) -> Reply | str:
        kept = Reply(error="the service's safeguards refused the answer", finish_reason="filtered")
        return "Answer (a)" if shown(request)[0][0].startswith("good") else kept

    found = report(answering, pairs(2))
    assert (found.unjudged, found.refused) == (2, 2)


def test_a_filtered_call_is_a_refusal():
    found = report(lambda request: Reply(error="model 'x': content filter", finish_reason="filtered"), pairs(2))
    assert (found.unjudged, found.refused) == (2, 2)
    assert found.prefers_longer.value is None


def test_identical_answers_are_left_out_and_noise_takes_no_part():
    engine_calls: list[Request] = []

    def answering(request: Request) -> str:
        engine_calls.append(request)
        return "Answer (a)"

    found = report(answering, [*pairs(10), pair("q", "same", "same")])
    assert found.asked == 10
    assert len(engine_calls) == 40
    assert found.cost_usd == pytest.approx(0.4)


def test_an_unknown_price_makes_the_cost_unknown():
    assert report(lambda request: Reply(text="Answer (a)"), pairs(2)).cost_usd is None
