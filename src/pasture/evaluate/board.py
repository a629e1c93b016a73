"""The leaderboard: a row a system, sorted by win rate, with what a reader needs to doubt it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from pasture.core.errors import DataError
from pasture.core.hostile import shortened
from pasture.core.records import WinRate
from pasture.core.statistics import Interval
from pasture.evaluate.doubts import comparability, judges_by_place, twins
from pasture.evaluate.outcomes import Outcomes
from pasture.evaluate.win_rate import discrete_rate, require_systems, summarize_all

_REPR_ROWS, _REPR_CHARACTERS = 5, 40
"""Systems, and characters of each name, that `repr` of a board shows; `board_table` shows all."""


@dataclass(frozen=True)
class LengthControlled:
    """What a system would win if its answers were as long as the reference's."""

    method: str
    rate: float
    standard_error: float | None
    """None where the method has no honest one."""
    interval: Interval | None
    prediction_spread: float | None = None
    """What AlpacaEval prints in place of an error; see `alpaca_length_control`."""


@dataclass(frozen=True)
class SourceRate:
    """The win rate on one source of instructions."""

    rate: float | None
    judged: int


@dataclass(frozen=True)
class BoardRow:
    """One system's line; shares are fractions, of the comparisons asked unless they say otherwise."""

    win_rate: WinRate
    discrete_rate: float | None
    """Win rate by verdicts alone, whatever credit their probabilities give."""
    by_source: Mapping[str, SourceRate]
    mean_reference_length: float
    share_longer: float
    """How often the system's answer is longer than the reference's."""
    share_list: float
    """How often the system's answer is laid out as a list."""
    share_shown_first: float | None
    """Of the judged, how often the judge saw the system's answer first: half the time where asked in both orders.

    Equal answers have no place where a pool of language models says that nobody was asked about them; the meadow's
    judges look at them too, in the order that they drew.
    """
    rate_when_first: float | None
    rate_when_second: float | None
    """The rate at each position: far apart, they show what position is worth to this judge."""
    date: str | None = None
    """Day of the judgements, as YYYY-MM-DD."""
    length_controlled: LengthControlled | None = None

    def to_json(self) -> str:
        """The row as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_dict(self) -> dict[str, object]:
        """The row as plain JSON values."""
        return {**asdict(self), "win_rate": self.win_rate.model_dump()}


@dataclass(frozen=True)
class Board:
    """Rows sorted by win rate, highest first; systems without any judgement come last."""

    rows: tuple[BoardRow, ...]
    judge_identity: Mapping[str, object] = field(default_factory=dict)
    """What the verdicts depend on, as the annotator states it."""
    warnings: tuple[str, ...] = ()
    """What keeps the rows from being compared, or the numbers from being believed."""

    def __repr__(self) -> str:
        rows = [
            f"{shortened(row.win_rate.system, _REPR_CHARACTERS)!r} {_percent(row.win_rate.rate)}" for row in self.rows
        ]
        more = [f"{len(rows) - _REPR_ROWS} more"] if len(rows) > _REPR_ROWS else []
        warnings = f"; {len(self.warnings)} warnings" if self.warnings else ""
        return f"Board({', '.join([*rows[:_REPR_ROWS], *more])}{warnings})"

    @property
    def date(self) -> str | None:
        """Day of the judgements, or the first and the last day; None where none is known."""
        days = sorted({row.date for row in self.rows if row.date is not None})
        return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else None

    def to_json(self) -> str:
        """The board as one JSON object."""
        content = {
            "judge_identity": dict(self.judge_identity),
            "date": self.date,
            "warnings": list(self.warnings),
            "rows": [row.to_dict() for row in self.rows],
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"


def build_board(
    systems: Sequence[Outcomes],
    *,
    seed: int,
    judge_identity: Mapping[str, object] | None = None,
    allow_mixed: bool = False,
    length_controlled: Mapping[str, LengthControlled] | None = None,
) -> Board:
    """The leaderboard of systems that one judge compared with one reference on the same instructions.

    With `allow_mixed` systems that differ in judge, reference or instructions are ranked all the same, and the board
    carries a warning that says so. `length_controlled` gives the controlled rate by name of the system.

    Raises:
        DataError: if there is no system, a system comes twice under one judge and reference, or rows cannot be
            compared and `allow_mixed` is not set.
    """
    require_systems(systems, "a leaderboard")
    if len({outcomes.pair for outcomes in systems}) < len(systems):
        raise DataError("a system is given twice for one judge and reference. Merge its outcomes or rename one.")
    doubts = comparability(systems)
    if doubts and not allow_mixed:
        raise DataError(f"{' '.join(doubts)} Such rates cannot be ranked; ask for it with allow_mixed (--allow-mixed).")
    controlled = length_controlled or {}
    records = summarize_all(systems, seed)
    rows = [
        _row(outcomes, record, controlled.get(outcomes.system))
        for outcomes, record in zip(systems, records, strict=True)
    ]
    rows.sort(key=_rank)
    return Board(tuple(rows), dict(judge_identity or {}), (*doubts, *judges_by_place(systems), *twins(systems)))


def _rank(row: BoardRow) -> tuple[float, str]:
    rate = row.win_rate.rate
    return (math.inf if rate is None else -rate, row.win_rate.system)


def _row(outcomes: Outcomes, record: WinRate, controlled: LengthControlled | None) -> BoardRow:
    when_first, when_second = (credit[~np.isnan(credit)] for credit in outcomes.by_place())
    shown = len(when_first) + len(when_second)
    return BoardRow(
        win_rate=record,
        discrete_rate=discrete_rate(record),
        by_source=_by_source(outcomes),
        mean_reference_length=float(outcomes.reference_length.mean()),
        share_longer=float((outcomes.system_length > outcomes.reference_length).mean()),
        share_list=float(outcomes.system_list.mean()),
        share_shown_first=len(when_first) / shown if shown else None,
        rate_when_first=_mean(when_first),
        rate_when_second=_mean(when_second),
        date=outcomes.date,
        length_controlled=controlled,
    )


def _by_source(outcomes: Outcomes) -> dict[str, SourceRate]:
    rates = {}
    for source in np.unique(outcomes.source).tolist():
        credit = outcomes.credit[outcomes.judged & (outcomes.source == source)]
        rates[source] = SourceRate(_mean(credit), len(credit))
    return rates


def _percent(rate: float | None) -> str:
    return "unjudged" if rate is None else f"{rate:.1%}"


def _mean(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    return float(values.mean()) if len(values) else None
