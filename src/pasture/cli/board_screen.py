"""A leaderboard and what stands behind it, for a terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pasture.cli.judged import p_in_words
from pasture.cli.results import corrected_p_values
from pasture.data.overlap import Overlap
from pasture.evaluate.board import Board
from pasture.evaluate.human_corrected import CorrectedRate
from pasture.evaluate.ranking import Ranking
from pasture.evaluate.table import board_table, percent, shares_table, short_name, sources_table
from pasture.report.content import Difference

_MOST_DIFFERENCES = 8


def show_board(console: Console, board: Board, title: str = "Leaderboard", *, details: bool = False) -> None:
    """Print the board, and where asked for the tables that stand behind it."""
    console.print(board_table(board, title))
    if details:
        console.print(sources_table(board))
        console.print(shares_table(board))


def show_behind(console: Console, behind: Sequence[Difference]) -> None:
    """Print how far the others are from the first, where any was paired with it."""
    p_values = corrected_p_values(behind)
    for one, p_value in list(zip(behind, p_values, strict=True))[:_MOST_DIFFERENCES]:
        chance = "" if p_value is None else f", {p_in_words(p_value)}"
        console.print(
            f"{short_name(one.system)} less {short_name(one.baseline)}: {100 * one.difference:+.1f} points "
            f"({100 * one.interval_low:+.1f} to {100 * one.interval_high:+.1f}){chance}",
            markup=False,
            highlight=False,
        )
    if len(behind) > 1:
        console.print(
            f"p is corrected by Holm for the {len(behind)} comparisons with {short_name(behind[0].baseline)}, which "
            "the same judgements put first; each interval is for its pair alone.",
            markup=False,
            highlight=False,
        )


def show_corrected(console: Console, corrected: Mapping[str, Sequence[CorrectedRate]]) -> None:
    """Print the rates that people's labels make of the judge's, where there are any."""
    if not corrected:
        return
    table = Table(title="Corrected by people's labels: percent", title_justify="left", box=None)
    for name in ("system", "method", "corrected", "95% interval", "judge alone", "labels alone", "labels"):
        table.add_column(name, justify="left" if name in ("system", "method") else "right", no_wrap=name == "method")
    for system, results in corrected.items():
        for one in results:
            bounds = f"{percent(one.interval.low)} to {percent(one.interval.high)}"
            cells = [short_name(system), one.method, percent(one.rate), bounds, percent(one.judge_rate)]
            table.add_row(*(Text(cell) for cell in [*cells, percent(one.human_rate), str(one.labelled)]))
    console.print(table)


def show_overlaps(console: Console, overlaps: Sequence[Overlap]) -> None:
    """Print how many instructions were also trained on, where any were."""
    if overlaps:
        said = f"{len(overlaps)} instructions were also trained on, the first {overlaps[0].similarity:.0%} the same."
        console.print(Text(said, style="yellow"))


def ranking_table(ranking: Ranking, title: str) -> Table:
    """Strengths and ranks, with the intervals of both."""
    table = Table(title=title, title_justify="left")
    for name in ("rank", "ranks at 95%", "system", "strength", "95% interval", "judged"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for row in ranking.systems:
        cells = [str(row.rank), f"{row.rank_low} to {row.rank_high}", short_name(row.system), f"{row.strength:+.2f}"]
        table.add_row(*(Text(cell) for cell in [*cells, row.interval.in_words(), str(row.judged)]))
    return table
