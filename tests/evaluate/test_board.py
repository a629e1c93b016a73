"""The leaderboard sorts, refuses to mix, counts everything and stays inert."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from pasture.core.errors import DataError
from pasture.core.statistics import Interval
from pasture.evaluate.alpaca_eval import outcomes_of_annotations
from pasture.evaluate.board import LengthControlled, build_board
from pasture.evaluate.outcomes import Outcomes, answers_of, outcomes_of
from pasture.evaluate.table import board_csv, board_table, interval_bar
from tests.evaluate.pairs import compare, outcomes, prefer, prefer_in_both_orders


def render(board) -> str:
    screen = io.StringIO()
    Console(width=200, file=screen, color_system=None, force_terminal=False).print(board_table(board))
    return screen.getvalue()


def test_rows_are_sorted_by_rate_and_systems_without_judgement_come_last():
    board = build_board(
        [
            outcomes([0.0, 1.0], system="middle"),
            outcomes([np.nan, np.nan], system="silent"),
            outcomes([1.0, 1.0], system="best"),
        ],
        seed=0,
    )
    assert [row.win_rate.system for row in board.rows] == ["best", "middle", "silent"]
    assert board.rows[2].win_rate.rate is None
    assert "0/2" in render(board)


def test_a_board_and_outcomes_print_as_one_line_whatever_their_size_and_their_names():
    assert repr(outcomes([0.0, 1.0, np.nan])) == "Outcomes(system='new', reference='old', judge='j': 2 judged of 3)"
    systems = [outcomes(np.arange(805) % 9 < n, system=f"s{n}") for n in range(1, 7)]  # 90 n of 805
    hostile = outcomes([np.nan] * 805, system="\u202e\n" + "x" * 10**6)
    assert repr(build_board(systems[:2], seed=0)) == "Board('s2' 22.4%, 's1' 11.2%)"
    assert repr(build_board([*systems, hostile], seed=0)).endswith("'s2' 22.4%, 2 more)")
    shown = repr(build_board([hostile], seed=0))
    assert len(shown) < 100
    assert shown.startswith(r"Board('\u202e\nx")
    assert shown.endswith("…' unjudged)")


def test_shares_and_positions_are_counted_by_hand():
    comparisons = [
        compare(0, texts=("short", "- a list\n- of two")),
        compare(1, texts=("a longer answer", "short")),
        compare(2, texts=("same", "same")),
        compare(3, texts=("short", "longer than that")),
    ]
    preferences = [
        prefer(comparisons[0], "second", shown_first="second"),
        prefer(comparisons[1], "first", shown_first="second"),
        prefer(comparisons[2], "tie", shown_first="first"),
        prefer(comparisons[3], "unjudged"),
    ]
    board = build_board(outcomes_of(preferences, comparisons, judge="j", reference="old"), seed=0)
    [row] = board.rows
    assert row.share_longer == 0.5  # comparisons 0 and 3 of 4
    assert row.share_list == 0.25
    assert row.share_shown_first == pytest.approx(2 / 3)
    assert (row.rate_when_first, row.rate_when_second) == (0.5, 0.5)
    assert {source: (part.rate, part.judged) for source, part in row.by_source.items()} == {
        "even": (0.75, 2),
        "odd": (0.0, 1),
    }
    assert row.discrete_rate == 0.5


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (outcomes([1.0, 0.0], system="b", judge="k"), "different judges: j, k"),
        (outcomes([1.0], system="b"), r"different instructions: of 2, 'b' lacks 1"),
    ],
)
def test_systems_that_cannot_be_compared_are_not_ranked_unless_asked(other, reason):
    systems = [outcomes([1.0, 0.0], system="a"), other]
    with pytest.raises(DataError, match=reason):
        build_board(systems, seed=0)
    board = build_board(systems, seed=0, allow_mixed=True)
    assert len(board.rows) == 2
    assert "Warning: The systems were judged" in " ".join(render(board).split())


def test_one_failed_judgement_does_not_forbid_a_ranking():
    # Both systems were asked about the same two instructions; that the judge failed once is shown in the counts.
    board = build_board([outcomes([1.0, 0.0], system="a"), outcomes([1.0, np.nan], system="b")], seed=0)
    assert [(row.win_rate.system, row.win_rate.unjudged) for row in board.rows] == [("b", 1), ("a", 0)]


def test_the_table_fits_a_narrow_terminal():
    board = build_board([outcomes([1.0, 0.0] * 400, system="a-rather-long-name-of-a-system")], seed=0)
    screen = io.StringIO()
    Console(width=80, file=screen, color_system=None).print(board_table(board))
    assert "a-rather-l" in screen.getvalue()
    assert "50.0 ± 1.8" in screen.getvalue()
    assert "800/800" in screen.getvalue()


def test_names_keep_their_place_beside_the_rates_at_equal_length():
    controlled = {"a-new-name": LengthControlled("pooled taste", 0.5, 0.018, Interval(0.46, 0.54))}
    systems = [outcomes([1.0, 0.0] * 400, system="a-new-name")]
    screen = io.StringIO()
    Console(width=80, file=screen, color_system=None).print(
        board_table(build_board(systems, seed=0, length_controlled=controlled))
    )
    [line] = [line for line in screen.getvalue().splitlines() if "800/800" in line]
    assert line.startswith(" a-new-name ")
    assert line.count("50.0 ± 1.8") == 2


def test_unjudged_comparisons_have_a_column_where_there_are_any():
    assert "None unjudged." in render(build_board([outcomes([1.0, 0.0], system="a")], seed=0))
    shown = render(build_board([outcomes([1.0, 0.0], system="a"), outcomes([1.0, np.nan], system="b")], seed=0))
    assert "None unjudged." not in shown
    assert re.search(r"b .* 1/2 +1 ", shown)
    assert re.search(r"a .* 2/2 +0 ", shown)


def test_an_empty_board_and_a_system_given_twice_are_refused():
    with pytest.raises(DataError, match="at least one system"):
        build_board([], seed=0)
    with pytest.raises(DataError, match="given twice"):
        build_board([outcomes([1.0]), outcomes([0.0])], seed=0)


HOSTILE = "=cmd|' /C calc'!A0 [red]x[/red] \x1b[2J\x1b]0;owned\x07 \u202egnp.exe <script>alert(1)</script>"


def test_hostile_names_are_inert_in_terminal_csv_and_json():
    system = replace(outcomes([1.0, 0.0], system=HOSTILE, judge=HOSTILE + "\n=1+1"), date="2026-11-22")
    board = build_board([system], seed=0)
    shown = render(board)
    assert not any(character in shown for character in "\x1b\x07\u202e")
    assert "[red]x[/red]" in shown  # rich markup is text, not color
    for line in csv.reader(io.StringIO(board_csv(board))):
        assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in line[:3])
        assert not any(character in cell for cell in line for character in "\x1b\x07\u202e")
    assert board.to_json().isascii()
    assert json.loads(board.to_json())["rows"][0]["win_rate"]["system"] == HOSTILE


def test_a_megabyte_of_name_does_not_flood_the_terminal():
    board = build_board([outcomes([1.0, 0.0], system="x" * 1_000_000)], seed=0)
    assert len(render(board)) < 5_000


def test_csv_and_json_carry_every_count():
    board = build_board([outcomes([1.0, 0.5, 0.0, np.nan], system="a")], seed=0)
    [row] = csv.DictReader(io.StringIO(board_csv(board)))
    assert {key: row[key] for key in ("asked", "judged", "unjudged", "wins", "losses", "ties", "win_rate")} == {
        "asked": "4", "judged": "3", "unjudged": "1", "wins": "1", "losses": "1", "ties": "1", "win_rate": "0.5",
    }  # fmt: skip
    assert json.loads(board.rows[0].to_json())["win_rate"]["unjudged"] == 1


@pytest.mark.parametrize(
    ("low", "rate", "high", "bar"),
    [
        (0.2, 0.4, 0.6, "··━━◆━━···"),
        (0.9, 1.0, 1.0, "·····|···◆"),
        (None, None, None, "·····|····"),
    ],
)
def test_the_interval_is_drawn_to_scale(low, rate, high, bar):
    assert interval_bar(low, rate, high, cells=10) == bar


@pytest.mark.parametrize(("when_first", "when_second", "place"), [(0.0, 1.0, "second"), (1.0, 0.3, "first")])
def test_a_judge_who_goes_by_the_place_is_told(when_first, when_second, place):
    # Shown first and second by turns: 100 of each, so by hand 100% for the second place, or 85% for the first.
    credit = np.where(np.arange(200) % 2 == 0, when_first, (np.arange(200) // 2 % 10) / 10 < when_second)
    board = build_board([outcomes(credit, system="a"), outcomes(credit, system="b")], seed=0)
    share = {"second": "100%", "first": "85%"}[place]
    assert len(board.warnings) == 1
    assert f"j preferred what it was shown {place} in {share} of 400 comparisons" in " ".join(render(board).split())


@pytest.mark.parametrize("credit", [np.ones(200), np.zeros(200), np.arange(200) % 2 * 0.5, np.array([0.0, 1.0] * 10)])
def test_nothing_is_said_of_places_where_they_explain_little_or_verdicts_are_few(credit):
    assert build_board([outcomes(credit)], seed=0).warnings == ()


def _answering(system: str, texts: list[str]) -> Outcomes:
    return replace(outcomes(np.arange(len(texts)) // 2 % 2, system=system), answer=answers_of(texts))


def test_systems_that_give_the_same_answers_are_told():
    same = [f"answer {number}" for number in range(40)]
    moved = [f"moved {number}" if number < 4 else text for number, text in enumerate(same)]  # 36 of 40 are the same
    other = [f"other {number}" if number < 5 else text for number, text in enumerate(same)]  # 35 of 40
    # The same texts to other instructions are no answers in common.
    turned = same[1:] + same[:1]
    systems = {"sft": same, "dpo": moved, "ppo": other, "kto": turned}
    board = build_board([_answering(name, texts) for name, texts in systems.items()], seed=0)
    [said] = board.warnings
    # By hand: ppo has 35 of 40 in common with each of the two, which is too few.
    assert said.startswith("Answers that are the same, letter for letter: 'dpo' and 'sft' (90%). Either one file")


def test_nothing_is_said_of_few_answers_or_of_those_whose_texts_are_not_at_hand():
    few = [f"answer {number}" for number in range(18)]
    assert build_board([_answering(name, few) for name in "ab"], seed=0).warnings == ()
    unknown = [outcomes(np.arange(40) // 2 % 2, system=name) for name in "ab"]
    assert build_board(unknown, seed=0).warnings == ()


def test_answers_are_compared_whether_they_come_as_records_or_as_annotations():
    pairs = {system: [compare(number, system=system) for number in range(20)] for system in ("a", "b")}
    rows = [
        {
            "instruction": one.instruction.instruction,
            "output_1": one.first.text,
            "output_2": one.second.text,
            "generator_1": "old",
            "generator_2": system,
            "annotator": "j",
            "preference": 2,
        }
        for system, own in pairs.items()
        for one in own
    ]
    of_records = [outcomes_of([], own, judge="j", reference="old")[0] for own in pairs.values()]
    for found in (of_records, outcomes_of_annotations(rows)):
        [said] = build_board(found, seed=0).warnings
        assert "'a' and 'b' (100%)" in said


@pytest.mark.parametrize(
    ("credit", "when_first", "when_second"),
    # The system is the second completion: by hand 1 - 0.4 where it was shown first, 1 - 0.7 where it came second.
    [("verdict", 1.0, 0.0), ("probability", 0.6, 0.3)],
)
def test_a_pair_asked_in_both_orders_was_shown_first_once_and_second_once(credit, when_first, when_second):
    comparisons = [compare(number) for number in range(30)]
    # Always for what stands first: of the first completion's probabilities one is above and one below one half.
    preferences = [prefer_in_both_orders(row, ("first", "second"), (0.7, 0.4)) for row in comparisons]
    assert {one.preferred for one in preferences} == {"tie"}
    systems = outcomes_of(preferences, comparisons, judge="j", reference="old", credit=credit)
    board = build_board(systems, seed=0)
    [row] = board.rows
    assert row.share_shown_first == 0.5
    assert row.rate_when_first == pytest.approx(when_first)
    assert row.rate_when_second == pytest.approx(when_second)
    # 30 pairs in two orders are 60 verdicts, all of them for the first place.
    [said] = board.warnings
    assert said == (
        "j preferred what it was shown first in 100% of 60 verdicts, asked in both orders: these rates say little "
        "about the answers. Ask another judge."
    )


def test_a_judge_that_stands_by_its_verdicts_in_both_orders_is_not_said_to_go_by_the_place():
    comparisons = [compare(number) for number in range(60)]
    sides = ["first" if number % 2 else "second" for number in range(60)]
    preferences = [prefer_in_both_orders(row, (side, side)) for row, side in zip(comparisons, sides, strict=True)]
    board = build_board(outcomes_of(preferences, comparisons, judge="j", reference="old"), seed=0)
    assert board.warnings == ()
    # Half of the pairs are the system's, whatever the order.
    assert (board.rows[0].rate_when_first, board.rows[0].rate_when_second) == (0.5, 0.5)


def test_places_are_those_of_verdicts_that_were_asked_for():
    comparisons = [compare(number) for number in range(4)]
    preferences = [
        prefer_in_both_orders(comparisons[0], ("second", "second")),
        prefer_in_both_orders(comparisons[1], ("second", "unjudged")),  # unjudged as a whole
        prefer(comparisons[2], "tie", evidence={"identical": True}),  # settled without asking
        prefer(comparisons[3], "first", shown_first="second", evidence={"orders": ["of a person's own making"]}),
    ]
    [row] = build_board(outcomes_of(preferences, comparisons, judge="j", reference="old"), seed=0).rows
    # Shown first: comparison 0 (won) and 3 (lost); shown second: comparison 0 (won).
    assert row.share_shown_first == pytest.approx(2 / 3)
    assert (row.rate_when_first, row.rate_when_second) == (0.5, 1.0)
    assert row.win_rate.judged == 3


def test_orders_that_hold_no_verdict_name_the_comparison():
    comparison = compare(0)
    orders = [{"shown_first": "first", "preferred": "perhaps", "probability_first": None}]
    preference = prefer(comparison, "tie", evidence={"orders": orders})
    with pytest.raises(DataError, match=rf"about comparison '{comparison.id}'.*'perhaps'.*Judge the comparison again"):
        outcomes_of([preference], [comparison], judge="j", reference="old")
