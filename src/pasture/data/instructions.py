"""Instructions from files, with their demonstrations, in the splits that learning takes them from.

A split is drawn by a hash of seed and text: the same rows in another order, or in another format, are split alike.
Rows with the same text go to the same split, so that no two splits that are drawn share an instruction.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pasture.core.errors import DataError
from pasture.core.foreign import made
from pasture.core.hostile import on_one_line, shortened
from pasture.core.records import Completion, Instruction, content_id
from pasture.core.tables import Row, read_rows, text_field
from pasture.data.dialogues import is_messages, prompt_text, turns_of_messages
from pasture.data.hub import data_files

PAPER_SPLITS: Mapping[str, int] = {"sft": 10_000, "preference": 20_000, "unlabeled": 20_000, "validation": 2_000}
"""Rows of each split of Alpaca's 52,000 instructions (Dubois et al. 2023, section 4, https://arxiv.org/abs/2305.14387)."""

DEMONSTRATED = ("sft", "validation", "evaluation")
"""Splits whose outputs are kept: to imitate, to measure on, or to be compared with."""

_FILE_NAMES: Mapping[str, tuple[str, ...]] = {
    "sft": ("sft",),
    "preference": ("preference",),
    "unlabeled": ("unlabeled",),
    "validation": ("val", "validation"),
}
"""How AlpacaFarm calls the files of its splits."""

_SHARD = re.compile(r"-\d+-of-\d+\b")
"""What the name of one of several parts of a file holds, as `datasets` writes them."""

REFERENCE = "demonstrations"


class InstructionFiles(BaseModel):
    """Where instructions come from, and how many of each split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """File, folder or `hub:ORG/NAME/FILES@REVISION`. Files called sft, preference, unlabeled and val are splits."""
    evaluation_source: str = ""
    """A file of instructions to evaluate on, with the reference's outputs where they are known; else from `source`."""
    splits: Literal["counts", "paper"] = "counts"
    """What the source is cut into: as many as are asked for, or the paper's sizes, of which the first are taken."""
    sft: int = Field(10_000, ge=0)
    preference: int = Field(10_000, ge=0)
    unlabeled: int = Field(2_000, ge=0)
    validation: int = Field(500, ge=0)
    evaluation: int = Field(805, ge=0)
    seed: int = Field(0, ge=0)


@dataclass(frozen=True)
class Split:
    """Instructions, and a demonstration of each where the source has one for all of them."""

    instructions: Sequence[Instruction]
    demonstrations: Sequence[Completion]
    """As many as instructions, in their order, or none."""
    left_out: int = 0
    """Rows with an empty output where one was to be imitated."""


@dataclass(frozen=True)
class _Read:
    """A row as read."""

    instruction: str
    material: str
    output: str | None
    source: str
    where: str
    """File and number, for errors."""


def load_instructions(settings: InstructionFiles) -> dict[str, Split]:
    """The splits sft, preference, unlabeled, validation and evaluation.

    Splits that are drawn here share no instruction. Of splits that come as files, validation shares none with those to
    train on; the paper's, known by their sizes, are taken as they are. `data.overlap` guards what is evaluated on.

    Raises:
        DataError: if a file cannot be read, is too small, or is not the paper's where the paper's sizes are asked for;
            if an evaluation file holds instructions twice, or what is chosen on is trained on.
    """
    wanted = {name: getattr(settings, name) for name in (*PAPER_SPLITS, "evaluation")}
    paths = data_files(settings.source)
    own_evaluation = not settings.evaluation_source
    by_split = _own_splits(paths)
    if by_split is None:
        rows = [row for path in paths for row in _rows(path)]
        sizes = dict(PAPER_SPLITS) if settings.splits == "paper" else {name: wanted[name] for name in PAPER_SPLITS}
        if own_evaluation:
            sizes["evaluation"] = wanted["evaluation"]
        by_split = _drawn_splits(rows, sizes, settings)
    elif settings.splits == "paper":
        _require_paper_sizes(by_split, settings.source)
    if not own_evaluation:
        by_split["evaluation"] = [row for path in data_files(settings.evaluation_source) for row in _rows(path)]
        _require_distinct(by_split["evaluation"], settings.evaluation_source)
    origins = {"evaluation": settings.evaluation_source or settings.source}
    splits = {
        name: _split(name, by_split.get(name, []), count, origins.get(name, settings.source))
        for name, count in wanted.items()
    }
    if settings.splits != "paper":
        _require_chosen_on_untrained(splits, settings.source)
    return splits


def load_demonstrations(name: str | Path, count: int | None = None) -> Split:
    """The first `count` rows of files, or all of them, as instructions with the outputs to imitate.

    Raises:
        DataError: if a file cannot be read, is empty or too small, or has no outputs.
    """
    rows = _some_rows(str(name))
    split = _split("sft", rows, len(rows) if count is None else count, str(name))
    if not split.demonstrations:
        raise DataError(
            f"{name}: no row has an output to imitate. Name a file with 'output', 'completion' or messages."
        )
    return split


def load_prompts(name: str | Path, count: int | None = None) -> list[Instruction]:
    """The instructions of the first `count` rows of files, or of all of them, whatever outputs there are.

    Raises:
        DataError: if a file cannot be read, is empty or too small.
    """
    rows = _some_rows(str(name))
    return list(_split("unlabeled", rows, len(rows) if count is None else count, str(name)).instructions)


def _some_rows(name: str) -> list[_Read]:
    rows = [row for path in data_files(name) for row in _rows(path)]
    if not rows:
        raise DataError(f"{name}: expected instructions, and it holds no rows.")
    return rows


def _rows(path: Path) -> list[_Read]:
    return [_read(row, f"{path}: row {number}", path) for number, row in enumerate(read_rows(path), start=1)]


def _read(row: Row, where: str, path: Path) -> _Read:
    """Alpaca's columns, TRL's prompt and completion, or messages of which the last answers."""
    origin = path.name.split(".")[0] or "file"
    source = row.get("dataset")
    source = source if isinstance(source, str) and source.strip() else origin
    if "messages" in row:
        turns = turns_of_messages(row["messages"], where)
        answer = turns.pop().text if turns[-1].role == "assistant" else None
        read = _Read(prompt_text(turns), "", answer, source, where)
    elif "prompt" in row and "instruction" not in row:
        read = _Read(_one_text(row["prompt"], row, "prompt", where), "", _completion(row, where), source, where)
    else:
        output = text_field(row, "output", where, "") if row.get("output") is not None else None
        read = _Read(text_field(row, "instruction", where), text_field(row, "input", where, ""), output, source, where)
    if not read.instruction.strip():
        raise DataError(f"{where}: the instruction is empty. Remove the row.")
    return read


def _completion(row: Row, where: str) -> str | None:
    value = row.get("completion")
    return None if value is None else _one_text(value, row, "completion", where)


def _one_text(value: object, row: Row, column: str, where: str) -> str:
    if is_messages(value):
        turns = turns_of_messages(value, where)
        return turns[0].text if len(turns) == 1 else prompt_text(turns)
    return text_field(row, column, where)


def _own_splits(paths: Sequence[Path]) -> dict[str, list[_Read]] | None:
    """The rows by split where there is a file for every split; None where there is not."""
    named: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: path.name):
        named.setdefault(path.name.split(".")[0].split("-")[0], []).append(path)
    found = {split: next((named[name] for name in names if name in named), []) for split, names in _FILE_NAMES.items()}
    if not all(found.values()):
        return None
    if "eval" in named:
        found["evaluation"] = named["eval"]
    for split, files in found.items():
        _require_one_or_shards(split, files)
    return {split: [row for path in files for row in _rows(path)] for split, files in found.items()}


def _require_one_or_shards(split: str, files: Sequence[Path]) -> None:
    if len(files) > 1 and not all(_SHARD.search(path.name) for path in files):
        names = ", ".join(path.name for path in files)
        raise DataError(
            f"{files[0].parent}: several files are called after the split {split!r}: {names}. Keep one of them; the "
            f"parts of one are read together where they are called as in {split}-00000-of-00002.parquet."
        )


def _require_paper_sizes(by_split: Mapping[str, Sequence[_Read]], source: str) -> None:
    wrong = [
        f"{name} {len(by_split[name]):,} instead of {count:,}"
        for name, count in PAPER_SPLITS.items()
        if len(by_split[name]) != count
    ]
    if wrong:
        raise DataError(
            f"{source}: not the paper's splits: {', '.join(wrong)}. Name the whole files, or set splits = 'counts'."
        )


def _require_distinct(rows: Sequence[_Read], source: str) -> None:
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=1):
        key = row.instruction, row.material
        if key in seen:
            raise DataError(f"{source}: rows {seen[key]} and {number} hold the same instruction. Remove one.")
        seen[key] = number


def _require_chosen_on_untrained(splits: Mapping[str, Split], source: str) -> None:
    validation = {(one.instruction, one.input) for one in splits["validation"].instructions}
    for name in ("sft", "preference", "unlabeled"):
        trained = splits[name].instructions
        shared = [one for one in trained if (one.instruction, one.input) in validation]
        if shared:
            raise DataError(
                f"{source}: {len(shared)} of {len(trained)} instructions of the split {name!r} are also in "
                f"'validation' (first: {shortened(on_one_line(shared[0].instruction), 60)!r}), and what is chosen on "
                "must not be trained on. Remove them from one of the two files."
            )


def _drawn_splits(
    rows: Sequence[_Read], sizes: Mapping[str, int], settings: InstructionFiles
) -> dict[str, list[_Read]]:
    """Splits of exactly `sizes` rows, drawn by hash; rows of the same text stay together."""
    needed = sum(sizes.values())
    if len(rows) < needed:
        asked = ", ".join(f"{name} {count:,}" for name, count in sizes.items())
        raise DataError(
            f"{settings.source} holds {len(rows):,} instructions, and {needed:,} are asked for ({asked}). "
            "Lower the counts under [data], or name a larger file."
        )
    groups: dict[str, list[_Read]] = {}
    for row in rows:
        groups.setdefault(content_id("split", settings.seed, row.instruction, row.material), []).append(row)
    waiting = [groups[key] for key in sorted(groups)]
    splits: dict[str, list[_Read]] = {}
    for name, count in sizes.items():
        # A group that would straddle the border goes to a later split.
        chosen: list[_Read] = []
        passed: list[list[_Read]] = []
        for group in waiting:
            if len(chosen) + len(group) <= count:
                chosen += group
            else:
                passed.append(group)
        if len(chosen) < count:
            raise DataError(
                f"{settings.source}: too many rows hold the same text to fill the split {name!r} with {count:,}. "
                "Remove repeated rows, or lower the counts under [data]."
            )
        splits[name], waiting = chosen, passed
    return splits


def _split(name: str, rows: Sequence[_Read], count: int, origin: str) -> Split:
    """The first `count` rows as records; a text that comes again gets an id of its own.

    There is nothing to imitate in an empty output: such rows of the split `sft` are left out.
    """
    if len(rows) < count:
        raise DataError(
            f"{origin} holds {len(rows):,} instructions for the split {name!r}, and {count:,} are asked for. "
            "Lower the count, or name a larger file."
        )
    taken = rows[:count]
    if name == "sft" and any(row.output for row in taken):
        taken = [row for row in taken if row.output and row.output.strip()]
    times: dict[tuple[str, str], int] = {}
    instructions = []
    demonstrations = []
    for row in taken:
        key = row.instruction, row.material
        times[key] = times.get(key, 0) + 1
        identity = content_id(*key) if times[key] == 1 else content_id(*key, times[key])
        asked = {"instruction": row.instruction, "input": row.material, "source": row.source, "split": name}
        instructions.append(made(Instruction, row.where, id=identity, **asked))
        if row.output is not None:
            answer = {"text": row.output, "system": REFERENCE, "seed": 0, "finish_reason": "stop"}
            demonstrations.append(made(Completion, row.where, instruction_id=identity, **answer))
    complete = name in DEMONSTRATED and len(demonstrations) == len(instructions)
    return Split(instructions, demonstrations if complete else [], left_out=count - len(taken))
