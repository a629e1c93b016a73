"""A leaderboard for the terminal and for spreadsheets; names from outside are shown, never obeyed."""

import csv
import io
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pasture.core.hostile import for_csv, on_one_line, shortened
from pasture.evaluate.board import Board, BoardRow

_BAR_CELLS = 10
_NAME_CELLS = 40
_CSV_CHARACTERS = 1_000
"""Of a text in a cell: spreadsheets refuse far longer ones."""


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def interval_bar(low: float | None, rate: float | None, high: float | None, cells: int = _BAR_CELLS) -> str:
    """A line from 0 to 1 with the interval drawn on it, the rate as a diamond and one half as a tick."""
    line = ["·"] * cells
    line[cells // 2] = "|"
    if low is not None and high is not None:
        first, last = (min(cells - 1, int(bound * cells)) for bound in (low, high))
        line[first : last + 1] = ["━"] * (last + 1 - first)
    if rate is not None:
        line[min(cells - 1, int(rate * cells))] = "◆"
    return "".join(line)


_LOOK: dict[str, Any] = {"title_justify": "left", "box": SIMPLE_HEAD, "padding": (0, 1, 0, 0)}


def board_table(board: Board, title: str = "Leaderboard") -> Table:
    """The board as a table for a rich console; warnings and the judge stand below it.

    A column that would hold nothing but zeros or dashes is left out, so that 80 characters hold the rest.
    """
    controlled = any(row.length_controlled for row in board.rows)
    failed = any(row.win_rate.unjudged for row in board.rows)
    table = Table(title=Text(on_one_line(title)), caption=Text(_caption(board)), caption_justify="left", **_LOOK)
    table.add_column("system", overflow="fold", min_width=10)
    for name in ("win rate", "95% interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("0 to 100", no_wrap=True, min_width=_BAR_CELLS)
    if controlled:
        table.add_column("equal length", justify="right", no_wrap=True)
    for name in ("judged", "unjudged", "length") if failed else ("judged", "length"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in board.rows:
        table.add_row(*(Text(cell) for cell in _cells(row, controlled=controlled, failed=failed)))
    return table


def _cells(row: BoardRow, *, controlled: bool, failed: bool) -> list[str]:
    rate = row.win_rate
    length = row.length_controlled
    lengths = ["-" if length is None else _with_error(length.rate, length.standard_error)]
    return [
        short_name(rate.system),
        _with_error(rate.rate, rate.standard_error),
        f"{percent(rate.interval_low)} to {percent(rate.interval_high)}",
        interval_bar(rate.interval_low, rate.rate, rate.interval_high),
        *(lengths if controlled else []),
        f"{rate.judged}/{rate.asked}",
        *([str(rate.unjudged)] if failed else []),
        "-" if rate.mean_length is None else f"{rate.mean_length:.0f}",
    ]


def _with_error(value: float | None, error: float | None) -> str:
    return percent(value) if error is None else f"{percent(value)} ± {percent(error)}"


def _caption(board: Board) -> str:
    judges = _names({row.win_rate.judge for row in board.rows})
    references = _names({row.win_rate.reference for row in board.rows})
    day = f" on {on_one_line(board.date)}" if board.date else ""
    facts = f"Judge: {judges}{day}. Reference: {references}. Percent ± standard error."
    methods = sorted({row.length_controlled.method for row in board.rows if row.length_controlled})
    if not any(row.win_rate.unjudged for row in board.rows):
        facts += " None unjudged."
    if methods:
        facts += f" Equal length: {', '.join(methods)}."
    return "\n".join([facts, *(f"Warning: {on_one_line(warning)}" for warning in board.warnings)])


def _names(names: set[str]) -> str:
    return ", ".join(short_name(name) for name in sorted(names))


def sources_table(board: Board) -> Table:
    """The win rate on each source of instructions, the number judged beside the source."""
    sources = board_sources(board)
    table = Table(title="By source: percent, judgements of the first system in brackets", **_LOOK)
    table.add_column("system", overflow="fold", min_width=10)
    for source in sources:
        judged = board.rows[0].by_source.get(source)
        name = shortened(on_one_line(source), _NAME_CELLS // 2)
        table.add_column(Text(f"{name} ({judged.judged if judged else 0})"), justify="right")
    for row in board.rows:
        rates = [row.by_source[source].rate if source in row.by_source else None for source in sources]
        table.add_row(*(Text(cell) for cell in [short_name(row.win_rate.system), *map(percent, rates)]))
    return table


def shares_table(board: Board) -> Table:
    """What the answers look like, and what their place was worth."""
    table = Table(title="Answers: characters, and shares in percent", **_LOOK)
    table.add_column("system", overflow="fold", min_width=10)
    for name in ("length", "reference's", "longer", "lists", "shown first", "rate first", "rate second"):
        table.add_column(name, justify="right")
    for row in board.rows:
        lengths = ["-" if row.win_rate.mean_length is None else f"{row.win_rate.mean_length:.0f}"]
        lengths.append(f"{row.mean_reference_length:.0f}")
        shares = (row.share_longer, row.share_list, row.share_shown_first, row.rate_when_first, row.rate_when_second)
        table.add_row(*(Text(cell) for cell in [short_name(row.win_rate.system), *lengths, *map(percent, shares)]))
    return table


def board_sources(board: Board) -> list[str]:
    """The sources that any system was judged on, by name."""
    return sorted({source for row in board.rows for source in row.by_source})


def short_name(text: str) -> str:
    """A name from outside as one line shows it."""
    return on_one_line(shortened(text, _NAME_CELLS))


COLUMNS = (
    "system", "reference", "judge", "date", "win_rate", "standard_error", "interval_low", "interval_high",
    "discrete_rate", "length_controlled_rate", "length_controlled_standard_error", "length_controlled_low",
    "length_controlled_high", "length_control", "asked", "judged", "unjudged", "wins", "losses", "ties",
    "mean_length", "mean_reference_length", "share_longer", "share_list", "share_shown_first", "rate_when_first",
    "rate_when_second",
)  # fmt: skip
"""Columns of the CSV, in order; one `win_rate:SOURCE` column follows for each source. Rates are fractions."""


def board_csv(board: Board) -> str:
    """The board as CSV, text cells made inert for spreadsheets."""
    sources = board_sources(board)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, *(_cell(f"win_rate:{source}") for source in sources)])
    for row in board.rows:
        rates = [row.by_source[source].rate if source in row.by_source else None for source in sources]
        writer.writerow([*_fields(row), *rates])
    return file.getvalue()


def _cell(text: str) -> str:
    return for_csv(shortened(text, _CSV_CHARACTERS))


def _fields(row: BoardRow) -> list[object]:
    rate, control = row.win_rate, row.length_controlled
    controlled: list[object] = [None] * 5
    if control is not None:
        bounds = control.interval or (None, None)
        controlled = [control.rate, control.standard_error, *bounds, _cell(control.method)]
    return [
        *(_cell(text) for text in (rate.system, rate.reference, rate.judge, row.date or "")),
        rate.rate,
        rate.standard_error,
        rate.interval_low,
        rate.interval_high,
        row.discrete_rate,
        *controlled,
        rate.asked,
        rate.judged,
        rate.unjudged,
        rate.wins,
        rate.losses,
        rate.ties,
        rate.mean_length,
        row.mean_reference_length,
        row.share_longer,
        row.share_list,
        row.share_shown_first,
        row.rate_when_first,
        row.rate_when_second,
    ]
