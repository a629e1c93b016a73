"""Preferences and ratings from files, whoever made them: one loader for people's, a judge's and our own.

| Rows hold | Layout |
|---|---|
| `instruction`, `output_1`, `output_2` and a label, 1 or 2 | AlpacaFarm's human, noisy and GPT-4 files, AlpacaEval's |
| `prompt`, `chosen`, `rejected` as texts or as lists of messages | TRL's, plain and conversational; UltraFeedback |
| `chosen` and `rejected` as whole dialogues, texts or messages | HH-RLHF; TRL's with an implicit prompt |
| `comparison_id`, `preferred`, with `comparisons.jsonl` beside the file | what a run or a campaign leaves |
| `comparison` and `preference`, each a record | both in one file |
| `prompt`, `completion` or `instruction`, `output`, and `label`, true or false | TRL's, unpaired; thumbs up or down |
| `instruction`, `completion`, `annotator`, `desirable` | ratings of our own |
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pasture.core.errors import DataError
from pasture.core.files import PlaceName, read_records
from pasture.core.foreign import made
from pasture.core.labels import share_of_second, truth
from pasture.core.records import (
    Comparison,
    Completion,
    Instruction,
    Judgement,
    Preference,
    Rating,
    Verdict,
    by_id,
    content_id,
)
from pasture.core.tables import Row, read_rows, text_field
from pasture.data.dialogues import (
    Turn,
    is_hh_dialogue,
    is_messages,
    prompt_text,
    turns_of_hh_dialogue,
    turns_of_messages,
)
from pasture.data.hub import data_files

COMPARISONS_FILE = "comparisons.jsonl"
PREFERENCES_FILE = "preferences.jsonl"
RATINGS_FILE = "ratings.jsonl"
_PAIRS_OF_A_RUN, _LABELS_OF_A_RUN = ("2-generate", "preference"), ("3-annotate", "preference")
_NUMBER_COLUMN, _VERDICT_COLUMN = "preference", "preferred"
"""What `pasture annotate` writes of one verdict, perhaps with a prefix before both."""

_RATED = ({"prompt", "completion", "label"}, {"instruction", "output", "label"})

Judged = tuple[Comparison, Preference]


class FeedbackFile(BaseModel):
    """Where preferences come from, when no annotator of ours is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: PlaceName
    """A file, a folder with `comparisons.jsonl` and `preferences.jsonl`, or `hub:ORG/NAME/FILES@REVISION`."""
    labels: tuple[str, ...] = Field(("preference",), min_length=1)
    """Columns that hold a label, where rows have `output_1` and `output_2`; each is a person or a judge."""
    count: int | None = Field(None, ge=1)
    """Comparisons to take, from the first, each with all its labels, or ratings; None takes all."""


@dataclass(frozen=True)
class Feedback:
    """Judged comparisons, answers that were rated alone, and what a file held beside them."""

    pairs: Sequence[Judged]
    """Each preference with its comparison; a comparison comes once for each label that it has."""
    left_out: Mapping[str, int]
    """Rows that nothing could be made of, by reason."""
    ratings: Sequence[Rating] = ()

    @property
    def rows(self) -> list[Judgement]:
        """All of it, as methods take it that learn from ratings too."""
        return [*self.pairs, *((rating,) for rating in self.ratings)]


def load_feedback(settings: FeedbackFile | str | Path) -> Feedback:
    """The preferences and the ratings of a file, each in order; of a file alone, by its name, all that it holds.

    Of a chosen and a rejected answer, which one is called first is drawn by their texts, so that a label says nothing
    but who was preferred. Labels that are missing come out as unjudged.

    Raises:
        DataError: naming file and row, if a layout is unknown or broken, or nothing is left.
    """
    if not isinstance(settings, FeedbackFile):
        settings = FeedbackFile(file=str(settings))
    left_out: Counter[str] = Counter()
    found: list[Judged | Rating] = []
    taken: set[str] = set()
    for path in _files(settings.file):
        for number, row in enumerate(_judged_in(path, settings, left_out)):
            identity = f"{path}, {number}" if isinstance(row, Rating) else row[0].id
            if identity in taken or settings.count is None or len(taken) < settings.count:
                taken.add(identity)
                found.append(row)
    if not found:
        reasons = "; ".join(f"{count} rows: {reason}" for reason, count in left_out.items()) or "it holds no rows"
        raise DataError(f"{settings.file}: nothing to learn from ({reasons}).")
    ratings = [row for row in found if isinstance(row, Rating)]
    return Feedback([row for row in found if not isinstance(row, Rating)], dict(left_out), ratings)


def _files(name: str) -> list[Path]:
    ours = Path(name) / PREFERENCES_FILE
    if ours.is_file():
        return [path for path in (ours, ours.with_name(RATINGS_FILE)) if path.is_file()]
    return data_files(name)


def _judged_in(path: Path, settings: FeedbackFile, left_out: Counter[str]) -> list[Judged | Rating]:
    rows = read_rows(path)
    if rows and {"comparison_id", "preferred"} <= set(rows[0]):
        return [*_joined(path, rows)]
    judged: list[Judged | Rating] = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}: row {number}"
        try:
            judged += _of_row(row, settings.labels, where, path.name.split(".")[0] or "file")
        except _LeftOutError as reason:
            left_out[str(reason)] += 1
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{where}: {error.title}, {field}: {first['msg']}.") from error
    return judged


class _LeftOutError(Exception):
    """Why nothing is made of a row."""


def _joined(path: Path, rows: Sequence[Row]) -> list[Judged]:
    """Our own preferences with the comparisons beside them, or where a run keeps them."""
    beside = path.with_name(COMPARISONS_FILE)
    if not beside.exists() and path.parts[-3:-1] == _LABELS_OF_A_RUN:
        beside = path.parents[2].joinpath(*_PAIRS_OF_A_RUN, COMPARISONS_FILE)
    comparisons = by_id(read_records(beside, Comparison))
    judged = []
    for number, row in enumerate(rows, start=1):
        preference = made(Preference, f"{path}: row {number}", **row)
        if preference.comparison_id not in comparisons:
            raise DataError(
                f"{path}: row {number}: judges comparison {preference.comparison_id!r}, which is not in "
                f"{beside}. Put the file of the same run or campaign there."
            )
        judged.append((comparisons[preference.comparison_id], preference))
    return judged


def _of_row(row: Row, labels: Sequence[str], where: str, source: str) -> Sequence[Judged | Rating]:
    columns = set(row)
    if {"comparison", "preference"} <= columns:
        comparison = Comparison.model_validate(row["comparison"])
        preference = Preference.model_validate(row["preference"])
        if preference.comparison_id != comparison.id:
            raise DataError(f"{where}: the preference is of another comparison.")
        return [(comparison, preference)]
    if {"output_1", "output_2"} <= columns:
        return _labelled(row, labels, where, source)
    if {"chosen", "rejected"} <= columns:
        return [_chosen(row, where, source)]
    if set(Rating.model_fields) <= columns:
        return [Rating.model_validate({name: row[name] for name in Rating.model_fields})]
    if any(layout <= columns for layout in _RATED):
        return [_rated(row, where, source)]
    check_both_sides(row, where)
    raise DataError(
        f"{where}: no layout of preferences has the columns {', '.join(map(str, row))}. Expected output_1 and "
        "output_2 with a label, or prompt, chosen and rejected, or prompt, completion and label, or records of ours; "
        "see docs/data.md."
    )


def check_both_sides(row: Row, where: str) -> None:
    """See that a row does not hold one side of a pair alone.

    Raises:
        DataError: naming the column that is missing.
    """
    for sides in (("output_1", "output_2"), ("chosen", "rejected")):
        here = [side for side in sides if side in row]
        missing = [side for side in sides if side not in row]
        if here and missing:
            raise DataError(
                f"{where}: no column {missing[0]!r} beside {here[0]!r}. Columns: {', '.join(map(str, row))}."
            )


def _labelled(row: Row, labels: Sequence[str], where: str, source: str) -> list[Judged]:
    """AlpacaFarm's layout: a preference for each label."""
    instruction = _instruction(
        text_field(row, "instruction", where), text_field(row, "input", where, ""), text_or(row, "dataset", source)
    )
    sides = [
        Completion(
            instruction_id=instruction.id,
            text=text_field(row, f"output_{number}", where),
            system=text_or(row, f"generator_{number}", source),
            seed=number - 1,
        )
        for number in (1, 2)
    ]
    comparison = Comparison.of(instruction, *sides)
    named = text_or(row, "annotator", source) if len(labels) == 1 else ""
    return [(comparison, _preference(comparison, row, label, named or label, where)) for label in labels]


def _preference(comparison: Comparison, row: Row, label: str, annotator: str, where: str) -> Preference:
    """What a label says; a verdict of ours beside it has the last word, and the number stays as its probability."""
    if label not in row:
        raise DataError(f"{where}: no column {label!r}. Columns: {', '.join(map(str, row))}.")
    share = _share_of_second(row[label], label, where)
    preferred = _verdict_beside(row, label) or _verdict(share)
    if preferred == "unjudged":
        reason = f"no label under {label!r}"
        return Preference(comparison_id=comparison.id, annotator=annotator, preferred="unjudged", error=reason)
    graded = None if math.isnan(share) or share in (0, 0.5, 1) else 1 - share
    return Preference(comparison_id=comparison.id, annotator=annotator, preferred=preferred, probability_first=graded)


def _verdict_beside(row: Row, label: str) -> Verdict | None:
    """The verdict in the column `preferred` that annotating writes beside `preference`, with the same prefix.

    It is not always the number's: a judge that changes its mind with the order says a tie, whatever the mean of its
    two probabilities. A column of that name with other words in it is somebody else's, and says nothing.
    """
    if not label.endswith(_NUMBER_COLUMN):
        return None
    beside = row.get(label.removesuffix(_NUMBER_COLUMN) + _VERDICT_COLUMN)
    return next((verdict for verdict in get_args(Verdict) if verdict == beside), None)


def _verdict(share_of_second: float) -> Verdict:
    if math.isnan(share_of_second):
        return "unjudged"
    return "tie" if share_of_second == 0.5 else "first" if share_of_second < 0.5 else "second"


def _share_of_second(value: object, label: str, where: str) -> float:
    try:
        return share_of_second(value)
    except ValueError as error:
        raise DataError(
            f"{where}: {label} is {value!r}, which {error}. Expected 1 or 2 for the output that is better, 1.5 or 0 "
            "for a tie, a number between for a probability, and nothing or -1 where there is no label."
        ) from error


def _chosen(row: Row, where: str, source: str) -> Judged:
    """TRL's layouts and HH-RLHF's: one answer chosen over another."""
    chosen_prompt, chosen = answered(row, "chosen", where)
    rejected_prompt, rejected = answered(row, "rejected", where)
    if chosen_prompt != rejected_prompt:
        raise _LeftOutError("the chosen and the rejected dialogue differ before their last answer")
    text = prompt_text(chosen_prompt)
    if not text.strip():
        raise _LeftOutError("the prompt is empty")
    instruction = _instruction(text, "", text_or(row, "source", source))
    chosen_first = int(content_id(instruction.id, *sorted((chosen, rejected))), 16) % 2 == int(chosen < rejected)
    texts = (chosen, rejected) if chosen_first else (rejected, chosen)
    sides = [
        Completion(instruction_id=instruction.id, text=text, system=source, seed=number)
        for number, text in enumerate(texts)
    ]
    comparison = Comparison.of(instruction, *sides)
    scores = {name: row[name] for name in ("score_chosen", "score_rejected") if _is_finite(row.get(name))}
    preference = Preference(
        comparison_id=comparison.id,
        annotator=text_or(row, "annotator", source),
        preferred="first" if chosen_first else "second",
        evidence=scores or None,
    )
    return comparison, preference


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rated(row: Row, where: str, source: str) -> Rating:
    """One answer with a thumb up or down."""
    if "completion" in row:
        turns, text = answered(row, "completion", where)
        asked, material = prompt_text(turns), ""
    else:
        asked, material = text_field(row, "instruction", where), text_field(row, "input", where, "")
        text = text_field(row, "output", where)
    instruction = _instruction(asked, material, text_or(row, "source", source))
    return Rating(
        instruction=instruction,
        completion=Completion(
            instruction_id=instruction.id, text=text, system=text_or(row, "generator", source), seed=0
        ),
        annotator=text_or(row, "annotator", source),
        desirable=_thumb(row["label"], where),
    )


def _thumb(value: object, where: str) -> bool:
    try:
        found = truth(value)
    except ValueError as error:
        raise DataError(
            f"{where}: label is {value!r}. Expected true or false, or 1 or 0: whether the answer is desirable."
        ) from error
    if found is None:
        raise _LeftOutError("no label")
    return found


def answered(row: Row, side: str, where: str) -> tuple[list[Turn], str]:
    """The turns before the last answer of a side, and that answer."""
    value, prompt = row[side], row.get("prompt")
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise DataError(f"{where}: expected an answer under {side!r}, got the number {value}. Put its text there.")
    if is_hh_dialogue(value):
        turns = turns_of_hh_dialogue(str(value))
    elif is_messages(value):
        turns = turns_of_messages(value, where)
        if is_messages(prompt):
            turns = turns_of_messages(prompt, where) + turns
        elif isinstance(prompt, str) and turns[0].role == "assistant":
            turns = [Turn("user", prompt), *turns]
    elif is_messages(prompt):
        turns = [*turns_of_messages(prompt, where), Turn("assistant", text_field(row, side, where))]
    else:
        turns = [Turn("user", text_field(row, "prompt", where)), Turn("assistant", text_field(row, side, where))]
    if turns[-1].role != "assistant":
        raise DataError(f"{where}: {side} ends with a turn of the {turns[-1].role}, expected one of the assistant.")
    return turns[:-1], turns[-1].text


def _instruction(text: str, material: str, source: str) -> Instruction:
    if not text.strip():
        raise _LeftOutError("the instruction is empty")
    return Instruction(
        id=content_id(text, material), instruction=text, input=material, source=source, split="preference"
    )


def text_or(row: Mapping[str, Any], name: str, default: str) -> str:
    """The text under `name`; `default` where there is none or it is blank."""
    value = row.get(name)
    return value if isinstance(value, str) and value.strip() else default
