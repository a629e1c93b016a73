"""The sentences are read by people who will not check them, so each claim is held against numbers set by hand."""

import pytest

from pasture.core.records import WinRate
from pasture.report.content import Difference, EqualLengthGap, Leaderboard
from pasture.report.numbers import MINUS
from pasture.report.summary import sentences


def row(system: str, rate: float | None, low: float | None = None, high: float | None = None, **more: int) -> WinRate:
    counts = {"asked": 1000, "judged": 1000, "unjudged": 0, "wins": 0, "losses": 0, "ties": 0} | more
    return WinRate(
        system=system,
        reference="demos",
        judge="people",
        rate=rate,
        standard_error=None,
        interval_low=low,
        interval_high=high,
        **counts,
    )


def text(*boards: Leaderboard, baseline: str = "") -> str:
    return " ".join(sentences(boards, baseline))


def test_the_winner_is_named_with_rate_interval_and_count() -> None:
    board = Leaderboard(title="people", rows=(row("sft", 0.36, 0.33, 0.39), row("ppo", 0.52, 0.49, 0.55)))
    assert sentences((board,))[0] == (
        "Judged by people, ppo comes first: "
        "it wins 52.0% (95% interval 49.0% to 55.0%) of 1,000 comparisons with demos."
    )


def test_a_system_alone_has_no_first_place() -> None:
    # By 0.497 the reference wins more often: nobody may read that the system is first.
    board = Leaderboard(title="people", rows=(row("ppo", 0.497, 0.463, 0.531),))
    assert sentences((board,)) == [
        "Judged by people, ppo wins 49.7% (95% interval 46.3% to 53.1%) of 1,000 comparisons with demos.",
        "The interval holds 50%, so it cannot be told apart from demos.",
    ]
    # Nor has the only one of two that was judged.
    unjudged = row("sft", None, judged=0, unjudged=1000)
    assert "first" not in text(Leaderboard(title="people", rows=(row("ppo", 0.6, 0.57, 0.63), unjudged)))


def test_equal_rates_are_called_level() -> None:
    assert "a comes first, level with b:" in text(Leaderboard(title="people", rows=(row("b", 0.5), row("a", 0.5))))


def test_the_reference_is_beaten_only_when_the_whole_interval_lies_above_half() -> None:
    def said(low: float, high: float) -> str:
        return text(Leaderboard(title="people", rows=(row("ppo", (low + high) / 2, low, high),)))

    assert "it beats demos" in said(0.501, 0.6)
    assert "cannot be told apart from demos" in said(0.5, 0.6)
    assert "cannot be told apart from demos" in said(0.4, 0.5)
    assert "does not reach demos" in said(0.4, 0.499)


def test_intervals_that_overlap_are_taken_for_no_proof_of_anything() -> None:
    def said(high: float) -> str:
        rows = (row("ppo", 0.52, 0.49, 0.55), row("sft", 0.46, 0.43, high))
        return text(Leaderboard(title="people", rows=rows), baseline="sft")

    assert (
        "a gain of 6.0 points over 46.0%: no paired difference was computed that would tell whether it is chance."
        in said(0.49)
    )
    assert "the two intervals do not touch" in said(0.489)


def test_a_paired_difference_speaks_instead_of_overlapping_intervals_whichever_way_round_it_is_given() -> None:
    rows = (row("ppo", 0.52, 0.45, 0.59), row("bon", 0.48, 0.41, 0.55))
    forward = Difference(system="ppo", baseline="bon", difference=0.04, interval_low=0.01, interval_high=0.07)
    backward = Difference(system="bon", baseline="ppo", difference=-0.04, interval_low=-0.07, interval_high=-0.01)
    expected = "Next comes bon with 48.0%, 4.0 points (95% interval 1.0 to 7.0) behind: chance does not explain it."
    for pair in (forward, backward):
        assert expected in text(Leaderboard(title="people", rows=rows, differences=(pair,)))


def test_a_paired_interval_that_holds_zero_may_be_chance() -> None:
    rows = (row("ppo", 0.52, 0.51, 0.53), row("bon", 0.48, 0.47, 0.49))
    pair = Difference(system="ppo", baseline="bon", difference=0.04, interval_low=-0.01, interval_high=0.09)
    assert "it may be chance" in text(Leaderboard(title="people", rows=rows, differences=(pair,)))


def gain_at_equal_length(gain: tuple[float, float, float], equal: tuple[float, float, float], order: str) -> str:
    """What is said of ppo's gain over sft, with difference and interval, and those at equal length."""
    difference, low, high = gain
    gap = EqualLengthGap(difference=equal[0], interval_low=equal[1], interval_high=equal[2])
    given = Difference(
        system="ppo", baseline="sft", difference=difference, interval_low=low, interval_high=high, at_equal_length=gap
    )
    if order == "backward":
        given = Difference(
            system="sft",
            baseline="ppo",
            difference=-difference,
            interval_low=-high,
            interval_high=-low,
            at_equal_length=gap.reversed(),
        )
    rows = (row("ppo", 0.474, 0.439, 0.508), row("sft", 0.474 - difference, 0.33, 0.41))
    return text(Leaderboard(title="people", rows=rows, differences=(given,)), baseline="sft")


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_a_gain_that_longer_answers_explain_is_not_left_standing_alone(order: str) -> None:
    gain = (0.101, 0.059, 0.141)
    assert (
        "chance does not explain it. Length is part of this: if all answers were as long as those of demos, it would "
        f"be a loss of 2.2 points (95% interval of the gain {MINUS}6.1 to 1.9): that may be chance."
    ) in gain_at_equal_length(gain, (-0.022, -0.061, 0.019), order)
    assert f"a loss of 4.0 points (95% interval of the gain {MINUS}6.1 to {MINUS}1.9): chance does" in (
        gain_at_equal_length(gain, (-0.04, -0.061, -0.019), order)
    )
    assert "it would be a gain of 1.0 points" in gain_at_equal_length(gain, (0.01, -0.02, 0.04), order)


def test_length_that_changes_neither_sign_nor_chance_is_left_to_the_tables() -> None:
    assert "Length is" not in gain_at_equal_length((0.101, 0.059, 0.141), (0.05, 0.01, 0.09), "forward")
    # Neither sign can be told, so none has changed.
    assert "Length is" not in gain_at_equal_length((0.02, -0.02, 0.06), (-0.01, -0.05, 0.03), "forward")


def test_a_first_that_was_picked_among_many_needs_a_surer_difference_than_one_that_was_named_before() -> None:
    # By Bonferroni, of three systems two might have come first in place of the first: 0.03 counts as 0.06.
    rows = (row("ppo", 0.52, 0.48, 0.56), row("bon", 0.48, 0.44, 0.52), row("sft", 0.47, 0.43, 0.51))
    told = []
    for p_value in (0.03, 0.02):
        given = Difference(
            system="ppo", baseline="bon", difference=0.04, interval_low=0.01, interval_high=0.07, p_value=p_value
        )
        told.append(text(Leaderboard(title="people", rows=rows, differences=(given,))))
    assert "behind: the first of 3 was picked afterwards, so it may be chance." in told[0]
    assert "behind: chance does not explain it." in told[1]


def test_without_intervals_nothing_is_called_sure() -> None:
    said = text(Leaderboard(title="people", rows=(row("ppo", 0.52), row("sft", 0.3))), baseline="sft")
    assert "there is no interval to tell" in said
    assert "beats" not in said
    assert "do not touch" not in said


def test_a_second_judge_who_ranks_otherwise_is_quoted() -> None:
    first = Leaderboard(title="people", rows=(row("a", 0.5), row("b", 0.4), row("c", 0.3)))
    same = Leaderboard(title="raters", rows=(row("a", 0.6), row("b", 0.5), row("c", 0.1)))
    other = Leaderboard(title="raters", rows=(row("a", 0.4), row("b", 0.5), row("c", 0.1)))
    assert "By raters, the 3 systems rank in the same order." in text(first, same)
    assert "By raters, the systems rank otherwise, from first to last: b, a, c; there b wins 50.0%." in text(
        first, other
    )


def test_judges_of_one_order_share_a_sentence_and_a_comma_in_a_name_breaks_none() -> None:
    first = Leaderboard(title="people", rows=(row("a", 0.5), row("b", 0.4)))
    others = [
        Leaderboard(title=title, rows=(row("a", 0.4), row("b", rate)))
        for title, rate in (("raters", 0.5), ("raters, 25% label noise", 0.6))
    ]
    said = text(first, *others)
    assert (
        "By raters and by raters (25% label noise), the systems rank otherwise, from first to last: b, a; "
        "there b wins 50.0% and 60.0%."
    ) in said
    assert said.count("otherwise") == 1


def test_many_systems_and_long_names_leave_the_summary_readable() -> None:
    rows = tuple(row("system " * 1000 + str(number), 0.5) for number in range(200))
    assert "and 194 more" in text(Leaderboard(title="people", rows=rows))
    assert len(text(Leaderboard(title="people", rows=rows), baseline=rows[1].system)) < 1000


def test_a_baseline_that_wins_is_no_gain_over_itself() -> None:
    said = text(Leaderboard(title="people", rows=(row("sft", 0.5), row("ppo", 0.4))), baseline="sft")
    assert "training set out" not in said
    assert "Next comes ppo" in said


def test_unjudged_comparisons_are_never_passed_over() -> None:
    board = Leaderboard(title="people", rows=(row("a", 0.5, judged=990, unjudged=10), row("b", 0.4)))
    assert "Of 2,000 comparisons put to people, 10 were not judged and count nowhere." in text(board)


def test_nothing_judged_ranks_nothing() -> None:
    unjudged = row("a", None, judged=0, unjudged=1000)
    assert sentences((Leaderboard(title="people", rows=(unjudged,)),)) == [
        "Nothing has been judged, so there is no ranking."
    ]
    assert sentences(()) == []
