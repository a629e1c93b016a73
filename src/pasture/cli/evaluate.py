"""`pasture evaluate`, `leaderboard` and `compare`: from answers to numbers that can be defended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pasture.cli import judges
from pasture.cli.judged import Judged, put_to_judge
from pasture.cli.options import spread
from pasture.cli.results import found_systems, write_corrected, write_findings, write_results
from pasture.core.errors import DataError
from pasture.core.hostile import for_terminal
from pasture.core.records import Instruction
from pasture.core.tables import read_rows
from pasture.data.evaluation_set import load_evaluation_set, read_instructions
from pasture.data.overlap import Overlap, require_no_overlap
from pasture.evaluate.alpaca_eval import leaderboard_csv, outcomes_of_annotations
from pasture.evaluate.alpaca_length_control import Regularizer, controlled_rates, published_order
from pasture.evaluate.audit import AuditFinding
from pasture.evaluate.board import Board, LengthControlled, build_board, comparability
from pasture.evaluate.human_corrected import CorrectedRate, corrected_rates
from pasture.evaluate.length_control import length_control
from pasture.evaluate.outcomes import Outcomes
from pasture.evaluate.outputs import Pairing, SystemOutputs, pair_outputs, read_outputs
from pasture.evaluate.ranking import Ranking, bradley_terry
from pasture.evaluate.table import board_csv, board_table, percent, shares_table, short_name, sources_table
from pasture.evaluate.win_rate import against_even
from pasture.report.content import Difference, ReportContent
from pasture.report.page import write_report
from pasture.report.summary import MEADOW
from pasture.steps.board_page import (
    audit_table,
    breakdowns,
    corrected_table,
    differences_from,
    judge_facts,
    leaderboards,
    samples,
)

Judge = Annotated[list[str], typer.Option("--judge", "-j", help=judges.HELP)]
Reference = Annotated[Path, typer.Option("--reference", "-r", help="The answers to compare with.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the tables, page, judgements and exports.")]
Instructions = Annotated[
    Path | None,
    typer.Option("--instructions", help="File of the instructions that completions or difficulties belong to."),
]
Equal = Annotated[
    bool, typer.Option("--length-control", help="Add the win rate at equal length; see docs/evaluation.md.")
]
Difficulty = Annotated[
    Path | None, typer.Option("--difficulty", help="AlpacaEval 2's length control: its instruction_difficulty.csv.")
]
Regularization = Annotated[
    Path | None, typer.Option("--regularization", help="AlpacaEval 2's length control: its df_gamed.csv.")
]
Compat = Annotated[
    str | None,
    typer.Option("--compat", help="alpaca_eval: join difficulties by row, as numbers of incomplete sets need."),
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
_MOST_DIFFERENCES = 8


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


@dataclass(frozen=True)
class LengthOptions:
    """Options: which length control is asked for."""

    title: ClassVar[str] = "Rates at equal length"
    length_control: Equal = False
    difficulty: Difficulty = None
    regularization: Regularization = None
    compat: Compat = None

    def check(self) -> None:
        """Refuse what does not go together, before anything is spent.

        Raises:
            DataError: saying which option is missing or too much.
        """
        if (self.difficulty is None) != (self.regularization is None):
            raise DataError("AlpacaEval 2's length control needs both --difficulty and --regularization.")
        if self.length_control and self.difficulty is not None:
            raise DataError("choose one: --length-control is Pasture's own, --difficulty names AlpacaEval 2's files.")
        if self.compat not in (None, "alpaca_eval"):
            raise DataError(f"--compat {self.compat!r}: expected alpaca_eval.")

    def rates(self, systems: Sequence[Outcomes], order: Sequence[Instruction]) -> dict[str, LengthControlled] | None:
        """The rate of each system at equal length, or None; `order` is the set in the order of the difficulties."""
        if self.length_control:
            return length_control(systems, seed=0)
        if self.difficulty is None or self.regularization is None:
            return None
        regularizer = Regularizer.read(self.difficulty, self.regularization)
        if self.compat == "alpaca_eval":
            return controlled_rates(systems, regularizer, None)
        return controlled_rates(systems, regularizer, published_order([one.id for one in order], regularizer))


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
    _check_same_instructions(pairings)
    overlaps = _leaks(checks.training or [], theirs, checks.allow_overlap)
    comparisons = [comparison for pairing in pairings for comparison in pairing.comparisons]
    judged = put_to_judge(judge, comparisons, theirs.system, audit=checks.audit)
    systems = judged.systems()
    numbered = instructions if length.difficulty else None
    order = load_evaluation_set(numbered).instructions if numbered else theirs.instructions
    board = build_board(systems, seed=0, judge_identity=judged.identity, length_controlled=length.rates(systems, order))
    console = Console()
    show_board(console, board, details=shown.details)
    _show_behind(console, _behind(systems, board))
    for pairing, path in zip(pairings, outputs, strict=True):
        if pairing.only_system or pairing.only_reference:
            note = f"{path}: {pairing.only_system} answers without a reference, {pairing.only_reference} missing."
            console.print(Text(for_terminal(note), style="yellow"))
    _show_overlaps(console, overlaps)
    _finish(console, judged, board, checks.people, files.out)
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
    order = load_evaluation_set(instructions).instructions if instructions and length.difficulty else ()
    systems = found_systems(folder, judge)
    board = build_board(systems, seed=0, allow_mixed=ranked.allow_mixed, length_controlled=length.rates(systems, order))
    corrected, behind = _corrected(ranked.people, systems), _behind(systems, board)
    console = Console()
    match ranked.show:
        case Show.TABLE:
            show_board(console, board, details=shown.details)
            _show_behind(console, behind)
            _show_corrected(console, corrected)
        case Show.CSV:
            typer.echo(board_csv(board), nl=False)
        case Show.JSON:
            typer.echo(board.to_json(), nl=False)
        case Show.ALPACA_EVAL:
            typer.echo(leaderboard_csv(board), nl=False)
    if ranked.ranking:
        console.print(ranking_table(bradley_terry(systems, seed=0), "Bradley-Terry (Davidson), log strength"))
    if ranked.html is not None:
        write_report(_page(f"Leaderboard of {folder.name}", board, behind, [], corrected), ranked.html)
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
    judged = put_to_judge(judge, pairing.comparisons, theirs.system, audit=audit)
    systems = judged.systems()
    length = LengthOptions(length_control=length_control)
    board = build_board(systems, seed=0, judge_identity=judged.identity, length_controlled=length.rates(systems, ()))
    console = Console()
    show_board(console, board, f"{systems[0].system} against {systems[0].reference}", details=shown.details)
    console.print(Text(_who_wins(systems[0], board)))
    _finish(console, judged, board, None, files.out)
    _gate(board, shown.fail_under)


def _who_wins(outcomes: Outcomes, board: Board) -> str:
    rate = board.rows[0].win_rate.rate
    if rate is None:
        return "Nothing could be judged, so neither wins."
    if rate == 0.5:
        return "Neither wins more often."
    winner = short_name(outcomes.system if rate > 0.5 else outcomes.reference)
    p_value = against_even(outcomes, seed=0)
    if p_value < 0.05:
        return f"{winner} wins more often, more often than chance explains (p = {p_value:.2g})."
    return f"{winner} wins more often, but chance explains that (p = {p_value:.2g})."


def _behind(systems: Sequence[Outcomes], board: Board) -> list[Difference]:
    """How far every other system is from the first, on the same instructions; none where they cannot be paired."""
    if comparability(systems) or len(board.rows) < 2 or board.rows[0].win_rate.rate is None:
        return []
    judged = [outcomes for outcomes in systems if outcomes.judged.any()]
    return differences_from(judged, board.rows[0].win_rate.system, seed=0)


def _show_behind(console: Console, behind: Sequence[Difference]) -> None:
    for one in behind[:_MOST_DIFFERENCES]:
        console.print(
            f"{short_name(one.system)} less {short_name(one.baseline)}: {100 * one.difference:+.1f} points "
            f"({100 * one.interval_low:+.1f} to {100 * one.interval_high:+.1f}), p = {one.p_value:.2g}",
            markup=False,
            highlight=False,
        )


def show_board(console: Console, board: Board, title: str = "Leaderboard", *, details: bool = False) -> None:
    """Print the board, and where asked for the tables that stand behind it."""
    console.print(board_table(board, title))
    if details:
        console.print(sources_table(board))
        console.print(shares_table(board))


def _finish(console: Console, judged: Judged, board: Board, people: Path | None, out: Path | None) -> None:
    """What an evaluation says below its leaderboard, and the files that it leaves."""
    findings = judged.findings()
    for system, both in judged.orders().items():
        console.print(
            f"{short_name(system)}: {percent(both.win_rate.value)} over both orders, "
            f"{percent(both.flip_rate.value)} of {both.both} verdicts turned with the order.",
            markup=False,
            highlight=False,
        )
    for finding in findings:
        console.print(Text(finding.sentence(), style="red" if finding.alarming else ""))
    corrected = _corrected(people, judged.systems())
    _show_corrected(console, corrected)
    console.print(Text(judged.cost()))
    if out is None:
        return
    names = ", ".join(row.win_rate.system for row in board.rows[:3])
    title = f"{names}{' and others' if len(board.rows) > 3 else ''} against {judged.reference}"
    page = _page(title, board, _behind(judged.systems(), board), findings, corrected)
    shown = {judged.judge: judged.preferences}
    page = page.model_copy(update={"samples": samples(judged.comparisons, shown, SAMPLE_COUNT)})
    write_results(out, judged, board, page)
    if findings:
        write_findings(out, findings)
    if corrected:
        write_corrected(out, corrected)
    console.print(f"Page: {out / 'leaderboard.html'}", markup=False, soft_wrap=True)


def _page(
    title: str,
    board: Board,
    behind: Sequence[Difference],
    findings: Sequence[AuditFinding],
    corrected: Mapping[str, Sequence[CorrectedRate]],
) -> ReportContent:
    boards = leaderboards(board, differences=behind)
    rows = {one.title: [row.to_dict() for row in board.rows if row.win_rate.judge == one.title] for one in boards}
    tables = [table for name, own in rows.items() for table in breakdowns(name, own)]
    tables += [corrected_table(corrected)] if corrected else []
    tables += [audit_table(findings)] if findings else []
    meadow = any(one.split(" #")[0] in judges.MEADOW for one in rows)
    return ReportContent(
        title=title,
        date=board.date or "",
        testbed=MEADOW if meadow else "",
        leaderboards=tuple(boards),
        breakdowns=tuple(tables),
        facts=tuple(judge_facts(board)),
        warnings=(*board.warnings, *(found.sentence() for found in findings if found.alarming)),
    )


def _check_same_instructions(pairings: Sequence[Pairing]) -> None:
    """Refuse before money is spent what the board would refuse after."""
    if len({frozenset(row.instruction.id for row in pairing.comparisons) for pairing in pairings}) > 1:
        counts = ", ".join(str(len(pairing.comparisons)) for pairing in pairings)
        raise DataError(
            f"the systems answered different instructions of the reference ({counts}), so their rates cannot be "
            "ranked. Evaluate them one by one with --out, then ask for pasture leaderboard --allow-mixed."
        )


def _leaks(training: Sequence[Path], theirs: SystemOutputs, allow: bool) -> list[Overlap]:
    trained = [one for path in training for one in read_instructions(path, split=path.name)]
    return require_no_overlap(trained, theirs.instructions, allow=allow, repair="pass --allow-overlap")


def _show_overlaps(console: Console, overlaps: Sequence[Overlap]) -> None:
    if overlaps:
        said = f"{len(overlaps)} instructions were also trained on, the first {overlaps[0].similarity:.0%} the same."
        console.print(Text(said, style="yellow"))


def _corrected(people: Path | None, systems: Sequence[Outcomes]) -> dict[str, list[CorrectedRate]]:
    return {} if people is None else corrected_rates(systems, outcomes_of_annotations(read_rows(people)), seed=0)


def _show_corrected(console: Console, corrected: Mapping[str, Sequence[CorrectedRate]]) -> None:
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


def ranking_table(ranking: Ranking, title: str) -> Table:
    """Strengths and ranks, with the intervals of both."""
    table = Table(title=title, title_justify="left")
    for name in ("rank", "ranks at 95%", "system", "strength", "95% interval", "judged"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for row in ranking.systems:
        bounds = f"{row.interval.low:+.2f} to {row.interval.high:+.2f}"
        cells = [str(row.rank), f"{row.rank_low} to {row.rank_high}", short_name(row.system), f"{row.strength:+.2f}"]
        table.add_row(*(Text(cell) for cell in [*cells, bounds, str(row.judged)]))
    return table
