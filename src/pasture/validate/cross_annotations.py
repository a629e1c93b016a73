"""Several labels of the same pairs by one annotator or a crowd, read from any file that holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pasture.core.errors import DataError
from pasture.core.labels import share_of_second
from pasture.core.layout import has_list
from pasture.core.records import content_id
from pasture.core.statistics import Floats
from pasture.core.tables import Row, flat, text_field

Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Columns:
    """Which columns of a file hold what; the defaults are AlpacaEval's."""

    instruction: str = "instruction"
    material: str = "input"
    first: str = "output_1"
    second: str = "output_2"
    labels: tuple[str, ...] = ("preference",)
    """One column where each row is a label, several where each row is a pair with all its labels."""
    annotator: str = "annotator"
    """Names the annotator of a row; where the column is absent all rows are one annotator's."""
    pair: str | None = None
    """Names the pair of a row; where it is None, rows of equal texts are labels of one pair."""
    rows_are_pairs: bool = False
    """Whether each row is a pair of its own, however alike the texts; `pair`, where given, comes first."""
    system: str | None = None
    """Names the system whose completion is the second."""
    price: str = "price_per_example"
    seconds: str = "time_per_example"


@dataclass(frozen=True, eq=False)
class CrossAnnotations:
    """The labels of one annotator, or of one crowd, on N pairs with up to A labels each."""

    annotator: str
    pairs: tuple[str, ...]
    """Identity of each pair: its instruction and both completions."""
    labels: Floats
    """Shape (N, A): 0 for the first completion, 1 for the second, 1/2 for a tie; NaN where there is no label."""
    length_first: Floats
    length_second: Floats
    list_first: Booleans
    list_second: Booleans
    asked: NDArray[np.int64]
    """How many labels each pair was asked for, those that failed included."""
    systems: tuple[str | None, ...]
    """Whose completion the second is, where the file says so."""
    price_usd: Floats = field(default_factory=lambda: np.empty(0))
    """Of each label whose price is known."""
    seconds: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def parsed_count(self) -> int:
        """Labels that are there."""
        return int(np.isfinite(self.labels).sum())

    @property
    def evenly_asked(self) -> bool:
        """Whether every pair was asked for equally many labels."""
        return len(np.unique(self.asked)) <= 1


def read_cross_annotations(
    rows: Sequence[Row], columns: Columns, *, name: str | None = None, origin: str | Path | None = None
) -> dict[str, CrossAnnotations]:
    """The cross-annotations of every annotator in `rows`, by name; `name` makes all rows one annotator's.

    `origin` is what errors call the rows, such as the path of their file.

    A label is 1 for the first, 2 for the second, 0, 1.5 or "tie" for a tie, a number between 1 and 2 for a
    probability, and null, "", -1 or "garbage" for a judge that failed. A pair's labels keep the order of their rows. A
    row may also be a comparison as runs record them, with columns of labels.

    Raises:
        DataError: naming the row, if a column is missing or a label is none of these.
    """
    if not rows:
        raise DataError(f"no annotations: {origin or 'the file'} holds no rows.")
    called = "" if origin is None else f"{origin}, "
    groups: dict[str, dict[str, list[tuple[Row, list[float]]]]] = {}
    for number, row in enumerate(map(flat, rows), start=1):
        where = f"{called}row {number}"
        annotator = name or text_field(row, columns.annotator, where, "annotator")
        pair = _pair(row, columns, number, where)
        labels = [_label(row, column, where) for column in columns.labels]
        groups.setdefault(annotator, {}).setdefault(pair, []).append((row, labels))
    return {annotator: _gathered(annotator, pairs, columns, called) for annotator, pairs in groups.items()}


def _pair(row: Row, columns: Columns, number: int, where: str) -> str:
    if columns.pair is not None:
        return text_field(row, columns.pair, where)
    texts = [text_field(row, columns.instruction, where), text_field(row, columns.material, where, "")]
    texts += [text_field(row, columns.first, where), text_field(row, columns.second, where)]
    return content_id(*texts, *([number] if columns.rows_are_pairs else []))


def _gathered(
    annotator: str, pairs: dict[str, list[tuple[Row, list[float]]]], columns: Columns, called: str
) -> CrossAnnotations:
    by_pair = [[label for _, labels in found for label in labels] for found in pairs.values()]
    table = np.full((len(pairs), max(len(labels) for labels in by_pair)), np.nan)
    for number, labels in enumerate(by_pair):
        table[number, : len(labels)] = labels
    first = [text_field(found[0][0], columns.first, f"{called}pairs") for found in pairs.values()]
    second = [text_field(found[0][0], columns.second, f"{called}pairs") for found in pairs.values()]
    everything = [row for found in pairs.values() for row, _ in found]
    return CrossAnnotations(
        annotator=annotator,
        pairs=tuple(pairs),
        labels=table,
        length_first=np.array([len(text) for text in first], dtype=np.float64),
        length_second=np.array([len(text) for text in second], dtype=np.float64),
        list_first=np.array([has_list(text) for text in first]),
        list_second=np.array([has_list(text) for text in second]),
        asked=np.array([len(labels) for labels in by_pair]),
        systems=tuple(_system(found[0][0], columns, called) for found in pairs.values()),
        price_usd=_known(everything, columns.price),
        seconds=_known(everything, columns.seconds),
    )


def _label(row: Row, column: str, where: str) -> float:
    if column not in row:
        raise DataError(
            f"{where}: no column {column!r}, where a label is looked for. Columns: {', '.join(map(str, row))}. "
            f"Name the label's column, or call it {column!r} in the file."
        )
    try:
        return share_of_second(row[column])
    except ValueError as error:
        raise DataError(f"{where}: label {row[column]!r} under {column!r} {error}.") from error


def _system(row: Row, columns: Columns, called: str) -> str | None:
    return None if columns.system is None else text_field(row, columns.system, f"{called}systems")


def _known(rows: Sequence[Mapping[str, object]], column: str) -> Floats:
    values = [row.get(column) for row in rows]
    numbers = np.array([float(str(value)) for value in values if value not in (None, "")], dtype=np.float64)
    return numbers[np.isfinite(numbers)]
