"""Preferences of every maker come out as the same records, and say who was preferred."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
from pyarrow import Table, parquet

from pasture.annotate.entry import annotate_pairs
from pasture.annotate.pool import of_both_orders
from pasture.core.errors import DataError
from pasture.core.files import write_records
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.data.preferences import FeedbackFile, load_feedback

PANDALM = Path(__file__).parents[2].parent / "shared/data/pandalm/human_pairs.jsonl.gz"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        parquet.write_table(Table.from_pylist(rows), path)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def preferred_texts(path: str) -> list[tuple[str, str, str]]:
    """Prompt, preferred answer, other answer."""
    found = []
    for comparison, preference in load_feedback(FeedbackFile(file=path)).pairs:
        sides = {"first": comparison.first.text, "second": comparison.second.text}
        best = sides.pop(preference.preferred)
        [other] = sides.values()
        found.append((comparison.instruction.instruction, best, other))
    return found


def rated(path: str) -> list[tuple[str, str, bool]]:
    """Prompt, answer, whether it is desirable."""
    found = load_feedback(FeedbackFile(file=path))
    assert not found.pairs
    return [(one.instruction.instruction, one.completion.text, one.desirable) for one in found.ratings]


def pair(label: Any, **more: Any) -> dict[str, Any]:
    return {"instruction": "Say hi", "input": "", "output_1": "hi", "output_2": "no", "preference": label, **more}


@pytest.mark.parametrize(
    ("label", "preferred", "probability"),
    [
        (1, "first", None),
        (2, "second", None),
        ("2.0", "second", None),
        (1.5, "tie", None),
        (0, "tie", None),
        (1.25, "first", 0.75),
        (None, "unjudged", None),
        (float("nan"), "unjudged", None),
        (-1, "unjudged", None),
        ("tie", "tie", None),
        ("null", "unjudged", None),
        ("garbage", "unjudged", None),
    ],
)
def test_alpaca_farms_label_names_the_better_output(
    tmp_path: Path, label: Any, preferred: str, probability: float | None
):
    # AlpacaFarm: 1 or 2, 0 where outputs are equal; AlpacaEval: [1, 2], the chance that the second is better, plus 1.
    file = write(tmp_path / "alpaca_human_preference.jsonl", [pair(label)])
    ((comparison, preference),) = load_feedback(FeedbackFile(file=file)).pairs
    assert (comparison.first.text, comparison.second.text) == ("hi", "no")
    assert (preference.preferred, preference.probability_first) == (preferred, probability)
    assert preference.annotator == "alpaca_human_preference"


@pytest.mark.parametrize("prefix", ["", "judge_"])
@pytest.mark.parametrize(
    ("verdicts", "chances"),
    [
        (("first", "second"), (0.6, 0.04)),  # the mean, 0.32, is nearer to the second
        (("second", "first"), (0.1, 0.7)),
        (("first", "first"), (0.9, 0.6)),
    ],
)
def test_a_verdict_of_both_orders_is_read_back_as_it_was_given(
    tmp_path: Path, prefix: str, verdicts: tuple[Any, Any], chances: tuple[float, float]
):
    class Judge:
        identity: ClassVar[dict[str, object]] = {}

        def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
            (comparison,) = comparisons
            one, other = (
                Preference(comparison_id=comparison.id, annotator="j", preferred=said, probability_first=chance)
                for said, chance in zip(verdicts, chances, strict=True)
            )
            return [of_both_orders(one, other)]

    done = annotate_pairs([{"instruction": "Say hi", "output_1": "hi", "output_2": "no"}], Judge(), prefix=prefix)
    file = write(tmp_path / "a.jsonl", done.rows)
    ((_, preference),) = load_feedback(FeedbackFile(file=file, labels=(f"{prefix}preference",))).pairs
    assert preference.preferred == ("first" if verdicts == ("first", "first") else "tie")
    assert preference.probability_first == pytest.approx(sum(chances) / 2)


def test_a_verdict_belongs_to_its_own_number_alone(tmp_path: Path):
    row = pair(1.68, preferred="tie", ann=2, judge_preference=1.2, x_preference=1.2, x_preferred="hi")
    labels = ("preference", "ann", "judge_preference", "x_preference")
    found = load_feedback(FeedbackFile(file=write(tmp_path / "a.jsonl", [row]), labels=labels)).pairs
    # Words that are none of our verdicts are another's column: the number is all there is.
    assert [preference.preferred for _, preference in found] == ["tie", "second", "first", "first"]


def test_labels_of_several_people_are_a_preference_each(tmp_path: Path):
    file = write(tmp_path / "cross.json", [pair(None, ann=1, bob=2, generator_1="new", generator_2="old")])
    pairs = load_feedback(FeedbackFile(file=file, labels=("ann", "bob"))).pairs
    assert [(preference.annotator, preference.preferred) for _, preference in pairs] == [
        ("ann", "first"),
        ("bob", "second"),
    ]
    assert (pairs[0][0].first.system, pairs[0][0].second.system) == ("new", "old")


CHAT_CHOSEN = [{"role": "user", "content": "Say hi"}, {"role": "assistant", "content": "hi"}]
CHAT_REJECTED = [{"role": "user", "content": "Say hi"}, {"role": "assistant", "content": "no"}]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet", ".jsonl.gz"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Say hi", "chosen": "hi", "rejected": "no"},
        {"prompt": CHAT_CHOSEN[:1], "chosen": CHAT_CHOSEN[1:], "rejected": CHAT_REJECTED[1:]},
        {"chosen": CHAT_CHOSEN, "rejected": CHAT_REJECTED},
        {"prompt": "Say hi", "chosen": CHAT_CHOSEN, "rejected": CHAT_REJECTED, "score_chosen": 8.0},
        {"prompt": "Say hi", "chosen": CHAT_CHOSEN[1:], "rejected": CHAT_REJECTED[1:]},
        {"prompt": CHAT_CHOSEN[:1], "chosen": "hi", "rejected": "no"},
        {"chosen": "\n\nHuman: Say hi\n\nAssistant: hi", "rejected": "\n\nHuman: Say hi\n\nAssistant: no"},
    ],
    ids=["plain", "chat", "implicit", "ultrafeedback", "chat-answers", "chat-prompt", "hh-rlhf"],
)
def test_every_layout_of_chosen_and_rejected_gives_the_same_pair(tmp_path: Path, row: dict[str, Any], ending: str):
    assert preferred_texts(write(tmp_path / f"rows{ending}", [row])) == [("Say hi", "hi", "no")]


def test_a_longer_dialogue_is_a_transcript_and_only_its_last_answer_is_judged(tmp_path: Path):
    begun = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bye\n\nAssistant:"
    file = write(tmp_path / "hh.jsonl.gz", [{"chosen": f"{begun} ciao", "rejected": f"{begun} what?"}])
    assert preferred_texts(file) == [("User: hi\n\nAssistant: hello\n\nUser: bye", "ciao", "what?")]


def test_the_chosen_answer_comes_first_half_of_the_time_and_by_the_texts_alone(tmp_path: Path):
    rows = [{"prompt": f"Say {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(400)]
    file = write(tmp_path / "a.jsonl", rows)
    pairs = load_feedback(FeedbackFile(file=file)).pairs
    firsts = sum(preference.preferred == "first" for _, preference in pairs)
    assert 160 <= firsts <= 240  # four standard deviations of 400 fair draws
    swapped = write(
        tmp_path / "b.jsonl", [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    )
    other = load_feedback(FeedbackFile(file=swapped)).pairs
    assert [one.first.text for one, _ in pairs] == [one.first.text for one, _ in other]
    assert all(ours.preferred != theirs.preferred for (_, ours), (_, theirs) in zip(pairs, other, strict=True))


def test_a_run_leaves_what_can_be_learned_from(tmp_path: Path):
    instruction = Instruction(id="i", instruction="Say hi", source="s", split="preference")
    sides = [Completion(instruction_id="i", text=text, system="sft", seed=n) for n, text in enumerate(("hi", "no"))]
    comparison = Comparison.of(instruction, *sides)
    preference = Preference(comparison_id=comparison.id, annotator="ann", preferred="second", evidence={"why": "x"})
    write_records(tmp_path / "comparisons.jsonl", [comparison])
    write_records(tmp_path / "preferences.jsonl", [preference])
    for name in (tmp_path, tmp_path / "preferences.jsonl"):
        assert load_feedback(FeedbackFile(file=str(name))).pairs == [(comparison, preference)]
    # A run keeps the two apart.
    run = tmp_path / "run"
    write_records(run / "2-generate" / "preference" / "comparisons.jsonl", [comparison])
    write_records(run / "3-annotate" / "preference" / "preferences.jsonl", [preference])
    labels = FeedbackFile(file=str(run / "3-annotate" / "preference"))
    assert load_feedback(labels).pairs == [(comparison, preference)]
    both = {"comparison": comparison.model_dump(), "preference": preference.model_dump()}
    assert load_feedback(FeedbackFile(file=write(tmp_path / "both.jsonl", [both]))).pairs == [(comparison, preference)]
    (tmp_path / "comparisons.jsonl").write_text("")
    with pytest.raises(DataError, match="Put the file of the same run"):
        load_feedback(FeedbackFile(file=str(tmp_path)))


def test_rows_that_hold_no_comparison_are_counted(tmp_path: Path):
    rows = [
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"},
        {"prompt": " ", "chosen": "b", "rejected": "d"},
        {"prompt": "a", "chosen": "b", "rejected": "d"},
    ]
    loaded = load_feedback(FeedbackFile(file=write(tmp_path / "a.jsonl", rows)))
    assert len(loaded.pairs) == 1
    assert sorted(loaded.left_out.values()) == [1, 1]
    with pytest.raises(DataError, match="nothing to learn from"):
        load_feedback(FeedbackFile(file=write(tmp_path / "b.jsonl", rows[:2])))


@pytest.mark.parametrize("name", ["preferences.jsonl", "preferences.jsonl.gz", "preferences.json"])
def test_our_own_preferences_are_read_in_every_format_with_blank_lines_or_without(tmp_path: Path, name: str):
    instruction = Instruction(id="i", instruction="Say hi", source="s", split="preference")
    sides = [Completion(instruction_id="i", text=text, system="sft", seed=n) for n, text in enumerate(("hi", "no"))]
    comparison = Comparison.of(instruction, *sides)
    preference = Preference(comparison_id=comparison.id, annotator="ann", preferred="second", evidence={"why": "x"})
    write_records(tmp_path / "comparisons.jsonl", [comparison])
    content = f"[{preference.to_json()}]" if name.endswith(".json") else f"\n{preference.to_json()}\n\n"
    packed = gzip.compress(content.encode()) if name.endswith(".gz") else content.encode()
    (tmp_path / name).write_bytes(packed)
    assert load_feedback(FeedbackFile(file=str(tmp_path / name))).pairs == [(comparison, preference)]
    (tmp_path / "b.jsonl").write_text(preference.to_json().replace('"second"', '"third"'))
    with pytest.raises(DataError, match=r"b\.jsonl: row 1: preferred: Input should be 'first'"):
        load_feedback(FeedbackFile(file=str(tmp_path / "b.jsonl")))


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ({"score_chosen": 8.0, "score_rejected": 3}, {"score_chosen": 8.0, "score_rejected": 3}),
        ({"score_chosen": float("nan"), "score_rejected": 1.5}, {"score_rejected": 1.5}),
        ({"score_chosen": float("inf"), "score_rejected": True}, None),
    ],
)
def test_scores_that_are_no_numbers_are_not_kept(tmp_path: Path, scores: dict[str, Any], kept: dict[str, Any] | None):
    file = write(tmp_path / "a.jsonl", [{"prompt": "Say hi", "chosen": "hi", "rejected": "no", **scores}])
    ((_, preference),) = load_feedback(FeedbackFile(file=file)).pairs
    assert preference.evidence == kept


def test_count_takes_the_first_comparisons_with_all_their_labels(tmp_path: Path):
    rows = [pair(None, output_1=f"{n}", ann=1, bob=2) for n in range(5)]
    loaded = load_feedback(FeedbackFile(file=write(tmp_path / "a.jsonl", rows), labels=("ann", "bob"), count=2))
    assert [comparison.first.text for comparison, _ in loaded.pairs] == ["0", "0", "1", "1"]
    again = load_feedback(FeedbackFile(file=write(tmp_path / "b.jsonl", [*rows, rows[0]]), labels=("ann",), count=2))
    assert [comparison.first.text for comparison, _ in again.pairs] == ["0", "1", "0"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "a", "answer": "b"}, r"row 1: no layout of preferences has the columns question, answer"),
        (
            {"prompt": "a", "chosen": "b", "rejected": 3.5},
            r"row 1: expected an answer under 'rejected', got the number 3",
        ),
        ({"instruction": "a", "output_1": "b", "output_2": 3.5, "preference": 1, "x": [1]}, None),
        ({"prompt": "a", "rejected": "b"}, r"row 1: no column 'chosen' beside 'rejected'\. Columns: prompt, rejected"),
        ({"chosen": "b", "rejected": "c"}, r"row 1: expected text under 'prompt'"),
        (pair(3), r"row 1: preference is 3, which is outside \[1, 2\] .*\. Expected 1 or 2"),
        (pair("left"), r"row 1: preference is 'left', which is no number\. Expected 1 or 2"),
        (pair(True), r"row 1: preference is True, which is no number\. Expected 1 or 2"),
        ({"instruction": "a", "output_1": "b", "output_2": "c", "label": 1}, r"no column 'preference'"),
        ({"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "a"}]}, "ends with"),
        ({"chosen": [{"role": "tool", "content": "a"}], "rejected": []}, "role 'tool'"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: dict[str, Any], said: str | None):
    file = write(tmp_path / "a.jsonl", [row])
    if said is None:
        assert preferred_texts(file) == [("a", "b", "3.5")]
        return
    with pytest.raises(DataError, match=said):
        load_feedback(FeedbackFile(file=file))


def test_a_missing_file_is_one_clear_error(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        load_feedback(FeedbackFile(file=str(tmp_path / "none.jsonl")))


@pytest.mark.skipif(not PANDALM.exists(), reason="PandaLM's pairs are not on this machine")
def test_peoples_labels_of_pandalm_are_counted_as_its_file_has_them():
    loaded = load_feedback(FeedbackFile(file=str(PANDALM), labels=("human_1", "human_2", "human_3")))
    # Counted in the file itself, by another reader.
    rows = [json.loads(line) for line in gzip.decompress(PANDALM.read_bytes()).splitlines()]
    names = {1: "first", 2: "second", 0: "tie"}
    expected = [names[row[f"human_{n}"]] for row in rows for n in (1, 2, 3)]
    assert len(rows) == 463
    assert [preference.preferred for _, preference in loaded.pairs] == expected


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Say hi", "completion": "hi", "label": True},  # TRL: the unpaired preference type
        {"instruction": "Say hi", "output": "hi", "label": 1},
        {
            "prompt": [{"role": "user", "content": "Say hi"}],
            "completion": [{"role": "assistant", "content": "hi"}],
            "label": "True",
        },
    ],
)
def test_answers_that_were_rated_alone_come_in_trls_columns_and_alpacas(tmp_path: Path, row: dict[str, Any]):
    file = write(tmp_path / "thumbs.jsonl", [row, {**row, "label": 0}, {**row, "label": None}])
    assert rated(file) == [("Say hi", "hi", True), ("Say hi", "hi", False)]
    found = load_feedback(FeedbackFile(file=file))
    assert found.left_out == {"no label": 1}
    assert {one.annotator for one in found.ratings} == {"thumbs"}
    assert found.rows == [(one,) for one in found.ratings]


def test_thumbs_of_a_table_with_gaps_are_read_as_pandas_writes_them(tmp_path: Path):
    # A column of 1, 0 and nothing is one of floats.
    file = tmp_path / "thumbs.csv"
    pd.DataFrame({"prompt": ["a b", "c", "d"], "completion": ["x", "y", "z"], "label": [1, 0, None]}).to_csv(file)
    assert rated(str(file)) == [("a b", "x", True), ("c", "y", False)]


def test_ratings_of_our_own_come_back_as_they_were_beside_judged_pairs(tmp_path: Path):
    file = write(tmp_path / "thumbs.jsonl", [{"prompt": "p", "completion": "a", "label": True}])
    pairs = load_feedback(FeedbackFile(file=write(tmp_path / "pairs.jsonl", [pair(1)]))).pairs
    ratings = load_feedback(FeedbackFile(file=file)).ratings
    folder = tmp_path / "ours"
    folder.mkdir()
    write_records(folder / "comparisons.jsonl", [comparison for comparison, _ in pairs])
    write_records(folder / "preferences.jsonl", [preference for _, preference in pairs])
    write_records(folder / "ratings.jsonl", ratings)
    found = load_feedback(FeedbackFile(file=str(folder)))
    assert (found.pairs, found.ratings) == (pairs, ratings)
    assert load_feedback(FeedbackFile(file=str(folder / "ratings.jsonl"))).ratings == ratings


def test_count_takes_so_many_ratings(tmp_path: Path):
    rows = [{"prompt": "p", "completion": text, "label": False} for text in "abc"]
    found = load_feedback(FeedbackFile(file=write(tmp_path / "thumbs.jsonl", rows), count=2))
    assert [one.completion.text for one in found.ratings] == ["a", "b"]


@pytest.mark.parametrize("label", [2, -1, "good", [True]])
def test_a_thumb_that_is_neither_up_nor_down_is_an_error_with_its_row(tmp_path: Path, label: Any):
    rows = [{"prompt": "p", "completion": "a", "label": value} for value in (True, label)]
    with pytest.raises(DataError, match=r"row 2: label is .*Expected true or false"):
        load_feedback(FeedbackFile(file=write(tmp_path / "thumbs.json", rows)))


def test_a_file_is_named_by_settings_a_path_or_a_text(tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    name = write(path, [{"prompt": "say hi", "chosen": "hi", "rejected": "no"}])
    found = load_feedback(FeedbackFile(file=name))
    assert load_feedback(name) == load_feedback(path) == load_feedback(FeedbackFile(file=path)) == found
