"""Instructions of a file are split the same way on every machine, into splits that share nothing."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pasture.core.errors import DataError, DependencyError
from pasture.core.tables import read_rows
from pasture.data.answers import answers_of_row
from pasture.data.evaluation_set import load_evaluation_set
from pasture.data.hub import data_files
from pasture.data.instructions import (
    PAPER_SPLITS,
    InstructionFiles,
    load_demonstrations,
    load_instructions,
    load_prompts,
)

COUNTS = {"sft": 6, "preference": 5, "unlabeled": 4, "validation": 3, "evaluation": 2}
REFERENCE = Path(__file__).parents[2].parent / "shared/data/alpaca_eval/model_outputs/text_davinci_003.json.gz"


def rows(count: int) -> list[dict[str, Any]]:
    return [{"instruction": f"Say {n}", "input": "x" * (n % 3), "output": f"{n}!"} for n in range(count)]


def write(path: Path, content: list[dict[str, Any]]) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def texts(settings: InstructionFiles) -> dict[str, list[str]]:
    loaded = load_instructions(settings)
    return {name: [one.instruction for one in split.instructions] for name, split in loaded.items()}


def test_splits_have_the_sizes_asked_for_and_share_nothing_whatever_the_order_of_the_rows(tmp_path: Path):
    content = rows(40)
    found = texts(InstructionFiles(source=write(tmp_path / "a.json", content), **COUNTS))
    assert {name: len(split) for name, split in found.items()} == COUNTS
    drawn = [text for split in found.values() for text in split]
    assert len(set(drawn)) == len(drawn)
    random.Random(1).shuffle(content)
    assert texts(InstructionFiles(source=write(tmp_path / "b.json", content), **COUNTS)) == found
    assert texts(InstructionFiles(source=str(tmp_path / "a.json"), seed=1, **COUNTS)) != found


def test_demonstrations_answer_their_instructions_where_they_are_imitated_or_compared_with(tmp_path: Path):
    loaded = load_instructions(InstructionFiles(source=write(tmp_path / "a.json", rows(40)), **COUNTS))
    for name, split in loaded.items():
        expected = [f"{one.instruction.removeprefix('Say ')}!" for one in split.instructions]
        assert [one.text for one in split.demonstrations] == (
            expected if name in ("sft", "validation", "evaluation") else []
        )
        assert [one.instruction_id for one in split.demonstrations] in ([], [one.id for one in split.instructions])


def test_an_empty_output_is_not_imitated_and_is_counted(tmp_path: Path):
    content = [{**row, "output": "" if n % 2 else row["output"]} for n, row in enumerate(rows(40))]
    settings = InstructionFiles(source=write(tmp_path / "a.json", content), **COUNTS)
    split = load_instructions(settings)["sft"]
    assert split.left_out > 0
    assert len(split.instructions) == len(split.demonstrations) == COUNTS["sft"] - split.left_out
    assert all(one.text for one in split.demonstrations)


def test_alpacas_52002_rows_give_the_papers_splits_and_repeated_rows_stay_together(tmp_path: Path):
    # 52,002 rows as in alpaca_data.json, some of them repeated; sizes by Dubois et al. 2023, section 4.
    content = rows(52_002)
    for n in range(0, 600, 3):
        content[n] = {**content[n + 1], "output": "again"}
    source = write(tmp_path / "alpaca_data.json", content)
    settings = InstructionFiles(
        source=source, splits="paper", sft=10_000, preference=20_000, unlabeled=20_000, validation=2_000, evaluation=0
    )
    loaded = load_instructions(settings)
    assert {name: len(loaded[name].instructions) for name in PAPER_SPLITS} == dict(PAPER_SPLITS)
    seen: dict[tuple[str, str], str] = {}
    for name, split in loaded.items():
        assert len({one.id for one in split.instructions}) == len(split.instructions)
        for one in split.instructions:
            assert seen.setdefault((one.instruction, one.input), name) == name
    fewer = load_instructions(settings.model_copy(update={"sft": 100}))
    assert fewer["sft"].instructions == loaded["sft"].instructions[:100]


def test_the_papers_own_split_files_are_taken_as_they_are_and_counted(tmp_path: Path):
    content = rows(20)
    for name, part in (("sft", content[:6]), ("preference", content[6:11]), ("unlabeled", content[11:15])):
        write(tmp_path / f"{name}.json", part)
    write(tmp_path / "val.json", content[15:18])
    write(tmp_path / "eval.json", content[18:])
    settings = InstructionFiles(source=str(tmp_path), **COUNTS)
    assert texts(settings)["unlabeled"] == ["Say 11", "Say 12", "Say 13", "Say 14"]
    assert texts(settings)["evaluation"] == ["Say 18", "Say 19"]
    with pytest.raises(DataError, match=r"not the paper's splits: sft 6 instead of 10,000"):
        load_instructions(settings.model_copy(update={"splits": "paper"}))
    with pytest.raises(DataError, match=r"holds 3 instructions for the split 'validation'"):
        load_instructions(settings.model_copy(update={"validation": 4}))


def write_splits(folder: Path, content: list[dict[str, Any]], sft: dict[str, slice]) -> InstructionFiles:
    """Files of the splits from rows 20 on, and of sft as `sft` cuts it; what asks for all of them."""
    for name, part in sft.items():
        write(folder / name, content[part])
    for start, name in enumerate(("preference", "unlabeled", "val", "eval")):
        write(folder / f"{name}.json", content[20 + 2 * start : 22 + 2 * start])
    return InstructionFiles(source=str(folder), sft=6, preference=2, unlabeled=2, validation=2, evaluation=2)


def test_a_split_in_several_parts_is_all_of_them_in_the_order_of_their_names(tmp_path: Path):
    parts = {f"sft-{n:05}-of-00003.json": slice(2 * n, 2 * n + 2) for n in (2, 0, 1)}
    settings = write_splits(tmp_path, rows(30), parts)
    assert texts(settings)["sft"] == [f"Say {n}" for n in range(6)]


def test_two_files_of_one_split_that_are_no_parts_are_refused(tmp_path: Path):
    settings = write_splits(tmp_path, rows(30), {"sft.json": slice(6), "sft-old.json": slice(6, 12)})
    with pytest.raises(DataError, match=r"after the split 'sft': sft-old\.json, sft\.json\. Keep one of them"):
        load_instructions(settings)


def test_what_is_chosen_on_may_not_be_trained_on_where_splits_come_as_files(tmp_path: Path):
    content = rows(30)
    content[25] = content[3]  # the second of val is the fourth of sft
    settings = write_splits(tmp_path, content, {"sft.json": slice(6)})
    with pytest.raises(
        DataError,
        match=r"1 of 6 instructions of the split 'sft' are also in 'validation' \(first: 'Say 3'\).*Remove them",
    ):
        load_instructions(settings)
    assert len(texts(settings.model_copy(update={"sft": 3}))["sft"]) == 3  # of what is taken, nothing is in both


@pytest.mark.parametrize(
    "read",
    [
        load_demonstrations,
        load_prompts,
        load_evaluation_set,
        lambda name: [answers_of_row(row, f"{name}: row {n}") for n, row in enumerate(read_rows(Path(name)), start=1)],
    ],
)
def test_half_of_a_cut_emoji_is_named_with_its_row(tmp_path: Path, read: Callable[[str], object]):
    source = write(tmp_path / "a.json", [*rows(1), {"instruction": "Say \ud83d", "output": "hi"}])
    with pytest.raises(
        DataError, match=r"a\.json: row 2: instruction: holds a lone surrogate.* Mend or remove the row"
    ):
        read(source)


def test_half_of_a_cut_emoji_in_a_demonstration_is_named_with_its_row(tmp_path: Path):
    source = write(tmp_path / "a.json", [*rows(1), {"instruction": "Say hi", "output": "\ud83d"}])
    with pytest.raises(DataError, match=r"a\.json: row 2: text: holds a lone surrogate"):
        load_demonstrations(source)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Say hi", "completion": "hi"},
        {
            "prompt": [{"role": "user", "content": "Say hi"}],
            "completion": [{"role": "assistant", "content": "hi"}],
        },
        {"messages": [{"role": "user", "content": "Say hi"}, {"role": "assistant", "content": "hi"}]},
        {"instruction": "Say hi", "output": "hi"},
    ],
    ids=["trl", "trl-chat", "messages", "alpaca"],
)
def test_instructions_come_in_trls_columns_too(tmp_path: Path, row: dict[str, Any]):
    none = dict.fromkeys(COUNTS, 0) | {"sft": 1}
    split = load_instructions(InstructionFiles(source=write(tmp_path / "a.json", [row]), **none))["sft"]
    assert [(one.instruction, one.input) for one in split.instructions] == [("Say hi", "")]
    assert [one.text for one in split.demonstrations] == ["hi"]


def test_too_few_rows_are_refused_with_the_numbers(tmp_path: Path):
    with pytest.raises(DataError, match=r"holds 10 instructions, and 20 are asked for \(sft 6, preference 5"):
        load_instructions(InstructionFiles(source=write(tmp_path / "a.json", rows(10)), **COUNTS))


def test_rows_of_one_text_cannot_fill_a_split_that_they_do_not_fit(tmp_path: Path):
    content = [{"instruction": "Say hi", "output": f"{n}"} for n in range(5)]
    none = dict.fromkeys(COUNTS, 0) | {"sft": 3}
    with pytest.raises(DataError, match="too many rows hold the same text"):
        load_instructions(InstructionFiles(source=write(tmp_path / "a.json", content), **none))


def test_an_evaluation_file_of_its_own_brings_the_references_outputs(tmp_path: Path):
    source, other = write(tmp_path / "a.json", rows(18)), tmp_path / "reference.json"
    write(other, [{"instruction": "Else", "output": "ok", "dataset": "koala", "generator": "davinci"}] * 1)
    settings = InstructionFiles(source=source, evaluation_source=str(other), **COUNTS | {"evaluation": 1})
    split = load_instructions(settings)["evaluation"]
    assert [(one.instruction, one.source) for one in split.instructions] == [("Else", "koala")]
    assert [one.text for one in split.demonstrations] == ["ok"]
    write(other, [{"instruction": "Else", "output": "ok"}] * 2)
    with pytest.raises(DataError, match="rows 1 and 2 hold the same instruction"):
        load_instructions(settings)


@pytest.mark.skipif(not REFERENCE.exists(), reason="AlpacaEval's outputs are not on this machine")
def test_alpaca_evals_reference_serves_as_the_evaluation_set(tmp_path: Path):
    settings = InstructionFiles(source=write(tmp_path / "a.json", rows(18)), evaluation_source=str(REFERENCE))
    split = load_instructions(settings.model_copy(update={**COUNTS, "evaluation": 805}))["evaluation"]
    sources = [one.source for one in split.instructions]
    assert (len(sources), sources.count("selfinstruct"), sources.count("vicuna")) == (805, 252, 80)
    assert len(split.demonstrations) == 805


def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str | None]]:
    fetched: list[tuple[str, str, str | None]] = []

    def download(repository: str, file: str, *, repo_type: str, revision: str | None) -> str:
        assert repo_type == "dataset"
        fetched.append((repository, file, revision))
        return write(tmp_path / file.replace("/", "-"), rows(4))

    files = ["README.md", "script.py", "data/sft.json", "data/val.json", "other/b.parquet"]
    hub = SimpleNamespace(list_repo_files=lambda *_, **__: files, hf_hub_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return fetched


def test_files_of_the_hub_are_fetched_by_name_and_revision_and_a_script_never_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fetched = fake_hub(tmp_path, monkeypatch)
    data_files("hub:tatsu-lab/alpaca_farm/data/*.json@abc123")
    assert fetched == [
        ("tatsu-lab/alpaca_farm", "data/sft.json", "abc123"),
        ("tatsu-lab/alpaca_farm", "data/val.json", "abc123"),
    ]
    fetched.clear()
    data_files("hub:tatsu-lab/alpaca_farm")
    assert [file for _, file, _ in fetched] == ["data/sft.json", "data/val.json", "other/b.parquet"]
    with pytest.raises(DataError, match=r"Data files there: data/sft\.json, data/val\.json"):
        data_files("hub:tatsu-lab/alpaca_farm/*.csv")
    with pytest.raises(DataError, match="expected hub:ORG/NAME"):
        data_files("hub:alpaca")


def test_a_hub_out_of_reach_is_one_clear_error(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> list[str]:
        raise ConnectionError("offline")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(list_repo_files=refuse))
    with pytest.raises(DataError, match=r"cannot be fetched from the hub \(offline\)"):
        data_files("hub:org/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match="huggingface_hub"):
        data_files("hub:org/name")


def test_a_file_is_named_by_a_path_or_by_a_text(tmp_path: Path):
    path = tmp_path / "asked.jsonl"
    path.write_text(json.dumps({"instruction": "say hi", "output": "hi"}) + "\n")
    assert load_prompts(path) == load_prompts(str(path))
    assert load_demonstrations(path) == load_demonstrations(str(path))
    with pytest.raises(DataError, match=r"asked.jsonl holds 1 instructions for the split 'sft', and 2"):
        load_demonstrations(path, 2)
