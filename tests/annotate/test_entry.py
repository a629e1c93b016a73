import asyncio
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pasture.annotate.entry import (
    Columns,
    Listener,
    alpaca_eval_value,
    annotate_head2head,
    annotate_pairs,
    annotate_samples,
)
from pasture.annotate.panel import load_panel
from pasture.annotate.pool import LLMPool
from pasture.annotate.raters import MeadowPool
from pasture.annotate.tables import write_rows
from pasture.core.errors import DataError
from pasture.core.files import write_records
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.core.tables import read_rows
from pasture.engines.scripted import ScriptedEngine
from tests.annotate.judging import prefers_good

datasets = pytest.importorskip("datasets", reason="datasets is not installed")
pandas = pytest.importorskip("pandas", reason="pandas is not installed")


def judge() -> LLMPool:
    return LLMPool(load_panel("p-eval", ["l", "m", "s"]), ScriptedEngine(prefers_good))


ROWS: list[dict[str, Any]] = [
    {"id": i, "instruction": f"do {i}", "input": "x" if i % 3 == 0 else "", "output_1": a, "output_2": b, "note": "é\n"}
    for i, (a, b) in enumerate(
        [("good", "bad"), ("bad", "good"), ("good same", "good same"), ("bad {input}", "good")] * 3
    )
]
EXPECTED = ["first", "second", "tie", "second"] * 3


def forms(folder: Path) -> dict[str, Any]:
    """The same rows in every form that is accepted."""
    made = {f"{ending}": folder / f"rows.{ending}" for ending in ("json", "jsonl", "csv", "parquet")}
    for path in made.values():
        write_rows(path, ROWS)
    frame = pandas.DataFrame(ROWS, index=range(100, 100 + len(ROWS)))
    return {
        **made,
        "text path": str(made["json"]),
        "list": copy.deepcopy(ROWS),
        "frame": frame,
        "dataset": datasets.Dataset.from_list(ROWS),
    }


def as_rows(data: Any) -> list[dict[str, Any]]:
    if isinstance(data, pandas.DataFrame):
        return list(data.to_dict("records"))
    return list(data.to_list()) if isinstance(data, datasets.Dataset) else list(data)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "parquet", "text path", "list", "frame", "dataset"])
def test_every_form_gives_the_same_labels_and_the_callers_rows_unchanged(tmp_path, form):
    data = forms(tmp_path)[form]
    done = annotate_pairs(data, judge())
    rows = as_rows(done.rows)
    assert [row["preferred"] for row in rows] == EXPECTED
    assert [row["preference"] for row in rows] == [{"first": 1.0, "second": 2.0, "tie": 1.5}[e] for e in EXPECTED]
    kept = [{name: row[name] for name in ROWS[0]} for row in rows]
    assert kept == ([{**row, "id": str(row["id"])} for row in ROWS] if form == "csv" else ROWS)


def test_what_a_run_or_a_campaign_recorded_is_judged_under_its_own_ids(tmp_path):
    asked = Instruction(id="i1", instruction="do it", source="test", split="preference")
    sides = [Completion(instruction_id="i1", text=text, system="sft", seed=n) for n, text in enumerate(("bad", "good"))]
    comparison = Comparison.of(asked, *sides)
    write_records(tmp_path / "comparisons.jsonl", [comparison])
    done = annotate_pairs(tmp_path / "comparisons.jsonl", judge())
    assert [(each.comparison_id, each.preferred) for each in done.preferences] == [(comparison.id, "second")]
    assert Comparison.model_validate({name: done.rows[0][name] for name in Comparison.model_fields}) == comparison
    torn = comparison.model_dump(mode="json") | {"second": sides[1].model_copy(update={"instruction_id": "i2"})}
    with pytest.raises(DataError, match=r"the list, row 1: comparison: second answers instruction 'i2', expected 'i1'"):
        annotate_pairs([torn], judge())


def test_a_frame_comes_back_as_a_frame_with_its_index_and_the_callers_own_is_left_alone(tmp_path):
    frame = forms(tmp_path)["frame"]
    before = frame.copy(deep=True)
    done = annotate_pairs(frame, judge()).rows
    pandas.testing.assert_frame_equal(frame, before)
    pandas.testing.assert_frame_equal(done[before.columns], before)
    assert list(done.index) == list(range(100, 112))


def test_the_callers_list_and_dicts_are_left_alone():
    rows = copy.deepcopy(ROWS)
    done = annotate_pairs(rows, judge()).rows
    assert rows == ROWS
    assert all(new is not old for new, old in zip(done, rows, strict=True))


def test_a_dataset_comes_back_as_a_dataset(tmp_path):
    done = annotate_pairs(forms(tmp_path)["dataset"], judge()).rows
    assert isinstance(done, datasets.Dataset)
    assert done.column_names[: len(ROWS[0])] == list(ROWS[0])


def test_a_missing_input_is_no_input_whatever_stands_for_it():
    base = {"instruction": "do", "output_1": "good", "output_2": "bad"}
    variants = [base, {**base, "input": None}, {**base, "input": float("nan")}, {**base, "input": ""}]
    done = annotate_pairs([*variants, {**base, "input": pandas.NA}], judge())
    assert len({each.comparison_id for each in done.preferences}) == 1


@pytest.mark.parametrize(("answer", "text"), [(True, "true"), (False, "false"), (3, "3"), (2.5, "2.5")])
def test_an_answer_that_is_a_number_or_a_truth_value_is_text_as_json_writes_it(answer, text):
    listener = Listener()
    rows = [{"instruction": "do", "input": answer, "output_1": answer, "output_2": "x"}]
    assert annotate_pairs(rows, listener).rows[0]["output_1"] is answer  # the caller's row stays as it is
    (comparison,) = listener.heard
    assert (comparison.instruction.input, comparison.first.text) == (text, text)


def test_counts_say_what_was_asked_judged_and_left():
    pool = LLMPool(load_panel("p-eval", "l"), ScriptedEngine("I cannot judge."))
    done = annotate_pairs(ROWS, pool)
    assert done.counts == {"asked": 12, "judged": 3, "unjudged": 9, "ties": 3, "flipped_by_noise": 0}
    assert done.rows[0]["preference"] is None
    assert "no verdict" in done.rows[0]["error"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "x", "output_1": "a"}, "row 1: expected text in column 'output_2', got columns instruction"),
        ({"instruction": "x", "output_1": "a", "output_2": [3]}, "row 1: expected text in column 'output_2', got list"),
        (
            {"instruction": "x", "output_1": "a", "output_2": float("nan")},
            "row 1: expected text in column 'output_2', got nothing",
        ),
        (
            {"instruction": " ", "output_1": "a", "output_2": "b"},
            "row 1: column 'instruction' is blank",
        ),
        ({"instruction": "\ud800", "output_1": "a", "output_2": "b"}, "row 1"),
        ({"instruction": "x", "output_1": "a", "output_2": "b", "preference": 1}, "column 'preference' already"),
    ],
)
def test_a_row_that_cannot_be_judged_is_named_before_anyone_is_asked(row, message):
    with pytest.raises(DataError, match=message):
        annotate_pairs([row], LLMPool(load_panel("greedy", "l"), ScriptedEngine({})))


def test_a_prefix_keeps_new_columns_apart():
    once = annotate_pairs(ROWS, judge()).rows
    twice = annotate_pairs(once, judge(), prefix="again_").rows
    assert [row["again_preference"] for row in twice] == [row["preference"] for row in once]


def test_columns_may_have_other_names():
    rows = [{"prompt": "do", "chosen": "good", "rejected": "bad"}]
    done = annotate_pairs(rows, judge(), columns=Columns(instruction="prompt", first="chosen", second="rejected"))
    assert done.rows[0]["preferred"] == "first"


@pytest.mark.parametrize("data", [3, "rows.xlsx", [1, 2], {"a": 1}, "absent.jsonl"])
def test_what_is_no_table_is_refused(data):
    with pytest.raises(DataError):
        annotate_pairs(data, judge())


def test_systems_are_joined_on_instruction_and_input_and_what_did_not_join_is_said():
    mine = [
        {"instruction": "a", "output": "good", "generator": "mine", "dataset": "d"},
        {"instruction": "b", "output": "bad", "generator": "mine", "dataset": "d"},
        {"instruction": "only mine", "output": "good", "generator": "mine", "dataset": "d"},
        {"instruction": "c", "input": "1", "output": "good", "generator": "mine", "dataset": "d"},
    ]
    theirs = [
        {"instruction": "c", "input": "2", "output": "good", "generator": "theirs"},
        {"instruction": "b", "output": "good", "generator": "theirs"},
        {"instruction": "a", "output": "bad", "generator": "theirs"},
        {"instruction": "a", "output": "bad again", "generator": "theirs"},
    ]
    done = annotate_head2head(mine, theirs, judge())
    assert [(r["instruction"], r["output_1"], r["output_2"], r["preferred"]) for r in done.rows] == [
        ("a", "good", "bad", "first"),
        ("b", "bad", "good", "second"),
    ]
    assert {(r["generator_1"], r["generator_2"], r["dataset"]) for r in done.rows} == {("mine", "theirs", "d")}
    assert sorted(done.left_out) == [
        "1 only in the first: 'c'",
        "1 only in the first: 'only mine'",
        "1 only in the second: 'a'",
        "1 only in the second: 'c'",
    ]


def test_systems_that_share_no_instruction_are_refused():
    with pytest.raises(DataError, match="join on columns 'instruction' and 'input'"):
        annotate_head2head([{"instruction": "a", "output": "x"}], [{"instruction": "b", "output": "x"}], judge())


def test_samples_give_one_pair_of_different_outputs_an_instruction_or_all():
    samples = [{"instruction": f"q{i}", "outputs": ["good", "bad", "good", "bad 2"], "k": i} for i in range(40)]
    one = annotate_samples(samples, judge()).rows
    assert [row["k"] for row in one] == list(range(40))
    assert all(row["output_1"] != row["output_2"] for row in one)
    assert len({(row["output_1"], row["output_2"]) for row in one}) == 6
    every = annotate_samples(samples[:1], judge(), which="all").rows
    assert [(r["output_1"], r["output_2"]) for r in every] == [("good", "bad"), ("good", "bad 2"), ("bad", "bad 2")]


def test_samples_may_stand_in_rows_of_their_own_and_their_order_does_not_matter():
    rows = [{"instruction": f"q{i}", "output": text} for text in ("good", "bad", "bad 2") for i in range(10)]
    one, other = annotate_samples(rows, judge()).rows, annotate_samples(rows[::-1], judge()).rows
    assert sorted(one, key=lambda r: r["instruction"]) == sorted(other, key=lambda r: r["instruction"])


def test_instructions_without_two_different_outputs_are_left_out_and_said():
    samples = [{"instruction": "a", "outputs": ["x", "x"]}, {"instruction": "b", "outputs": ["good", "bad"]}]
    done = annotate_samples(samples, judge())
    assert len(done.rows) == 1
    assert done.left_out == ("fewer than two different outputs: 'a'",)
    with pytest.raises(DataError, match="no instruction has two different outputs"):
        annotate_samples(samples[:1], judge())


def test_calls_work_where_an_event_loop_runs_already_as_in_a_notebook():
    async def cell() -> list[str]:
        return [row["preferred"] for row in annotate_pairs(ROWS, judge()).rows]

    assert asyncio.run(cell()) == EXPECTED


def test_a_probability_becomes_a_number_between_one_and_two():
    preference = Preference(comparison_id="c", annotator="j", preferred="second", probability_first=0.25)
    assert alpaca_eval_value(preference) == 1.75


def test_tables_written_are_the_tables_read(tmp_path):
    for ending in ("json", "jsonl", "parquet"):
        path = tmp_path / f"t.{ending}"
        write_rows(path, ROWS)
        assert read_rows(path) == ROWS


def test_a_formula_in_a_csv_file_is_disarmed(tmp_path):
    write_rows(tmp_path / "t.csv", [{"output": "=HYPERLINK(1)", "n": -1, "evidence": {"a": 1}}])
    written = (tmp_path / "t.csv").read_bytes().decode()
    assert written == 'output,n,evidence\r\n\'=HYPERLINK(1),-1,"{""a"": 1}"\r\n'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.json", "{}", "t.json: expected a JSON list of objects"),
        ("t.json", "[1]", "t.json: expected a JSON list of objects"),
        ("t.json", "[", "not JSON"),
        ("t.jsonl", '{"a": 1}\n[]\n', "t.jsonl:2"),
        ("t.csv", "a,b\n1\n", "t.csv: row 1 has not the 2 cells"),
        ("t.csv", "a,b\n1,2,3\n", "t.csv: row 1 has not the 2 cells"),
        ("t.parquet", "no parquet", "t.parquet: not a Parquet file"),
        ("t.txt", "", r"t.txt: expected a file that ends in \.json, "),
    ],
)
def test_a_file_that_holds_no_rows_is_refused_with_its_name(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rows(path)


def test_new_columns_are_plain_json():
    assert json.loads(json.dumps(annotate_pairs(ROWS, judge()).rows))


class Says:
    """An annotator that says what it was told to, whatever it is asked."""

    identity: ClassVar[dict[str, object]] = {}

    def __init__(self, said: object) -> None:
        self.said = said

    def annotate(self, comparisons: Sequence[Comparison]) -> Any:
        return self.said


TIE = Preference(comparison_id="other", annotator="me", preferred="tie")


@pytest.mark.parametrize(
    ("annotator", "message"),
    [
        (MeadowPool, r"got the class MeadowPool; make one of it: MeadowPool\(\.\.\.\)"),
        (lambda comparisons: [], "an object with 'identity' and 'annotate.*got <lambda>"),
        (None, "got NoneType"),
        (Says(["first"] * len(ROWS)), r"gave 'first', expected a list with a Preference .*Preference\(comparison_id="),
        (Says(None), "gave None, expected a list"),
        (Says([TIE]), f"each of {len(ROWS)} rows, got 1"),
        (Says([TIE] * len(ROWS)), "preference 1 is of comparison 'other', expected '[0-9a-f]{16}'"),
    ],
)
def test_what_does_not_annotate_is_told_what_an_annotator_is_and_gives(annotator, message):
    with pytest.raises(DataError, match=message):
        annotate_pairs(ROWS, annotator)


def test_records_are_told_how_they_become_rows():
    asked = Instruction(id="i1", instruction="do it", source="test", split="preference")
    sides = [Completion(instruction_id="i1", text=text, system="sft", seed=n) for n, text in enumerate(("bad", "good"))]
    pairs = [Comparison.of(asked, *sides)]
    with pytest.raises(DataError, match=r"got a list with Comparison in it.*\[one.model_dump\(\) for one in"):
        annotate_pairs(pairs, judge())
    assert annotate_pairs([one.model_dump() for one in pairs], judge()).preferences[0].preferred == "second"
