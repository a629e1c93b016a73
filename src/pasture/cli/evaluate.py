"""`pasture evaluate`, `leaderboard` and `compare`: from answers to numbers that can be defended."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from rich.console import Console
from rich.text import Text

from pasture.cli import judges
from pasture.cli.board_screen import ranking_table, show_behind, show_board, show_corrected, show_overlaps
from pasture.cli.judged import Judged, check_labels, check_pairings, put_to_judge, who_wins
from pasture.cli.length_options import Equal, LengthControl, LengthOptions
from pasture.cli.options import spread
from pasture.cli.results import (
    Beside,
    board_json,
    check_writable,
    found_systems,
    results_page,
    with_corrections,
    write_corrected,
    write_judgements,
    write_results,
)
from pasture.core.errors import DataError, PastureError
from pasture.core.hostile import for_terminal
from pasture.core.tables import read_rows
from pasture.data.evaluation_set import load_evaluation_set, read_instructions
from pasture.data.overlap import Overlap, require_no_overlap
from pasture.evaluate.alpaca_eval import leaderboard_csv, outcomes_of_annotations
from pasture.evaluate.board import Board, build_board
from pasture.evaluate.doubts import comparability
from pasture.evaluate.human_corrected import corrected_rates
from pasture.evaluate.outcomes import Outcomes, outcomes_of
from pasture.evaluate.outputs import SystemOutputs, pair_outputs, read_outputs
from pasture.evaluate.ranking import bradley_terry
from pasture.evaluate.table import board_csv, percent, short_name
from pasture.report.content import Difference
from pasture.report.page import write_report
from pasture.steps.board_page import differences_from, samples

Judge = Annotated[list[str], typer.Option("--judge", "-j", help=judges.HELP)]
Reference = Annotated[Path, typer.Option("--reference", "-r", help="The answers to compare with.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the tables, page, judgements and exports.")]
Instructions = Annotated[
    Path | None,
    typer.Option("--instructions", help="File of the instructions that completions or difficulties belong to."),
]
Details = Annotated[bool, typer.Option("--details", "-d", help="Add rates by source, lengths and shares.")]
People = Annotated[
    Path | None, typer.Option("--people", help="People's labels of some pairs, as annotations: corrects the judge.")
]
Training = Annotated[
    list[Path] | None, typer.Option("--training", help="Instructions trained on; refuse those that leak. Repeatable.")
]
AllowOverlap = Annotated[bool, typer.Option("--allow-overlap", help="Report leaks in place of refusing them.")]
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

SAMPLE_COUNT = 6


class Show(StrEnum):
    """What a verb prints."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    ALPACA_EVAL = "alpaca-eval"


Format = Annotated[Show, typer.Option("--format", "-f", help="What to print.")]


@dataclass(frozen=True)
class Files:
    """Options: what is read beside the answers, and what is left."""

    title: ClassVar[str] = "Files"
    instructions: Instructions = None
    out: Out = None


@dataclass(frozen=True)
class Shown:
    """Options: what is shown, and what counts as failed."""

    title: ClassVar[str] = "What is shown"
    details: Details = False
    fail_under: FailUnder = None


@dataclass(frozen=True)
class Checks:
    """Options: what is checked beside the answers' win rates."""

    title: ClassVar[str] = "Checks"
    people: People = None
    audit: Audit = False
    training: Training = None
    allow_overlap: AllowOverlap = False


@dataclass(frozen=True)
class Ranked:
    """Options: what is ranked, and in which form."""

    title: ClassVar[str] = "The ranking"
    people: People = None
    allow_mixed: AllowMixed = False
    ranking: Annotated[bool, typer.Option("--ranking", help="Add Bradley-Terry strengths and ranks.")] = False
    show: Format = Show.TABLE
    html: Annotated[Path | None, typer.Option("--html", help="Also write the board as a page.")] = None


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(
        "evaluate",
        epilog="Example: pasture evaluate outputs.json --reference reference.json --judge alpaca-eval-2 "
        "--judge models=gpt-4.1 --judge budget_usd=5 --audit --length-control --out results",
    )(evaluate)
    app.command("leaderboard", epilog="Example: pasture leaderboard results --length-control --format csv")(leaderboard)
    app.command("compare", epilog="Example: pasture compare new.json old.json --judge meadow-people")(compare)


@spread
def evaluate(
    outputs: Annotated[list[Path], typer.Argument(help="Systems' answers: AlpacaEval's model_outputs, or records.")],
    *,
    reference: Reference,
    judge: Judge,
    files: Files,
    length: LengthOptions,
    checks: Checks,
    shown: Shown,
) -> None:
    """Judge systems' answers against a reference's and print the leaderboard."""
    length.check()
    instructions = files.instructions
    theirs = read_outputs(reference, instructions=instructions)
    pairings = [pair_outputs(read_outputs(path, instructions=instructions), theirs) for path in outputs]
    check_pairings(pairings)
    overlaps = _leaks(checks.training or [], theirs, checks.allow_overlap)
    comparisons = [comparison for pairing in pairings for comparison in pairing.comparisons]
    asked = outcomes_of([], comparisons, judge="nobody yet", reference=theirs.system)
    numbered = instructions if length.difficulty else None
    control = length.control(load_evaluation_set(numbered).instructions if numbered else theirs.instructions)
    if control is not None:
        control.check(asked)
    labels = _labels(checks.people)
    if labels is not None:
        check_labels(labels, asked)
    check_writable(files.out)
    judged = put_to_judge(judge, comparisons, theirs.system, audit=checks.audit)
    console = Console()
    board = _kept_board(console, judged, control, files.out)
    show_board(console, board, details=shown.details)
    behind = _behind(judged.systems(), board)
    show_behind(console, behind)
    for pairing, path in zip(pairings, outputs, strict=True):
        if pairing.only_system or pairing.only_reference:
            note = f"{path}: {pairing.only_system} answers without a reference, {pairing.only_reference} missing."
            console.print(Text(for_terminal(note), style="yellow"))
    show_overlaps(console, overlaps)
    _finish(console, judged, board, behind, labels, files.out)
    _gate(board, shown.fail_under)


@spread
def leaderboard(
    folder: Annotated[Path, typer.Argument(help="Results of evaluate --out, a run folder, or annotations.json files.")],
    *,
    judge: Annotated[str | None, typer.Option("--judge", "-j", help="Count this judge's judgements alone.")] = None,
    instructions: Instructions = None,
    length: LengthOptions,
    ranked: Ranked,
    shown: Shown,
) -> None:
    """Rank the systems whose judgements lie in a folder; nothing is asked or spent."""
    length.check()
    if length.difficulty is not None and length.compat is None and instructions is None:
        raise DataError(
            "name the file that holds the instructions in the order of the difficulties with --instructions, or join "
            "by row with --compat alpaca_eval."
        )
    if instructions is not None and length.difficulty is None:
        raise DataError("--instructions gives the order of the difficulties: name --difficulty too, or leave it out.")
    if shown.details and ranked.show is not Show.TABLE:
        raise DataError(f"--details is shown under the table alone: leave it or --format {ranked.show.value} out.")
    order = load_evaluation_set(instructions).instructions if instructions else ()
    control = length.control(order)
    labels = _labels(ranked.people)
    found = found_systems(folder, judge)
    board = build_board(
        found.systems,
        seed=0,
        judge_identity=found.identity(),
        allow_mixed=ranked.allow_mixed,
        length_controlled=None if control is None else control.rates(found.systems),
    )
    corrected = None if labels is None else corrected_rates(found.systems, labels, seed=0)
    ranking = bradley_terry(found.systems, seed=0) if ranked.ranking else None
    pairs_shown = ranked.show in (Show.TABLE, Show.JSON) or ranked.html is not None
    behind = _behind(found.systems, board) if pairs_shown else []
    # What a machine reads stands alone on the standard output.
    console = Console(stderr=ranked.show is not Show.TABLE)
    match ranked.show:
        case Show.TABLE:
            show_board(console, board, details=shown.details)
            show_behind(console, behind)
        case Show.CSV:
            typer.echo(board_csv(board), nl=False)
        case Show.JSON:
            typer.echo(board_json(board, Beside(behind, ranking=ranking, corrected=corrected)), nl=False)
        case Show.ALPACA_EVAL:
            typer.echo(leaderboard_csv(board), nl=False)
    show_corrected(console, corrected or {})
    if ranking is not None:
        console.print(ranking_table(ranking, "Bradley-Terry (Davidson), log strength"))
    if ranked.html is not None:
        page = results_page(f"Leaderboard of {folder.name}", board, behind, identities=found.identities)
        write_report(with_corrections(page, corrected or {}), ranked.html)
    _gate(board, shown.fail_under)


@spread
def compare(
    a: Annotated[Path, typer.Argument(help="Answers of one system.")],
    b: Annotated[Path, typer.Argument(help="Answers of the other.")],
    *,
    judge: Judge,
    files: Files,
    length_control: Equal = False,
    audit: Audit = False,
    shown: Shown,
) -> None:
    """Say which of two systems wins, whether that is more than chance, and what it cost to know."""
    theirs = read_outputs(b, instructions=files.instructions)
    pairing = pair_outputs(read_outputs(a, instructions=files.instructions), theirs)
    check_writable(files.out)
    judged = put_to_judge(judge, pairing.comparisons, theirs.system, audit=audit)
    [outcomes] = judged.systems()
    console = Console()
    board = _kept_board(console, judged, LengthControl() if length_control else None, files.out)
    show_board(console, board, f"{outcomes.system} against {outcomes.reference}", details=shown.details)
    console.print(Text(who_wins(outcomes, board)))
    if pairing.only_system or pairing.only_reference:
        note = (
            f"Compared on {len(pairing.comparisons)} instructions; left out are {pairing.only_system} that only {a} "
            f"answers and {pairing.only_reference} that only {b} answers."
        )
        console.print(Text(for_terminal(note), style="yellow"))
    _finish(console, judged, board, [], None, files.out)
    _gate(board, shown.fail_under)


def _behind(systems: Sequence[Outcomes], board: Board) -> list[Difference]:
    """How far every other system is from the first, on the same instructions; none where they cannot be paired."""
    if comparability(systems) or len(board.rows) < 2 or board.rows[0].win_rate.rate is None:
        return []
    judged = [outcomes for outcomes in systems if outcomes.judged.any()]
    return differences_from(judged, board.rows[0].win_rate.system, seed=0)


def _kept_board(console: Console, judged: Judged, control: LengthControl | None, out: Path | None) -> Board:
    """The board, with rates at equal length where asked for; judgements are written before these are computed."""
    systems = judged.systems()
    board = build_board(systems, seed=0, judge_identity=judged.identity)
    if out is not None:
        write_judgements(out, judged, board)
    if control is None:
        return board
    try:
        rates = control.rates(systems)
    except PastureError:
        show_board(console, board)
        raise
    return build_board(systems, seed=0, judge_identity=judged.identity, length_controlled=rates)


def _finish(
    console: Console,
    judged: Judged,
    board: Board,
    behind: Sequence[Difference],
    labels: Sequence[Outcomes] | None,
    out: Path | None,
) -> None:
    """What an evaluation says below its leaderboard, and the files that it leaves; corrections come last."""
    findings, orders, systems = judged.findings(), judged.orders(), judged.systems()
    for system, both in orders.items():
        console.print(
            f"{short_name(system)}: {percent(both.win_rate.value)} over both orders, "
            f"{percent(both.flip_rate.value)}% of {both.both} verdicts turned with the order.",
            markup=False,
            highlight=False,
        )
    for finding in findings:
        console.print(Text(finding.sentence(), style="red" if finding.alarming else ""))
    console.print(Text(judged.cost()))
    failures = judged.failures()
    if failures:
        console.print(Text(failures, style="yellow"))
    names = ", ".join(row.win_rate.system for row in board.rows[:3])
    title = f"{names}{' and others' if len(board.rows) > 3 else ''} against {judged.reference}"
    page = results_page(title, board, behind, findings, {judged.judge: judged.identity})
    shown = {judged.judge: judged.preferences}
    told = {"samples": samples(judged.comparisons, shown, SAMPLE_COUNT)}
    page = page.model_copy(update={**told, "warnings": (*page.warnings, *filter(None, [failures]))})
    if out is not None:
        can_rank = any(one.judged.any() and one.system != one.reference for one in systems)
        write_results(out, judged, board, page, bradley_terry(systems, seed=0) if can_rank else None)
    if labels is not None:
        corrected = corrected_rates(systems, labels, seed=0)
        show_corrected(console, corrected)
        if out is not None:
            write_corrected(out, corrected)
            write_report(with_corrections(page, corrected), out / "leaderboard.html")
    if out is not None:
        console.print(f"Page: {out / 'leaderboard.html'}", markup=False, soft_wrap=True)


def _leaks(training: Sequence[Path], theirs: SystemOutputs, allow: bool) -> list[Overlap]:
    trained = [one for path in training for one in read_instructions(path, split=path.name)]
    return require_no_overlap(trained, theirs.instructions, allow=allow, repair="pass --allow-overlap")


def _labels(people: Path | None) -> list[Outcomes] | None:
    return None if people is None else outcomes_of_annotations(read_rows(people))


def _gate(board: Board, fail_under: float | None) -> None:
    if fail_under is None:
        return
    low = [
        f"{short_name(row.win_rate.system)} {percent(row.win_rate.rate)}"
        for row in board.rows
        if row.win_rate.rate is None or 100 * row.win_rate.rate < fail_under
    ]
    if low:
        typer.echo(f"Below {fail_under:g}%: {', '.join(low)}.", err=True)
        raise typer.Exit(1)
