"""Answers are read from AlpacaEval's files and paired by instruction; files go out in its layout."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from pasture.core.errors import DataError
from pasture.evaluate.alpaca_eval import annotation_rows, credit_of, leaderboard_csv, outcomes_of_annotations
from pasture.evaluate.board import build_board
from pasture.evaluate.orders import both_orders
from pasture.evaluate.outcomes import outcomes_of
from pasture.evaluate.outputs import pair_outputs, read_outputs
from tests.evaluate import published
from tests.evaluate.pairs import compare, prefer


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_two_files_pair_by_instruction_and_count_what_they_do_not_share(tmp_path):
    a = write(tmp_path / "a.json", [
        {"instruction": "x", "output": "1", "generator": "A", "dataset": "koala"},
        {"instruction": "y", "output": True, "generator": "A"},
        {"instruction": "y", "input": "more", "output": "3", "generator": "A"},
    ])  # fmt: skip
    b = write(tmp_path / "b.json", [{"instruction": "y", "output": "B"}, {"instruction": "z", "output": "B"}])
    pairing = pair_outputs(read_outputs(a), read_outputs(b))
    [comparison] = pairing.comparisons
    assert (comparison.first.system, comparison.first.text) == ("b", "B")
    assert (comparison.second.system, comparison.second.text) == ("A", "true")
    assert (pairing.only_system, pairing.only_reference) == (2, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"instruction": "x", "output": "1"}, {"instruction": "x", "output": "2"}], "rows 1 and 2 answer the same"),
        ([{"instruction": "x"}], "expected text under 'output', got nothing"),
        ([{"instruction": "", "output": "1"}], "row 1: the instruction is empty"),
        ([{"instruction": "\ud83d", "output": "1"}], "row 1: instruction: holds a lone surrogate"),
        ([{"instruction": "x", "output": "\ud83d"}], "row 1: text: holds a lone surrogate"),
        ([{"instruction": "x", "output": "1", "token_count": -1}], "row 1: token_count: .*greater than or equal to 0"),
        ([], "holds no rows"),
        (
            [{"instruction": name, "output": "1", "generator": name} for name in "xy"],
            "expected one generator, found 2",
        ),
    ],
)  # fmt: skip
def test_broken_outputs_say_where(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_outputs(write(tmp_path / "a.json", rows))


def test_one_name_for_two_systems_and_nothing_in_common_are_errors(tmp_path):
    one = read_outputs(write(tmp_path / "a.json", [{"instruction": "x", "output": "1"}]))
    with pytest.raises(DataError, match="both files are by 'a'"):
        pair_outputs(one, one)
    with pytest.raises(DataError, match="no instruction in common, of 1 and 1"):
        pair_outputs(one, read_outputs(write(tmp_path / "b.json", [{"instruction": "y", "output": "1"}])))


@pytest.mark.parametrize(
    ("preference", "credit"), [(1, 0.0), (2.0, 1.0), (1.5, 0.5), (0, 0.5), ("1.25", 0.25), (None, None), (-1, None)]
)
def test_alpaca_evals_preference_codes(preference, credit):
    value = credit_of(preference, "row 1")
    assert np.isnan(value) if credit is None else value == credit


def test_a_preference_out_of_range_is_an_error():
    with pytest.raises(DataError, match="row 1: preference 3 is outside"):
        credit_of(3, "row 1")


def test_annotations_survive_the_way_out_and_back():
    comparisons = [compare(number) for number in range(4)]
    preferences = [
        prefer(comparisons[0], "second", probability_first=0.125, shown_first="second"),
        prefer(comparisons[1], "first"),
        prefer(comparisons[2], "tie"),
        prefer(comparisons[3], "unjudged"),
    ]
    rows = annotation_rows(preferences, comparisons)
    assert [row["preference"] for row in rows] == [1.875, 1.0, 1.5, None]
    [direct] = outcomes_of(preferences, comparisons, judge="j", reference="old", credit="probability")
    [again] = outcomes_of_annotations(json.loads(json.dumps(rows)))
    np.testing.assert_array_equal(again.credit, direct.credit)
    np.testing.assert_array_equal(again.shown_first, direct.shown_first)
    assert (again.system, again.reference, again.judge) == ("new", "old", "j")


def test_the_leaderboard_goes_out_in_alpaca_evals_columns():
    comparisons = [compare(number, texts=("old text", "longer text")) for number in range(4)]
    verdicts = ("second", "first", "tie", "unjudged")
    preferences = [prefer(row, verdict) for row, verdict in zip(comparisons, verdicts, strict=True)]
    board = build_board(outcomes_of(preferences, comparisons, judge="j", reference="old"), seed=0)
    [row] = csv.DictReader(io.StringIO(leaderboard_csv(board)))
    counts = {name: row[name] for name in ("n_wins", "n_wins_base", "n_draws", "n_total", "avg_length")}
    assert counts == {"n_wins": "1", "n_wins_base": "1", "n_draws": "1", "n_total": "3", "avg_length": "11"}
    assert row[""] == "new"
    assert float(row["win_rate"]) == float(row["discrete_win_rate"]) == 50


def test_both_orders_weigh_the_same_and_flips_are_counted():
    comparisons = [compare(number) for number in range(4)]
    preferences = [
        # The system wins both ways; flips twice in favor of the one shown first; loses both ways.
        *(prefer(comparisons[0], "second", shown_first=side) for side in ("first", "second")),
        *(prefer(comparisons[1], side, shown_first=side) for side in ("first", "second")),
        *(prefer(comparisons[2], side, shown_first=side) for side in ("first", "second")),
        *(prefer(comparisons[3], "first", shown_first=side) for side in ("first", "second")),
    ]
    [columns] = outcomes_of(preferences, comparisons, judge="j", reference="old")
    result = both_orders(columns, seed=0)
    assert (result.win_rate.value, result.flip_rate.value, result.first_gain) == (0.5, 0.5, 0.5)
    assert (result.both, result.single) == (4, 0)
    with pytest.raises(DataError, match="no instruction of 'new' was judged in both orders"):
        both_orders(columns.where(columns.shown_first), seed=0)


@published.needs_published
def test_published_outputs_pair_up_to_the_805():
    folder = published.FOLDER / "model_outputs"
    system = read_outputs(folder / "gpt-3.5-turbo-1106_verbose.json.gz")
    pairing = pair_outputs(system, read_outputs(folder / "gpt4_1106_preview.json.gz"))
    assert (len(pairing.comparisons), pairing.only_system, pairing.only_reference) == (805, 0, 0)
    mean_length = np.mean([len(comparison.second.text) for comparison in pairing.comparisons])
    assert int(mean_length) == 1058  # published as avg_length


@pytest.mark.parametrize(
    ("switched", "first", "second"),
    [
        (["True", "False", True], [1, 0, 1], [0, 1, 0]),
        ([None, "", False], [0, 0, 0], [0, 0, 1]),
    ],
)
def test_which_output_was_shown_first_is_known_where_a_row_says_so(switched, first, second):
    rows = [
        {"instruction": f"i{n}", "output_1": "a", "output_2": "b", "generator_1": "r", "generator_2": "s"}
        | {"preference": 2, "annotator": "j", "is_switched": value}
        for n, value in enumerate(switched)
    ]
    [found] = outcomes_of_annotations(rows)
    # By hand: switched outputs show the second first; where nobody says, an answer has no place.
    assert [int(not np.isnan(value)) for value in found.by_place()[0]] == first
    assert [int(not np.isnan(value)) for value in found.by_place()[1]] == second
    row = build_board([found], seed=0).rows[0]
    assert row.share_shown_first == pytest.approx(sum(first) / (sum(first) + sum(second)))


def test_an_order_that_is_neither_is_an_error():
    row = {"instruction": "i", "output_1": "a", "output_2": "b", "generator_1": "r", "generator_2": "s"}
    with pytest.raises(DataError, match="is_switched is 'perhaps', which is neither true nor false"):
        outcomes_of_annotations([row | {"preference": 2, "annotator": "j", "is_switched": "perhaps"}])
