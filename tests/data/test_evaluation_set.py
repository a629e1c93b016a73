"""Evaluation sets are read from any format, counted, summed, and kept apart from what was trained on."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import Table, parquet

from pasture.core.errors import DataError, DependencyError, LeakError
from pasture.core.records import Instruction
from pasture.data.evaluation_set import (
    ALPACA_EVAL_CHECKSUM,
    ALPACA_FARM_SOURCES,
    InstructionColumns,
    load_evaluation_set,
    require_alpaca_farm,
)
from pasture.data.overlap import find_overlaps, leaking_ids, require_no_leak, require_no_overlap
from pasture.world import meadow

PUBLISHED = Path(__file__).parents[2].parent / "shared/data/alpaca_eval/instructions.jsonl.gz"

ROWS = [
    {"instruction": "Name a bird, please.", "input": "", "dataset": "koala"},
    {"instruction": "Translate =1+1", "input": 'a,\n"b"', "dataset": "oasst"},
]


def as_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS))


def as_jsonl(path: Path) -> None:
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")


def as_csv(path: Path) -> None:
    path.write_text('instruction,input,dataset\n"Name a bird, please.",,koala\nTranslate =1+1,"a,\n""b""",oasst\n')


def as_parquet(path: Path) -> None:
    parquet.write_table(Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("name", "write"), [("a.json", as_json), ("a.jsonl", as_jsonl), ("a.csv", as_csv), ("a.parquet", as_parquet)]
)
def test_every_format_gives_the_same_set(tmp_path: Path, name: str, write: Callable[[Path], None]):
    write(tmp_path / name)
    loaded = load_evaluation_set(tmp_path / name)
    assert [(item.instruction, item.input, item.source) for item in loaded.instructions] == [
        (row["instruction"], row["input"], row["dataset"]) for row in ROWS
    ]
    assert loaded.sources == {"koala": 1, "oasst": 1}
    as_json(tmp_path / "other.json")
    assert loaded.checksum == load_evaluation_set(tmp_path / "other.json").checksum


def test_columns_can_be_named_and_a_missing_source_is_the_files_name(tmp_path: Path):
    (tmp_path / "mine.jsonl").write_text('{"prompt": "Say hi"}\n')
    loaded = load_evaluation_set(tmp_path / "mine.jsonl", InstructionColumns(instruction="prompt"))
    assert [(item.instruction, item.source) for item in loaded.instructions] == [("Say hi", "mine")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{}", "expected a JSON list of objects"),
        ("a.json", "[", "not JSON"),
        ("a.jsonl", '{"instruction": "a"}\n[]\n', "a.jsonl:2: expected a JSON object, got list"),
        ("a.jsonl", '{"instruction": "a"}\n{"instruction": "a"}\n', "rows 1 and 2 hold the same instruction"),
        ("a.jsonl", '{"instruction": " "}\n', "row 1: the instruction under 'instruction' is empty"),
        ("a.jsonl", '{"text": "a"}\n', "expected text under 'instruction', got nothing. Fields: text"),
        ("a.jsonl", "", "holds no rows"),
        ("a.csv", "instruction,input\na\n", "row 1 has not the 2 cells"),
        ("a.txt", "a", "expected a file that ends in"),
        ("a.parquet", "nonsense", "not a Parquet file"),
        ("a.json.gz", "no gzip", "cannot be read"),
    ],
)
def test_broken_files_say_where_and_why(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        load_evaluation_set(tmp_path / name)


def test_a_missing_file_and_a_missing_pyarrow_are_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match="no such file"):
        load_evaluation_set(tmp_path / "none.json")
    as_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DependencyError, match=r"pip install 'pasture\[tables\]'"):
        load_evaluation_set(tmp_path / "a.parquet")


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"AlpacaEval's instructions are not at {PUBLISHED}")
def test_the_805_are_counted_and_summed(tmp_path: Path):
    loaded = load_evaluation_set(PUBLISHED)
    assert len(loaded.instructions) == 805
    assert loaded.sources == dict(ALPACA_FARM_SOURCES)
    assert loaded.checksum == ALPACA_EVAL_CHECKSUM
    require_alpaca_farm(loaded)


def test_another_set_is_not_taken_for_the_805(tmp_path: Path):
    as_json(tmp_path / "a.json")
    with pytest.raises(DataError, match="selfinstruct 0 instead of 252"):
        require_alpaca_farm(load_evaluation_set(tmp_path / "a.json"))


def instruction(name: str, text: str, material: str = "", split: str = "sft") -> Instruction:
    return Instruction(id=name, instruction=text, input=material, source="s", split=split)


def test_near_duplicates_are_found_with_their_nearest():
    training = [
        instruction("t1", "Write a short poem about the sea and the wind at night"),
        instruction("t2", "write a short poem about the SEA, and the wind at night!"),
        instruction("t3", "Sort these numbers from small to large"),
    ]
    evaluation = [
        instruction("e1", "Write a short poem about the sea and the wind at night.", split="evaluation"),
        instruction("e2", "Sort these words from small to large", split="evaluation"),
        instruction("e3", "Name a bird", split="evaluation"),
    ]
    [overlap] = find_overlaps(training, evaluation)
    assert (overlap.evaluation_id, overlap.training_id, overlap.similarity) == ("e1", "t1", 1.0)
    # By hand: e2 and t3 share the triples "from small to", "small to large" of 5 + 5 - 2.
    assert [(row.evaluation_id, row.similarity) for row in find_overlaps(training, evaluation, threshold=0.25)] == [
        ("e1", 1.0), ("e2", 0.25),
    ]  # fmt: skip


def test_texts_that_repeat_themselves_are_the_same_by_their_triples():
    # Both hold four triples and the same: how often each comes does not count.
    trained, asked = "dog bites man bites dog bites man", "man bites dog bites man bites dog bites"
    [overlap] = find_overlaps([instruction("t1", trained)], [instruction("e1", asked)], threshold=1.0)
    assert overlap.similarity == 1.0


def test_short_and_wordless_instructions_match_only_themselves():
    training = [instruction("t1", "Hello"), instruction("t2", "???")]
    found = find_overlaps(training, [instruction("e1", "hello!"), instruction("e2", "!!!"), instruction("e3", "???")])
    assert [(row.evaluation_id, row.training_id) for row in found] == [("e1", "t1"), ("e3", "t2")]


def test_a_leak_is_refused_unless_allowed():
    training, evaluation = [instruction("t1", "Name a bird")], [instruction("e1", "name a bird", split="evaluation")]
    with pytest.raises(LeakError, match=r"1 of 1 evaluation instructions are also in split 'sft' \(first: t1"):
        require_no_overlap(training, evaluation)
    assert len(require_no_overlap(training, evaluation, allow=True)) == 1
    assert require_no_overlap(training, [instruction("e2", "Name a fish")]) == []


def test_a_leak_is_shown_by_how_its_texts_begin_made_harmless():
    words = "one two three four five six seven eight nine ten eleven twelve thirteen"
    training = [instruction("t1", f"\x1b[2J{words}"), instruction("t1", "of another split", split="pairs")]
    evaluation = [instruction("e1", f"2J: {words}!", split="evaluation")]
    # By hand: sixty characters, the last of them the sign that something was cut off.
    trained = "␛[2Jone two three four five six seven eight nine ten eleven…"
    judged = "2J: one two three four five six seven eight nine ten eleven…"
    with pytest.raises(LeakError) as raised:
        require_no_overlap(training, evaluation, threshold=0.5)
    assert f"(first: t1, '{trained}', is" in str(raised.value)
    assert f"the same as e1, '{judged}')" in str(raised.value)


def test_the_same_instruction_with_another_input_is_another_task():
    same = "Correct the grammar of this sentence"
    material = "he go to school every day with his little sister and their two dogs by the old yellow bus"
    other = "we was reading a book about whales which live in deep cold oceans and sing long songs at dusk"
    assert find_overlaps([instruction("t", same, material)], [instruction("e", same, other)]) == []


def test_a_run_is_refused_what_it_trained_on_and_the_meadows_grammar_is_no_leak():
    trained = meadow.instructions("sft", 3000, 0)
    evaluated = meadow.evaluation_set(200, 0)
    # The grammar repeats itself: hundreds of texts share most of their words, none shares all of them.
    assert len(find_overlaps(trained, evaluated)) > 10
    require_no_leak("meadow", {"sft": trained}, evaluated)
    assert leaking_ids("meadow", {"sft": trained}, evaluated) == set()
    planted = {"sft": trained, "unlabeled": [evaluated[7].model_copy(update={"split": "unlabeled"})]}
    with pytest.raises(LeakError, match=r"1 of 200 .* in split 'unlabeled'"):
        require_no_leak("meadow", planted, evaluated)
    with pytest.raises(LeakError):
        require_no_leak("file.jsonl", {"sft": trained}, evaluated)
    assert leaking_ids("meadow", planted, evaluated) == {evaluated[7].id}


def test_a_set_of_the_hub_is_read_from_its_plain_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "alpaca_eval.json"
    path.write_text(json.dumps([{"instruction": "x", "dataset": "koala"}, {"instruction": "y", "dataset": "oasst"}]))
    asked = []

    def download(repository: str, file: str, **which: Any) -> Path:
        asked.append((repository, file, which["revision"]))
        return path

    hub = SimpleNamespace(
        list_repo_files=lambda *where, **which: ["alpaca_eval.py", "alpaca_eval.json"], hf_hub_download=download
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    found = load_evaluation_set("hub:tatsu-lab/alpaca_eval/alpaca_eval.*@abc123")
    assert dict(found.sources) == {"koala": 1, "oasst": 1}
    # The loading script that lies beside the file is left alone.
    assert asked == [("tatsu-lab/alpaca_eval", "alpaca_eval.json", "abc123")]
