"""AlpacaEval's annotations and leaderboards, read and written in its own layout.

Its preference is 1 for the reference, 2 for the system, 1.5 or 0 for a draw, anything between for a probability, and
null, NaN or -1 for a judge that failed.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pasture.core.errors import DataError
from pasture.core.hostile import for_csv, shortened
from pasture.core.labels import share_of_second, truth
from pasture.core.layout import has_list
from pasture.core.records import Comparison, Preference, by_id, content_id
from pasture.core.tables import Row, text_field
from pasture.evaluate.board import Board
from pasture.evaluate.outcomes import Credit, Outcomes, answers_of


@dataclass(frozen=True)
class PairColumns:
    """Which columns name the two systems of a row and hold its labels; the defaults are AlpacaEval's."""

    first: str = "generator_1"
    second: str = "generator_2"
    labels: tuple[str, ...] = ("preference",)


def instruction_key(instruction: str, material: str = "") -> str:
    """The identity of an instruction known by its text alone."""
    return content_id(instruction, material)


def credit_of(preference: object, where: str) -> float:
    """AlpacaEval's preference as the system's share of a win; NaN where the judge failed.

    Raises:
        DataError: for anything that is no label of a pair.
    """
    try:
        return share_of_second(preference)
    except ValueError as error:
        raise DataError(f"{where}: preference {preference!r} {error}.") from error


def outcomes_of_annotations(
    rows: Sequence[Row], *, judge: str | None = None, columns: PairColumns | None = None
) -> list[Outcomes]:
    """The outcomes of every pair of generators in AlpacaEval's annotations, rows in their order.

    `judge` is the name to give; left out, it is the annotators' own names, joined. With several columns of labels
    each row is judged as often. Whose output was shown first is known by `is_switched` alone, true or false, also as
    text: without it a row has no place.

    Raises:
        DataError: naming the row, if a field is missing or a preference out of range.
    """
    names = columns or PairColumns()
    groups: dict[tuple[str, str], list[Row]] = {}
    for number, row in enumerate(rows, start=1):
        where = f"annotation {number}"
        pair = (text_field(row, names.second, where), text_field(row, names.first, where))
        for label in names.labels:
            if label not in row:
                raise DataError(f"{where}: no column {label!r}. Columns: {', '.join(map(str, row))}.")
            groups.setdefault(pair, []).append({**row, "preference": row[label]})
    return [_outcomes(system, reference, found, judge) for (system, reference), found in groups.items()]


def _outcomes(system: str, reference: str, rows: list[Row], judge: str | None) -> Outcomes:
    where = f"annotations of {system!r}"
    own = [text_field(row, "output_2", where) for row in rows]
    other = [text_field(row, "output_1", where) for row in rows]
    names = sorted({text_field(row, "annotator", where, "unknown") for row in rows})
    credit = np.array([credit_of(row.get("preference"), where) for row in rows])
    switched = [_switched(row.get("is_switched"), where) for row in rows]
    first, second = (np.array([value is place for value in switched]) for place in (True, False))
    return Outcomes(
        system=system,
        reference=reference,
        judge=judge or "+".join(names),
        instruction=np.array(
            [
                instruction_key(text_field(row, "instruction", where), text_field(row, "input", where, ""))
                for row in rows
            ]
        ),
        source=np.array([text_field(row, "dataset", where, "unknown") for row in rows]),
        credit=credit,
        shown_first=first,
        credit_when_first=np.where(first, credit, np.nan),
        credit_when_second=np.where(second, credit, np.nan),
        system_length=np.array([len(text) for text in own], dtype=np.float64),
        reference_length=np.array([len(text) for text in other], dtype=np.float64),
        system_list=np.array([has_list(text) for text in own]),
        reference_list=np.array([has_list(text) for text in other]),
        answer=answers_of(own),
    )


def _switched(value: object, where: str) -> bool | None:
    """Whether the judge saw the second output first; None where nobody says."""
    try:
        return truth(value)
    except ValueError as error:
        raise DataError(f"{where}: is_switched is {value!r}, which {error}.") from error


_PREFERENCE = {"first": 1.0, "second": 2.0, "tie": 1.5}


def annotation_rows(
    preferences: Sequence[Preference], comparisons: Sequence[Comparison], credit: Credit = "probability"
) -> list[Row]:
    """The preferences in the layout of annotations.json, first completion as output 1; null where unjudged.

    Counted as `credit` says, so that AlpacaEval makes the same rates of them.
    """
    known = by_id(comparisons)
    rows: list[Row] = []
    for preference in preferences:
        comparison = known[preference.comparison_id]
        probability = None if credit == "verdict" else preference.probability_first
        value = _PREFERENCE.get(preference.preferred)
        rows.append(
            {
                "instruction": comparison.instruction.instruction,
                "input": comparison.instruction.input,
                "output_1": comparison.first.text,
                "generator_1": comparison.first.system,
                "dataset": comparison.instruction.source,
                "output_2": comparison.second.text,
                "generator_2": comparison.second.system,
                "annotator": preference.annotator,
                "preference": value if value is None or probability is None else 2.0 - probability,
                "is_switched": preference.shown_first == "second",
                "raw_completion": preference.raw_reply,
                "price_per_example": preference.cost_usd,
                "time_per_example": preference.seconds,
            }
        )
    return rows


def leaderboard_csv(board: Board) -> str:
    """The board in the layout of AlpacaEval's leaderboard.csv: percentages, lengths cut to whole characters."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["", "win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate", "mode",
         "avg_length", "length_controlled_winrate", "lc_standard_error"]
    )  # fmt: skip
    for row in board.rows:
        rate, control = row.win_rate, row.length_controlled
        writer.writerow(
            [
                for_csv(shortened(rate.system, 1_000)),
                _percent(rate.rate),
                _percent(rate.standard_error),
                rate.wins,
                rate.losses,
                rate.ties,
                rate.judged,
                _percent(row.discrete_rate),
                "community",
                None if rate.mean_length is None else int(rate.mean_length),
                None if control is None else _percent(control.rate),
                None if control is None else _percent(control.prediction_spread or control.standard_error),
            ]
        )
    return file.getvalue()


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
