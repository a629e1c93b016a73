"""How a campaign stands, for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from pasture.annotate.campaign.quality import Agreement, AnnotatorQuality, Ratio
from pasture.core.hostile import on_one_line
from pasture.core.statistics import Estimate
from pasture.validate.agreement import AnnotatorReport

_COLUMNS = (
    "annotator", "labels", "s/pair", "agrees with others", "kappa", "gold", "same twice", "shown first", "skipped",
    "cost",
)  # fmt: skip
_MAY_BE_MISSING = ("gold", "same twice", "shown first", "cost")
_WIDE = 120
"""Columns of a terminal in which intervals find room; `--json` and the pages always have them."""


def say_quality(
    console: Console, counts: Mapping[str, Any], quality: Sequence[AnnotatorQuality], standing: Agreement
) -> None:
    """A line of counts, the agreement of all, a row for each annotator."""
    wanted = f", {counts['missing']} still wanted" if counts["missing"] else ""
    over = " It is closed." if counts["closed"] else ""
    if counts["unassigned"] and not counts["closed"]:
        over = (
            f" Of those, nobody is left to give {counts['unassigned']}: all who take part have labelled or skipped the "
            "pair. One more joins with: pasture people add CAMPAIGN NAME"
        )
    console.print(
        f"{on_one_line(counts['campaign'])}: {counts['labels']} labels of {counts['pairs']} pairs{wanted}.{over}",
        markup=False,
        soft_wrap=True,
    )
    if standing.pairwise is not None:
        console.print(
            f"Two labels of one pair agree in {_share(standing.pairwise)}; Krippendorff's alpha "
            f"{_number(standing.alpha)}.",
            markup=False,
        )
    console.print(_table(quality, standing, with_intervals=console.width >= _WIDE))
    costs = [row.cost_usd for row in quality if row.cost_usd is not None]
    if costs:
        console.print(f"{sum(row.hours for row in quality):.1f} hours, ${sum(costs):.2f} in all.")


def _table(quality: Sequence[AnnotatorQuality], standing: Agreement, *, with_intervals: bool) -> Table:
    """A row for each annotator; figures that nobody has are left out, and intervals where they would not fit."""
    rows = [_row(one, standing, with_intervals) for one in quality]
    table = Table(box=None)
    shown = [name for name in _COLUMNS if name not in _MAY_BE_MISSING or any(row[name] != "-" for row in rows)]
    for name in shown:
        is_name = name == "annotator"
        table.add_column(name, justify="left" if is_name else "right", min_width=len(name) if is_name else None)
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    return table


def _row(one: AnnotatorQuality, standing: Agreement, with_intervals: bool) -> Mapping[str, str]:
    among = standing.by_annotator.get(one.name)
    agreement, kappa = (among.agreement, among.kappa) if among else (None, None)
    state = "" if one.status == "working" else f" ({one.status})"
    cells = (
        on_one_line(one.name) + state,
        f"{one.labels}/{one.share}",
        "-" if one.median_seconds is None else f"{one.median_seconds:.0f}",
        _share(agreement) if with_intervals else _share(agreement).partition(" ")[0],
        _number(kappa) if with_intervals else _number(kappa).partition(" ")[0],
        _ratio(one.gold),
        _ratio(one.repeated),
        _ratio(one.prefers_first_shown),
        str(one.skipped),
        "-" if one.cost_usd is None else f"${one.cost_usd:.2f}",
    )
    return dict(zip(_COLUMNS, cells, strict=True))


def say_simulated(console: Console, report: AnnotatorReport) -> None:
    """How a simulated annotator stands to the majority of people."""
    console.print(
        f"{on_one_line(report.annotator)} agrees with the majority of people in {_share(report.agreement)}, kappa "
        f"{_number(report.kappa)}, on {report.pair_count} pairs; it prefers the longer in "
        f"{_share(report.prefer_longer)}.",
        markup=False,
        soft_wrap=True,
    )


def _share(value: Estimate | None) -> str:
    if value is None or value.value != value.value:
        return "-"
    return f"{100 * value.value:.0f}% ({100 * value.interval.low:.0f} to {100 * value.interval.high:.0f})"


def _number(value: Estimate | None) -> str:
    if value is None or value.value != value.value:
        return "-"
    return f"{value.value:.2f} ({value.interval.low:.2f} to {value.interval.high:.2f})"


def _ratio(ratio: Ratio) -> str:
    return "-" if ratio.share is None else f"{100 * ratio.share:.0f}%"
