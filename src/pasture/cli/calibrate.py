"""`pasture calibrate`: how noisy and how mixed a pool must be to agree, and to vary, as people do."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pasture.annotate.campaign.address import is_campaign
from pasture.core.errors import DataError
from pasture.core.hostile import for_terminal
from pasture.core.statistics import Estimate, Floats
from pasture.core.tables import Row, read_rows, text_field
from pasture.steps.people import campaign_rows
from pasture.validate.calibration import TOLERANCE, Calibration, calibrate, shares_of
from pasture.validate.cross_annotations import Columns, CrossAnnotations, read_cross_annotations
from pasture.world.pool import POOL, Seen
from pasture.world.reading import read

PEOPLE = "people"


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command(
        "calibrate",
        epilog="Example: pasture calibrate pairs.jsonl --people human_1,human_2,human_3 --labels judge_a,judge_b",
    )(calibrate_pool)


def calibrate_pool(
    file: Annotated[
        str, typer.Argument(help="People's labels: a row a label, a row a pair, or a campaign, also on Postgres.")
    ],
    people: Annotated[
        str | None,
        typer.Option(
            "--people",
            help="Columns with people's labels, by comma, each row a pair; else column preference, a row a label.",
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Columns of FILE with the pool's labels, by comma: one a member.")
    ] = None,
    pool: Annotated[
        Path | None, typer.Option("--pool", help="The pool's labels of the same pairs: a row a label, with annotator.")
    ] = None,
    meadow: Annotated[
        bool, typer.Option("--meadow", help="The pool is the meadow's, asked about the meadow's pairs in FILE.")
    ] = False,
    pair: Annotated[
        str | None, typer.Option("--pair", help="Column that names the pair; else rows of equal texts are one pair.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Fit flips and weights of a pool to cross-annotated pairs of people; a held-out half judges the fit."""
    if sum((labels is not None, pool is not None, meadow)) != 1:
        raise DataError("say who the pool is: one of --labels COLUMNS, --pool FILE or --meadow.")
    rows = _rows(file)
    places = Columns(
        labels=tuple(people.split(",")) if people else ("preference",), pair=pair, rows_are_pairs=people is not None
    )
    crowd = _crowd(rows, places, by_annotator=people is None)
    members = _meadow(rows, crowd, places) if meadow else _members(rows, labels, pool, crowd, places)
    found = calibrate(crowd, members, seed=0)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1, allow_nan=False))
    else:
        _show(found)


def _rows(file: str | Path) -> list[Row]:
    rows = campaign_rows(str(file)) if is_campaign(str(file)) else read_rows(Path(file))
    if not rows:
        raise DataError(f"{file}: no rows.")
    return rows


def _crowd(rows: Sequence[Row], columns: Columns, *, by_annotator: bool) -> CrossAnnotations:
    """People's labels; of a file with rows of several annotators, those of the one called people."""
    names = {str(row.get(columns.annotator, PEOPLE)) for row in rows}
    if by_annotator and PEOPLE in names and len(names) > 1:
        rows = [row for row in rows if row.get(columns.annotator) == PEOPLE]
    return read_cross_annotations(rows, columns, name=PEOPLE)[PEOPLE]


def _members(
    rows: Sequence[Row], labels: str | None, pool: Path | None, crowd: CrossAnnotations, columns: Columns
) -> dict[str, Floats]:
    found: dict[str, CrossAnnotations] = {}
    if pool is not None:
        found = read_cross_annotations(_rows(pool), Columns(pair=columns.pair))
    for column in labels.split(",") if labels else ():
        one = Columns(labels=(column,), pair=columns.pair, rows_are_pairs=columns.rows_are_pairs)
        found |= read_cross_annotations(rows, one, name=column)
    return {name: shares_of(member, crowd.pairs) for name, member in found.items()}


def _meadow(rows: Sequence[Row], crowd: CrossAnnotations, columns: Columns) -> dict[str, Floats]:
    """What each of the meadow's raters would say of the pairs: chances, each answer shown first half of the time."""
    by_pair: dict[str, Row] = {}
    for number, row in enumerate(rows):
        named = read_cross_annotations([{**row, "preference": 1}], Columns(pair=columns.pair), name=PEOPLE)
        (identity,) = named[PEOPLE].pairs
        by_pair.setdefault(crowd.pairs[number] if columns.rows_are_pairs else identity, row)
    shares = {rater.name: np.zeros((len(crowd.pairs), 3)) for rater in POOL}
    for number, identity in enumerate(crowd.pairs):
        first, second = _seen(by_pair[identity], number)
        for rater in POOL:
            shown_first = rater.probability_shown_first(first, second)
            chance = (shown_first + 1 - rater.probability_shown_first(second, first)) / 2
            shares[rater.name][number] = (chance, 0.0, 1 - chance)
    return shares


def _seen(row: Row, number: int) -> tuple[Seen, Seen]:
    where = f"pair {number + 1}"
    asked, material = text_field(row, "instruction", where), text_field(row, "input", where, "")
    texts = [text_field(row, column, where) for column in ("output_1", "output_2")]
    first, second = (Seen(f"{asked} {material}".strip(), text, read(asked, material, text, "stop")) for text in texts)
    return first, second


def _show(found: Calibration) -> None:
    console = Console(highlight=False)
    table = Table(title="Pool and people, in percent", title_justify="left", box=SIMPLE_HEAD)
    for title in ("", "people", "pool", "gap, points"):
        table.add_column(title, justify="right" if title else "left")
    halves = {
        "fitted half": found.fitted,
        "held-out half": found.held_out,
        "held-out half, equal weights, no flips": found.uncalibrated,
    }
    for name, half in halves.items():
        table.add_row(f"{name} ({half.pair_count} pairs)")
        table.add_row("  agreement", *_cells(half.people_agreement, half.pool_agreement, half.agreement_gap))
        table.add_row("  variance", *_cells(half.people_variance, half.pool_variance, half.variance_gap))
    console.print(table)
    console.print(f"label_flip_probability = {found.label_flip_probability:.3f}", markup=False)
    console.print(_weights(found.weights))
    verdict = "matches" if found.matches else "does not match"
    console.print(f"The pool {verdict} people within {100 * TOLERANCE:g} points on held-out pairs.", markup=False)
    if found.left_out_count:
        text = f"  {found.left_out_count} pairs are left out, as they lack a label of an annotator or some of people's."
        console.print(text, markup=False, soft_wrap=True)
    for finding in found.findings:
        console.print(f"  {for_terminal(finding)}", markup=False, soft_wrap=True)


def _cells(people: float, pool: float, gap: Estimate) -> tuple[str, str, str]:
    low, high = (100 * bound for bound in gap.interval)
    return f"{100 * people:.1f}", f"{100 * pool:.1f}", f"{100 * gap.value:+.1f} ({low:+.1f} to {high:+.1f})"


def _weights(weights: Mapping[str, float]) -> Table:
    table = Table(title="Weights", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("annotator")
    table.add_column("weight", justify="right")
    for name, weight in weights.items():
        table.add_row(Text(for_terminal(name)), f"{weight:.3f}")
    return table
