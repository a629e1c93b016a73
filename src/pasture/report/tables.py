"""What the page's tables show in each cell, intervals drawn included."""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from pasture.core.records import WinRate
from pasture.report import numbers
from pasture.report.content import CellFormat, Column, Leaderboard

_WIDTH = 200.0
_HEIGHT = 18.0
_EDGE = 6.0
_MOST_ACROSS = 5

_FORMATS: dict[CellFormat, Callable[[float | None], str]] = {
    "count": numbers.count,
    "number": numbers.number,
    "percent": numbers.percent,
    "usd": numbers.usd,
    "seconds": numbers.seconds,
}


def cell(column: Column, value: str | float | None) -> str:
    """The value as the column's format has it."""
    if isinstance(value, str):
        return value
    if value is None and column.format != "usd":
        return numbers.DASH
    if column.digits is not None and value is not None:
        if column.format == "number":
            return numbers.number(value, column.digits)
        if column.format == "percent":
            return f"{numbers.number(value * 100, column.digits)}%"
    return _FORMATS[column.format](value)


def across(count: int) -> int:
    """How many of `count` cards stand side by side where there is room: five at most, in rows as even as can be."""
    rows = -(-count // _MOST_ACROSS) or 1
    return -(-count // rows) or 1


class Scale:
    """The stretch of the win-rate axis that all tables of a page share, so that their bars can be compared."""

    def __init__(self, leaderboards: Sequence[Leaderboard]) -> None:
        values = [0.5]
        for row in (row for board in leaderboards for row in board.rows):
            values += [value for value in (row.interval_low, row.rate, row.interval_high) if value is not None]
        # A stretch of whole tenths reads well; at least two, so that equal systems do not look far apart.
        self.low = max(0.0, math.floor(min(values) * 10 - 1e-9) / 10)
        self.high = min(1.0, math.ceil(max(values) * 10 + 1e-9) / 10)
        if self.high - self.low < 0.2:
            self.low, self.high = max(0.0, self.high - 0.2), min(1.0, self.low + 0.2)

    def place(self, rate: float) -> float:
        """Where `rate` lies in the drawing."""
        return _EDGE + (rate - self.low) / (self.high - self.low) * (_WIDTH - 2 * _EDGE)

    def bar(self, row: WinRate) -> Markup:
        """The row's rate as a dot, its interval as a line and one half as a thin rule; nothing that the cells lack."""
        middle = _HEIGHT / 2
        parts = [_line("half", self.place(0.5), 0, self.place(0.5), _HEIGHT)]
        if row.interval_low is not None and row.interval_high is not None:
            parts.append(_line("span", self.place(row.interval_low), middle, self.place(row.interval_high), middle))
        if row.rate is not None:
            parts.append(Markup('<circle cx="{}" cy="{}" r="4.5"/>').format(_short(self.place(row.rate)), middle))
        return Markup('<svg class="bar" viewBox="0 0 {} {}" aria-hidden="true">{}</svg>').format(
            _WIDTH, _HEIGHT, Markup("").join(parts)
        )


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        name, *(_short(value) for value in (x1, y1, x2, y2))
    )


def share_bar(value: float, largest: float) -> Markup:
    """A bar as long as `value` is of `largest`."""
    width = _WIDTH * value / largest if largest > 0 else 0.0
    return Markup(
        '<svg class="share" viewBox="0 0 {} 8" aria-hidden="true"><rect width="{}" height="8"/></svg>'
    ).format(_WIDTH, _short(width))


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
