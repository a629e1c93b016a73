"""A file of several people's labels as a campaign that is over: all that is asked of a campaign can be asked of it."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pasture.annotate.campaign.events import OWNER, Closed, Event, Said, Settings, Voted
from pasture.annotate.campaign.making import opening
from pasture.annotate.campaign.tokens import item_id
from pasture.annotate.entry import Columns, comparison_of
from pasture.core.errors import DataError
from pasture.core.labels import share_of_second
from pasture.core.records import Comparison
from pasture.core.tables import read_rows, text_field

_SAID: Mapping[float, Said] = {0.0: "first", 1.0: "second", 0.5: "tie"}
"""By the share of a win that a label gives to the second; people give no probabilities."""


def finished(path: Path, name: str, labels: Sequence[str], annotator_column: str | None = None) -> list[Event]:
    """The events of a campaign whose pairs and answers are the rows of a file.

    Either a row is a pair and `labels` names a column for each annotator; or a row is one label, in the one column of
    `labels`, by the annotator that `annotator_column` names. 1 is the first, 2 the second, 0 or 1.5 a tie; what is
    missing stays missing. Nothing is known of the order in which sides were shown.

    Raises:
        DataError: naming row and column, if a text or a label is missing or unfit.
    """
    if len(labels) > 1 and annotator_column is not None:
        raise DataError("expected one column of labels where a column names the annotator.")
    answers: list[tuple[str, Comparison, Said]] = []
    pairs: dict[str, Comparison] = {}
    rows = read_rows(path)
    if annotator_column is not None:
        _check_named(path, rows, annotator_column)
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        texts = {column: text_field(row, column, where) for column in ("instruction", "output_1", "output_2")}
        texts["input"] = text_field(row, "input", where, "")
        comparison = comparison_of({**row, **texts}, Columns(), where)
        pairs[comparison.id] = comparison
        for column in labels:
            said = _said(row, column, where)
            if said is not None:
                who = column if annotator_column is None else _annotator(row, annotator_column)
                answers.append((who, comparison, said))
    names = list(dict.fromkeys(annotator for annotator, _, _ in answers))
    if len({(annotator, comparison.id) for annotator, comparison, _ in answers}) != len(answers):
        raise DataError(f"{path}: an annotator labels a pair twice. Name the annotators' column, or remove the rows.")
    if OWNER in names:
        raise DataError(
            f"{path}: {OWNER!r} is who made a campaign, and no annotator. Give that annotator another name."
        )
    if not answers:
        raise DataError(f"{path}: no label in {', '.join(labels)}.")
    overlap = max(Counter(comparison.id for _, comparison, _ in answers).values())
    opened, added = opening(name, list(pairs.values()), names, Settings(overlap=overlap))
    votes = [
        Voted(
            annotator=annotator,
            item=item_id(opened.secret, annotator, "work", comparison.id),
            comparison_id=comparison.id,
            role="work",
            said=said,
            shown_first=None,
        )
        for annotator, comparison, said in answers
    ]
    return [opened, *added, *votes, Closed()]


def _check_named(path: Path, rows: Sequence[Mapping[str, Any]], column: str) -> None:
    """See that any row names its annotator; where others do, a row without a name is that of one who is unknown."""
    if rows and not any(column in row for row in rows):
        names = dict.fromkeys(name for row in rows for name in row)
        raise DataError(
            f"{path}: no column {column!r}, which is to name the annotators. Columns: {', '.join(names)}. "
            "Name one of them with --annotator."
        )


def _annotator(row: Mapping[str, Any], column: str) -> str:
    name = row.get(column)
    return "unknown" if name is None or name != name else str(name).strip() or "unknown"  # noqa: PLR0124 - a NaN


def _said(row: Mapping[str, Any], column: str, where: str) -> Said | None:
    if column not in row:
        raise DataError(f"{where}: no column {column!r}. Columns: {', '.join(row)}.")
    value = row[column]
    try:
        share = share_of_second(value)
        return None if math.isnan(share) else _SAID[share]
    except (KeyError, ValueError):
        raise DataError(f"{where}: label {value!r} under {column!r}: expected 1, 2, 0 or 1.5.") from None
