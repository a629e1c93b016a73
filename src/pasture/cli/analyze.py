"""`pasture analyze-annotators`: what judges are worth beside people, and how each of them ranks the systems."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pasture.core.errors import DataError
from pasture.core.statistics import Estimate
from pasture.core.tables import Row, read_rows
from pasture.evaluate.alpaca_eval import PairColumns, outcomes_of_annotations
from pasture.evaluate.ranking import Ranking, bradley_terry
from pasture.evaluate.table import percent, short_name
from pasture.validate.agreement import AnnotatorReport, analyze
from pasture.validate.cross_annotations import Columns, CrossAnnotations, read_cross_annotations

PEOPLE = "people"


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command(
        "analyze-annotators",
        epilog="Example: pasture analyze-annotators pairs.jsonl --people human_1,human_2,human_3 --labels gpt35 "
        "--systems generator_1,generator_2",
    )(analyze_annotators)


def analyze_annotators(
    file: Annotated[Path, typer.Argument(help="Pairs with labels: a row a label, or a row a pair.")],
    people: Annotated[
        str | None,
        typer.Option("--people", help="People's labels: a file like FILE, or columns of FILE, each row being a pair."),
    ] = None,
    labels: Annotated[
        str, typer.Option("--labels", help="Columns that hold labels, by comma; each is one annotator's.")
    ] = "preference",
    pair: Annotated[
        str | None, typer.Option("--pair", help="Column that names the pair; else rows of equal texts are one pair.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="Column that names the second answer's system.")
    ] = None,
    systems: Annotated[
        str | None,
        typer.Option("--systems", help="Columns that name both systems, by comma: rank them by each annotator."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the tables.")] = False,
) -> None:
    """Measure annotators: agreement with people, bias, variance, leanings, price, each with its interval."""
    rows = read_rows(file)
    in_file = people is not None and not Path(people).suffix
    crowd_columns = tuple(people.split(",")) if people is not None and in_file else ()

    def read(columns: tuple[str, ...], name: str | None) -> dict[str, CrossAnnotations]:
        places = Columns(labels=columns, pair=pair, system=system, rows_are_pairs=in_file)
        return read_cross_annotations(rows, places, name=name, origin=file)

    found: dict[str, CrossAnnotations] = {}
    for column in labels.split(","):
        found |= read((column,), None if column == "preference" else column)
    crowd = None
    if in_file:
        crowd = read(crowd_columns, PEOPLE)[PEOPLE]
    elif people is not None:
        places = Columns(pair=pair, system=system)
        crowd = read_cross_annotations(read_rows(Path(people)), places, name=PEOPLE, origin=people)[PEOPLE]
    reports = [analyze(annotator, crowd, seed=0) for annotator in found.values()]
    if crowd is not None:
        reports.append(analyze(crowd, crowd, seed=0))
    by = {PEOPLE: crowd_columns} if crowd_columns else {}
    rankings = _rankings(rows, systems, by | {column: (column,) for column in labels.split(",")})
    if as_json:
        typer.echo(_as_json(reports, rankings))
        return
    console = Console()
    console.print(annotator_table(reports))
    if rankings:
        console.print(_ranking_table(rankings))


def _rankings(rows: Sequence[Row], systems: str | None, labels: Mapping[str, tuple[str, ...]]) -> dict[str, Ranking]:
    """The ranking of the systems by each annotator."""
    if systems is None:
        return {}
    names = systems.split(",")
    if len(names) != 2:
        raise DataError(f"--systems {systems!r}: expected two columns with a comma between, got {len(names)}.")
    return {
        who: bradley_terry(
            outcomes_of_annotations(rows, judge=who, columns=PairColumns(names[0], names[1], columns)), seed=0
        )
        for who, columns in labels.items()
    }


def _as_json(reports: Sequence[AnnotatorReport], rankings: Mapping[str, Ranking]) -> str:
    rows = [report.to_dict() for report in reports]
    for row in rows:
        ranking = rankings.get(str(row["annotator"]))
        if ranking is not None:
            row["ranking"] = [{**vars(one), "interval": list(one.interval)} for one in ranking.systems]
    return json.dumps(rows, indent=1, allow_nan=False)


def _ranking_table(rankings: Mapping[str, Ranking]) -> Table:
    """A row a system, a column an annotator; in the order of the first."""
    first = next(iter(rankings.values()))
    table = Table(
        title="Systems, strongest first: log strength (Bradley-Terry with ties), 95% interval, ranks not ruled out",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    table.add_column("")
    for name in rankings:
        table.add_column(Text(short_name(name)), justify="right")
    places = [{one.system: one for one in ranking.systems} for ranking in rankings.values()]
    for row in first.systems:
        cells = []
        for by in places:
            one = by[row.system]
            ranks = f"{one.rank_low} to {one.rank_high}"
            cells.append(f"{one.strength:+.2f} ({one.interval.low:+.2f} to {one.interval.high:+.2f}), {ranks}")
        table.add_row(Text(short_name(row.system)), *(Text(cell) for cell in cells))
    return table


def annotator_table(reports: Sequence[AnnotatorReport]) -> Table:
    """A column an annotator, so that the table fits however many measures there are; measures none has are left out."""
    table = Table(title="Annotators: percent, with 95% intervals", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for report in reports:
        table.add_column(Text(short_name(report.annotator)), justify="right", no_wrap=True)
    rows = {title: [with_interval(getattr(report, name)) for report in reports] for name, title in _MEASURES.items()}
    rows["Spearman over systems"] = [_correlation(report, "spearman") for report in reports]
    rows["Pearson over systems"] = [_correlation(report, "pearson") for report in reports]
    rows["$ per 1,000"] = [_number(report.usd_per_thousand) for report in reports]
    rows["seconds per 1,000"] = [_number(report.seconds_per_thousand) for report in reports]
    rows["parsed"] = [f"{report.parsed_count} of {report.label_count}" for report in reports]
    for title, cells in rows.items():
        if set(cells) != {"-"}:
            table.add_row(title, *cells)
    return table


_MEASURES = {
    "agreement": "agrees with the majority",
    "bias": "bias",
    "variance": "variance",
    "pairwise_agreement": "two labels agree",
    "kappa": "Cohen's kappa",
    "alpha": "Krippendorff's alpha",
    "prefer_longer": "prefers the longer",
    "prefer_list": "prefers the list",
    "prefer_first": "prefers the first",
}


def with_interval(estimate: Estimate | None) -> str:
    """The value and its 95% interval in percent; a dash where there is none."""
    if estimate is None:
        return "-"
    low, high = estimate.interval
    bounds = "" if math.isnan(low) else f" ({percent(low)} to {percent(high)})"
    return f"{percent(estimate.value)}{bounds}"


def _correlation(report: AnnotatorReport, name: str) -> str:
    found = report.spearman_pearson
    if found is None:
        return "-"
    low, high = getattr(found, f"{name}_interval")
    return f"{getattr(found, name):.2f} ({low:.2f} to {high:.2f}), {found.item_count} systems"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
