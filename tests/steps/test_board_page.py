"""What the pages of a run and of an evaluation say of their boards."""

from dataclasses import replace

import numpy as np
import pytest

from pasture.evaluate.length_control import equal_length
from pasture.evaluate.outcomes import Outcomes
from pasture.report.summary import sentences
from pasture.steps.board_page import (
    differences_among,
    differences_from,
    leaderboard_of,
    source_table,
    wilson_interval,
)
from pasture.steps.report import facts, own_words


def outcomes(system: str, wins: int, count: int = 40) -> Outcomes:
    credit = np.array([1.0] * wins + [0.0] * (count - wins))
    plain = np.zeros(count, dtype=np.bool_)
    return Outcomes(
        system=system,
        reference="demonstrations",
        judge="people",
        instruction=np.array([f"i{number}" for number in range(count)], dtype=np.str_),
        source=np.array(["drills"] * count, dtype=np.str_),
        credit=credit,
        shown_first=plain,
        system_length=np.ones(count),
        reference_length=np.ones(count),
        system_list=plain,
        reference_list=plain,
    )


def test_the_best_two_are_paired_beside_everyone_with_the_baseline() -> None:
    systems = [outcomes("base", 10), outcomes("sft", 24), outcomes("ppo", 20), outcomes("dpo", 30)]
    pairs = [(one.system, one.baseline) for one in differences_from(systems, "sft", seed=0)]
    # dpo leads, sft is second; the next of those that are not the baseline is ppo.
    assert pairs == [("base", "sft"), ("ppo", "sft"), ("dpo", "sft"), ("dpo", "ppo")]
    leading = [(one.system, one.baseline) for one in differences_from(systems, "dpo", seed=0)]
    assert leading == [("base", "dpo"), ("sft", "dpo"), ("ppo", "dpo")]
    assert differences_from(systems, "absent", seed=0) == []


def test_every_pair_of_few_systems_is_compared_those_with_the_baseline_first() -> None:
    systems = [outcomes("base", 10), outcomes("sft", 24), outcomes("ppo", 20), outcomes("dpo", 30)]
    pairs = [(one.system, one.baseline) for one in differences_among(systems, "sft", seed=0)]
    assert pairs == [("base", "sft"), ("ppo", "sft"), ("dpo", "sft"), ("dpo", "ppo"), ("dpo", "base"), ("ppo", "base")]
    # Seven systems make 21 pairs, which nobody reads: six with the first.
    many = [outcomes(f"s{wins}", wins) for wins in range(10, 24, 2)]
    assert len(differences_among(many[:6], "", seed=0)) == 15
    assert [one.baseline for one in differences_among(many, "", seed=0)] == ["s22"] * 6


def test_a_pair_without_a_common_instruction_is_left_out_of_all_pairs() -> None:
    first, second = outcomes("a", 20), outcomes("b", 30)
    early = np.arange(40) < 20
    apart = [replace(one, credit=np.where(own, one.credit, np.nan)) for one, own in ((first, early), (second, ~early))]
    assert [(one.system, one.baseline) for one in differences_among([*apart, outcomes("c", 5)], "", seed=0)] == [
        ("a", "c"),
        ("b", "c"),
    ]


def test_a_leaderboard_of_outcomes_tells_what_overlapping_intervals_do_not() -> None:
    # 20 and 28 of 40: each interval of about 15 points to either side holds the other's rate, and no instruction was
    # won by a alone. Eight of eight that part them go one way, which is 2 x 0.5^8 = 0.008 by the sign test.
    board = leaderboard_of([outcomes("a", 20), outcomes("b", 28)], title="people", baseline="a")
    low, high = board.rows[0].interval_high, board.rows[1].interval_low
    assert low is not None
    assert high is not None
    assert low > high
    [found] = board.differences
    assert (found.system, found.baseline) == ("b", "a")
    assert found.difference == pytest.approx(0.2)
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert "20.0 points (95% interval" in " ".join(sentences((board,), "a"))
    assert "chance does not explain it" in " ".join(sentences((board,), "a"))


def test_a_pair_has_its_difference_at_equal_length_where_that_was_computed() -> None:
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(4.0, 0.5, (2, 40)))
    systems = [replace(outcomes(name, wins), system_length=lengths[0]) for name, wins in (("a", 20), ("b", 30))]
    systems = [replace(one, reference_length=lengths[1]) for one in systems]
    control = equal_length(systems, seed=0, draws=50)
    [found] = differences_among(systems, "a", 0, control)
    assert found.at_equal_length is not None
    rates = {name: one.rate for name, one in control.rates.items()}
    assert found.at_equal_length.difference == pytest.approx(rates["b"] - rates["a"])
    assert found.at_equal_length.interval_low < rates["b"] - rates["a"] < found.at_equal_length.interval_high
    # A system that won every time keeps its rate, which no draw moves.
    certain = [*systems, outcomes("c", 40)]
    assert equal_length(certain, seed=0, draws=5).gap("c", "a") is None


def test_a_system_of_which_nothing_was_judged_has_no_difference_and_keeps_no_other_from_one() -> None:
    unjudged = replace(outcomes("ppo", 20), credit=np.full(40, np.nan))
    systems = [outcomes("sft", 24), unjudged, outcomes("dpo", 30)]
    assert [(one.system, one.baseline) for one in differences_from(systems, "sft", seed=0)] == [("dpo", "sft")]


def test_the_wilson_interval_is_that_of_the_literature() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 857, Table I, method 3: 81 of 263 is 0.2553 to 0.3662, 15 of 148 is
    # 0.0624 to 0.1605, 0 of 20 is 0 to 0.1611.
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_rates_by_source_carry_their_interval() -> None:
    by_source = {"chat": {"rate": 0.0, "judged": 20}, "essays": {"rate": None, "judged": 0}}
    table = source_table("people", [{"win_rate": {"system": "ppo"}, "by_source": by_source}])
    assert table is not None
    assert [column.title for column in table.columns] == ["System", "chat (20)", "essays (0)"]
    assert table.rows == (("ppo", "0.0%\n0 to 16", None),)


def test_facts_name_the_packages_that_learn_and_threads_only_where_the_recipe_sets_them() -> None:
    named = {fact.name: fact.value for fact in facts({"seed": 3, "threads": 2})}
    assert named["Seed"] == "3"
    assert named["Threads"] == "2"
    assert named["numpy"] == np.__version__
    assert "Threads" not in {fact.name for fact in facts({"seed": 3})}


def test_names_that_a_recipe_chose_are_words_of_its_own() -> None:
    learn = {"sft": {"method": "sft"}, "best_of_4": {"method": "best_of_n"}, "mine": {"method": "own/balanced.py"}}
    assert {word.name: word.value for word in own_words({"learn": learn})} == {
        "best_of_4": "The method best_of_n under this recipe's own name for it.",
        "mine": "A method of this recipe's own, in the file balanced.py.",
    }
