"""`pasture evaluate`, `leaderboard`, `compare` and `analyze-annotators`: from answers and labels to numbers."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pasture.cli import judges
from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records, write_text
from pasture.core.hostile import for_terminal, on_one_line
from pasture.core.records import Comparison, Preference
from pasture.core.statistics import Estimate
from pasture.core.tables import read_rows
from pasture.evaluate.alpaca_eval import annotation_rows, leaderboard_csv, outcomes_of_annotations
from pasture.evaluate.audit import AuditFinding, audit_comparisons, audit_findings
from pasture.evaluate.board import Board, LengthControlled, build_board
from pasture.evaluate.length_control import length_control
from pasture.evaluate.outcomes import Outcomes, outcomes_of
from pasture.evaluate.outputs import Pairing, pair_outputs, read_outputs
from pasture.evaluate.ranking import bradley_terry
from pasture.evaluate.table import board_csv, board_table, percent
from pasture.evaluate.win_rate import against_even
from pasture.validate.agreement import AnnotatorReport, analyze
from pasture.validate.cross_annotations import Columns, CrossAnnotations, read_cross_annotations

Judge = Annotated[list[str], typer.Option("--judge", "-j", help=judges.HELP)]
Reference = Annotated[Path, typer.Option("--reference", "-r", help="The answers to compare with.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the tables, judgements and exports.")]
LengthControl = Annotated[
    bool, typer.Option("--length-control", help="Add the win rate at equal length; see docs/evaluation.md.")
]
Audit = Annotated[
    bool, typer.Option("--audit", help="Also judge a constant, an empty, a copied and an injecting answer.")
]
FailUnder = Annotated[
    float | None,
    typer.Option("--fail-under", min=0, max=100, help="Leave with code 1 if a win rate is below so many percent."),
]
AllowMixed = Annotated[
    bool,
    typer.Option("--allow-mixed", help="Rank systems of different judges, references or instructions all the same."),
]


class Show(StrEnum):
    """What a verb prints."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    ALPACA_EVAL = "alpaca-eval"


Format = Annotated[Show, typer.Option("--format", "-f", help="What to print.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(
        "evaluate",
        epilog="Example: pasture evaluate outputs.json --reference reference.json --judge alpaca-eval-2 "
        "--judge models=gpt-4.1 --judge budget_usd=5 --audit --length-control --out results",
    )(evaluate)
    app.command("leaderboard", epilog="Example: pasture leaderboard results --length-control --format csv")(leaderboard)
    app.command("compare", epilog="Example: pasture compare new.json old.json --judge meadow-people")(compare)
    app.command(
        "analyze-annotators",
        epilog="Example: pasture analyze-annotators pairs.jsonl --people human_1,human_2,human_3 --labels gpt35",
    )(analyze_annotators)


def evaluate(
    outputs: Annotated[list[Path], typer.Argument(help="Systems' answers, AlpacaEval's model_outputs or alike.")],
    reference: Reference,
    judge: Judge,
    out: Out = None,
    length_control: LengthControl = False,
    audit: Audit = False,
    fail_under: FailUnder = None,
) -> None:
    """Judge systems' answers against a reference's and print the leaderboard."""
    theirs = read_outputs(reference)
    pairings = [pair_outputs(read_outputs(path), theirs) for path in outputs]
    _check_same_instructions(pairings)
    comparisons = [comparison for pairing in pairings for comparison in pairing.comparisons]
    tricks = audit_comparisons(comparisons, theirs.system) if audit else []
    with judges.open_judge(judge) as (name, annotator):
        preferences = annotator.annotate(comparisons)
        audited = annotator.annotate(tricks) if tricks else []
        identity = annotator.identity
    systems = outcomes_of(preferences, comparisons, judge=name, reference=theirs.system, credit="probability")
    board = build_board(
        systems,
        seed=0,
        judge_identity=identity,
        date=datetime.now(UTC).date().isoformat(),
        length_controlled=_controlled(systems) if length_control else None,
    )
    findings = audit_findings(audited, tricks, reference=theirs.system, judge=name, seed=0) if tricks else []
    console = Console()
    console.print(board_table(board))
    for pairing, path in zip(pairings, outputs, strict=True):
        if pairing.only_system or pairing.only_reference:
            note = f"{path}: {pairing.only_system} answers without a reference, {pairing.only_reference} missing."
            console.print(Text(for_terminal(note), style="yellow"))
    for finding in findings:
        console.print(Text(finding.sentence(), style="red" if finding.alarming else ""))
    console.print(_cost([*preferences, *audited]))
    if out is not None:
        _write(out, board, comparisons, preferences, findings)
    _gate(board, fail_under)


def leaderboard(
    folder: Annotated[Path, typer.Argument(help="Holds annotations.json files, or what evaluate --out wrote.")],
    length_control: LengthControl = False,
    allow_mixed: AllowMixed = False,
    ranking: Annotated[bool, typer.Option("--ranking", help="Add Bradley-Terry strengths and ranks.")] = False,
    show: Format = Show.TABLE,
    fail_under: FailUnder = None,
) -> None:
    """Rank the systems whose judgements lie in a folder; nothing is asked or spent."""
    systems = _found(folder)
    board = build_board(
        systems,
        seed=0,
        allow_mixed=allow_mixed,
        length_controlled=_controlled(systems) if length_control else None,
    )
    console = Console()
    match show:
        case Show.TABLE:
            console.print(board_table(board))
        case Show.CSV:
            typer.echo(board_csv(board), nl=False)
        case Show.JSON:
            typer.echo(board.to_json(), nl=False)
        case Show.ALPACA_EVAL:
            typer.echo(leaderboard_csv(board), nl=False)
    if ranking:
        console.print(_ranking_table(systems))
    _gate(board, fail_under)


def compare(
    a: Annotated[Path, typer.Argument(help="Answers of one system.")],
    b: Annotated[Path, typer.Argument(help="Answers of the other.")],
    judge: Judge,
    out: Out = None,
    fail_under: FailUnder = None,
) -> None:
    """Say which of two systems wins, whether that is more than chance, and what it cost to know."""
    pairing = pair_outputs(read_outputs(a), theirs := read_outputs(b))
    with judges.open_judge(judge) as (name, annotator):
        preferences = annotator.annotate(pairing.comparisons)
        identity = annotator.identity
    [outcomes] = outcomes_of(
        preferences, pairing.comparisons, judge=name, reference=theirs.system, credit="probability"
    )
    board = build_board([outcomes], seed=0, judge_identity=identity)
    console = Console()
    console.print(board_table(board, f"{outcomes.system} against {outcomes.reference}"))
    record = board.rows[0].win_rate
    if record.rate is not None:
        p_value = against_even(outcomes, seed=0)
        winner = outcomes.system if record.rate > 0.5 else outcomes.reference
        real = (
            f"more often than chance explains (p = {p_value:.2g})"
            if p_value < 0.05
            else (f"but chance explains that (p = {p_value:.2g})")
        )
        ahead = "Neither wins more often" if record.rate == 0.5 else f"{on_one_line(winner)} wins more often, {real}"
        console.print(Text(f"{ahead}."))
    console.print(_cost(preferences))
    if out is not None:
        _write(out, board, pairing.comparisons, preferences, [])
    _gate(board, fail_under)


def analyze_annotators(
    file: Annotated[Path, typer.Argument(help="Pairs with labels: a row a label, or a row a pair.")],
    people: Annotated[
        str | None, typer.Option("--people", help="People's labels: a file like FILE, or columns of FILE by comma.")
    ] = None,
    labels: Annotated[
        str, typer.Option("--labels", help="Columns that hold labels, by comma; each is one annotator's.")
    ] = "preference",
    system: Annotated[
        str | None, typer.Option("--system", help="Column that names the second answer's system.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Measure annotators: agreement with people, bias, variance, leanings, price, each with its interval."""
    rows = read_rows(file)
    found: dict[str, CrossAnnotations] = {}
    for column in labels.split(","):
        name = None if column == "preference" else column
        found |= read_cross_annotations(rows, Columns(labels=(column,), system=system), name=name)
    crowd = None
    if people is not None and Path(people).suffix:
        crowd = read_cross_annotations(read_rows(Path(people)), Columns(system=system), name="people")["people"]
    elif people is not None:
        columns = Columns(labels=tuple(people.split(",")), system=system)
        crowd = read_cross_annotations(rows, columns, name="people")["people"]
    reports = [analyze(annotator, crowd, seed=0) for annotator in found.values()]
    if crowd is not None:
        reports.append(analyze(crowd, crowd, seed=0))
    if as_json:
        typer.echo(json.dumps([report.to_dict() for report in reports], indent=1, allow_nan=False))
    else:
        Console().print(_annotator_table(reports))


def _check_same_instructions(pairings: Sequence[Pairing]) -> None:
    """Refuse before money is spent what the board would refuse after."""
    if len({frozenset(row.instruction.id for row in pairing.comparisons) for pairing in pairings}) > 1:
        counts = ", ".join(str(len(pairing.comparisons)) for pairing in pairings)
        raise DataError(
            f"the systems answered different instructions of the reference ({counts}), so their rates cannot be "
            "ranked. Evaluate them one by one with --out, then ask for pasture leaderboard --allow-mixed."
        )


def _controlled(systems: Sequence[Outcomes]) -> dict[str, LengthControlled]:
    return length_control(systems, seed=0)


def _found(folder: Path) -> list[Outcomes]:
    systems: list[Outcomes] = []
    for path in sorted(folder.rglob("comparisons.jsonl")):
        comparisons = read_records(path, Comparison)
        preferences = read_records(path.with_name("preferences.jsonl"), Preference)
        facts = json.loads(path.with_name("leaderboard.json").read_text(encoding="utf-8"))["rows"][0]["win_rate"]
        systems += outcomes_of(
            preferences, comparisons, judge=facts["judge"], reference=facts["reference"], credit="probability"
        )
    ours = {path.parent for path in folder.rglob("comparisons.jsonl")}
    for path in sorted(folder.rglob("annotations.json")):
        if path.parent.parent not in ours:
            systems += outcomes_of_annotations(read_rows(path))
    if not systems:
        raise DataError(f"{folder}: found no annotations.json and no comparisons.jsonl in it or below.")
    return systems


def _write(
    out: Path,
    board: Board,
    comparisons: Sequence[Comparison],
    preferences: Sequence[Preference],
    findings: Sequence[AuditFinding],
) -> None:
    write_records(out / "comparisons.jsonl", comparisons)
    write_records(out / "preferences.jsonl", preferences)
    write_text(out / "leaderboard.json", board.to_json())
    write_text(out / "leaderboard.csv", board_csv(board))
    rows = annotation_rows(preferences, comparisons)
    write_text(out / "alpaca_eval/annotations.json", json.dumps(rows, indent=2, allow_nan=False) + "\n")
    write_text(out / "alpaca_eval/leaderboard.csv", leaderboard_csv(board))
    if findings:
        rows = [{"finding": row.sentence(), "alarming": row.alarming, **row.win_rate.model_dump()} for row in findings]
        write_text(out / "audit.json", json.dumps(rows, indent=1, allow_nan=False) + "\n")


def _cost(preferences: Sequence[Preference]) -> Text:
    costs = [preference.cost_usd for preference in preferences]
    known = sum(cost for cost in costs if cost is not None)
    unknown = costs.count(None)
    more = f", {unknown} judgements of unknown price" if unknown else ""
    return Text(f"{len(costs)} judgements, ${known:.4f}{more}.")


def _gate(board: Board, fail_under: float | None) -> None:
    if fail_under is None:
        return
    low = [
        f"{on_one_line(row.win_rate.system)} {percent(row.win_rate.rate)}"
        for row in board.rows
        if row.win_rate.rate is None or 100 * row.win_rate.rate < fail_under
    ]
    if low:
        typer.echo(f"Below {fail_under:g}%: {', '.join(low)}.", err=True)
        raise typer.Exit(1)


def _ranking_table(systems: Sequence[Outcomes]) -> Table:
    ranking = bradley_terry(systems, seed=0)
    table = Table(title="Bradley-Terry (Davidson), log strength", title_justify="left")
    for name in ("rank", "ranks at 95%", "system", "strength", "95% interval", "judged"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for row in ranking.systems:
        bounds = f"{row.interval.low:+.2f} to {row.interval.high:+.2f}"
        cells = [str(row.rank), f"{row.rank_low} to {row.rank_high}", on_one_line(row.system), f"{row.strength:+.2f}"]
        table.add_row(*(Text(cell) for cell in [*cells, bounds, str(row.judged)]))
    return table


def _annotator_table(reports: Sequence[AnnotatorReport]) -> Table:
    """A column an annotator, so that the table fits however many measures there are."""
    table = Table(title="Annotators: percent, with 95% intervals", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for report in reports:
        table.add_column(Text(on_one_line(report.annotator)), justify="right")
    for name, title in _MEASURES.items():
        table.add_row(title, *(_with_interval(getattr(report, name)) for report in reports))
    table.add_row("Spearman over systems", *(_spearman(report) for report in reports))
    table.add_row("$ per 1,000", *(_number(report.usd_per_thousand) for report in reports))
    table.add_row("seconds per 1,000", *(_number(report.seconds_per_thousand) for report in reports))
    table.add_row("parsed", *(f"{report.parsed_count} of {report.label_count}" for report in reports))
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


def _with_interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    low, high = estimate.interval
    bounds = "" if math.isnan(low) else f" ({percent(low)} to {percent(high)})"
    return f"{percent(estimate.value)}{bounds}"


def _spearman(report: AnnotatorReport) -> str:
    found = report.spearman_pearson
    return "-" if found is None else f"{found.spearman:.2f} ({found.item_count} systems)"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
