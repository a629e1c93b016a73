"""`pasture demo`: recorded answers of the meadow's systems, judged and ranked in seconds, with nothing to install."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import pasture
from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.cli.analyze import with_interval
from pasture.cli.judged import Judged
from pasture.cli.results import write_results
from pasture.core.files import write_text
from pasture.core.ports import Annotator
from pasture.core.records import Comparison, Completion
from pasture.core.seeds import uniform
from pasture.data.recorded import RecordedAnswers, read_recorded
from pasture.evaluate.board import Board, build_board
from pasture.evaluate.length_control import EqualLength, equal_length
from pasture.evaluate.outcomes import judge_label
from pasture.evaluate.table import percent
from pasture.report.content import Fact, ReportContent
from pasture.report.page import write_report
from pasture.report.summary import MEADOW, sentences
from pasture.steps.board_page import annotators_table, breakdowns, differences_among, leaderboards, samples
from pasture.steps.validate import LABELS_PER_PAIR, label_rows, meadow_crowds
from pasture.validate.agreement import AnnotatorReport, analyze
from pasture.validate.cross_annotations import Columns, read_cross_annotations

FLIPS = 0.25
PEOPLE_VOTES = 3
SEED = 0
BASELINE = "sft"
_SAMPLE_COUNT = 8

PEOPLE, POOL, NOISY = "people (hidden)", "simulated annotators", "simulated, 25% label noise"
"""The judges, as the report calls them."""

_FOLDERS = {PEOPLE: "people", POOL: "pool", NOISY: "noisy-pool"}


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command("demo", epilog="Example: pasture demo --out runs/demo")(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report, tables and answers.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Judge and rank four recorded systems: no key, no model, no network, a few seconds."""
    console = Console()
    recorded = read_recorded()
    console.print(
        f"Answers of {len(recorded.systems)} systems to {len(recorded.instructions)} instructions, recorded in the "
        "meadow, the miniature world inside Pasture.\nThree judges compare each answer with a demonstration.",
        highlight=False,
    )
    judged = _judge(recorded)
    controls = {title: equal_length(one.systems(), seed=SEED) for title, one in judged.items()}
    boards = {title: _board(one, controls[title]) for title, one in judged.items()}
    reports = _annotators(recorded)
    console.print()
    console.print(_rates_table(boards))
    console.print(_annotators_table(reports))
    page = _page(judged, boards, controls, reports)
    for sentence in sentences(page.leaderboards, page.baseline):
        console.print(Text(sentence))
    _write(out, recorded, judged, boards, page)
    console.print(
        f"\nReport: {out / 'index.html'}\nNext, the same with any two files of answers:\n"
        f"  pasture compare {out}/answers/ppo.json {out}/answers/best_of_n.json --judge meadow-people\n"
        f"  pasture leaderboard {out}/pool --details --ranking",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _judge(recorded: RecordedAnswers) -> dict[str, Judged]:
    judges: dict[str, tuple[str, Annotator]] = {
        PEOPLE: ("meadow-people", MeadowPeople(seed=SEED, votes=PEOPLE_VOTES)),
        POOL: ("meadow-pool", MeadowPool(seed=SEED, label_flip_probability=0.0)),
        NOISY: ("meadow-pool", MeadowPool(seed=SEED, label_flip_probability=FLIPS)),
    }
    comparisons = [row for system in recorded.systems for row in recorded.comparisons(system)]
    return {
        title: Judged(
            judge=judge_label(name, annotator.identity),
            identity=dict(annotator.identity),
            date=datetime.now(UTC).date().isoformat(),
            credit="verdict",
            reference=recorded.reference[0].system,
            comparisons=comparisons,
            preferences=annotator.annotate(comparisons),
        )
        for title, (name, annotator) in judges.items()
    }


def _board(judged: Judged, controlled: EqualLength) -> Board:
    return build_board(judged.systems(), seed=SEED, judge_identity=judged.identity, length_controlled=controlled.rates)


def _annotators(recorded: RecordedAnswers) -> list[AnnotatorReport]:
    """What people, the pool and the noisy pool are worth, on pairs of two systems' answers drawn by content."""
    pairs = []
    for place, instruction in enumerate(recorded.instructions):
        drawn = sorted(recorded.systems, key=lambda name: uniform(SEED, "demo-pair", instruction.id, name))
        first, second = (recorded.systems[name][place] for name in drawn[:2])
        if first.text != second.text:
            pairs.append(Comparison.of(instruction, first, second))
    crowds = meadow_crowds(FLIPS)
    rows = [row for name, crowd in crowds.items() for row in label_rows(name, crowd, pairs)]
    found = read_cross_annotations(rows, Columns())
    return [analyze(found[name], found["people"], SEED) for name in crowds]


def _rates_table(boards: dict[str, Board]) -> Table:
    """All judges side by side, systems in the order of the first."""
    table = Table(
        title="Win rate against the demonstrations: percent ± standard error", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("system")
    for name in ("by people", "by the pool", "by the pool, 25% flips", "by people, at equal length"):
        table.add_column(name, justify="right", max_width=14)
    table.add_column("characters", justify="right")
    rows = {title: {row.win_rate.system: row for row in board.rows} for title, board in boards.items()}
    for system, row in rows[PEOPLE].items():
        rates = [by[system].win_rate for by in rows.values()]
        shown = [f"{percent(rate.rate)} ± {percent(rate.standard_error)}" for rate in rates]
        controlled = row.length_controlled
        equal = "-" if controlled is None else f"{percent(controlled.rate)} ± {percent(controlled.standard_error)}"
        table.add_row(system, *shown, equal, f"{row.win_rate.mean_length:.0f}")
    return table


def _annotators_table(reports: Sequence[AnnotatorReport]) -> Table:
    """A row an annotator; the page holds more."""
    table = Table(title="Annotators, four labels a pair: percent", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for name in ("agrees with people (95% interval)", "bias", "variance", "prefers longer"):
        table.add_column(name, justify="right", max_width=20)
    for report in reports:
        values = (report.bias, report.variance, report.prefer_longer)
        cells = ["-" if value is None else percent(value.value) for value in values]
        table.add_row(report.annotator, with_interval(report.agreement), *cells)
    return table


def _page(
    judged: dict[str, Judged],
    boards: dict[str, Board],
    controls: dict[str, EqualLength],
    reports: Sequence[AnnotatorReport],
) -> ReportContent:
    first = judged[PEOPLE]
    rows = [row.to_dict() for row in boards[PEOPLE].rows]
    shown = {title: judged[title].preferences for title in (PEOPLE, POOL)}
    return ReportContent(
        title="Which of four systems is best, and who says so?",
        subtitle="pasture demo: recorded answers, judged on this machine",
        date=first.date,
        testbed=MEADOW,
        baseline=BASELINE,
        leaderboards=tuple(
            board
            for title, one in judged.items()
            for board in leaderboards(
                boards[title], title, differences_among(one.systems(), BASELINE, SEED, controls[title])
            )
        ),
        breakdowns=tuple(breakdowns(PEOPLE, rows)),
        samples=samples(first.comparisons, shown, _SAMPLE_COUNT),
        annotators=(
            annotators_table(
                reports,
                f"{reports[0].pair_count:,} pairs of two systems' answers, {LABELS_PER_PAIR} labels each. "
                "AlpacaFarm's people agreed with each other's majority in 66% of cases, its pool in 65%.",
            ),
        ),
        facts=(
            Fact(name="Pasture", value=pasture.__version__),
            Fact(name="Answers", value="recorded from a run of recipes/meadow/loop.toml, seed 0"),
            *(Fact(name=title, value=one.judge) for title, one in judged.items()),
        ),
    )


def _write(
    out: Path, recorded: RecordedAnswers, judged: dict[str, Judged], boards: dict[str, Board], page: ReportContent
) -> None:
    write_report(page, out / "index.html")
    for title, one in judged.items():
        own = page.model_copy(
            update={
                "title": f"Judged by {title}",
                "leaderboards": tuple(board for board in page.leaderboards if board.title == title),
                "breakdowns": tuple(breakdowns(title, [row.to_dict() for row in boards[title].rows])),
                "annotators": (),
            }
        )
        write_results(out / _FOLDERS[title], one, boards[title], own)
    for completions in (recorded.reference, *recorded.systems.values()):
        rows = _model_outputs(recorded, completions)
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
        write_text(out / "answers" / f"{completions[0].system}.json", text)


def _model_outputs(recorded: RecordedAnswers, completions: Sequence[Completion]) -> list[dict[str, object]]:
    """The answers in AlpacaEval's model_outputs layout, with what the meadow's judges read besides the text."""
    return [
        {
            "instruction": asked.instruction,
            "input": asked.input,
            "output": answer.text,
            "generator": answer.system,
            "dataset": asked.source,
            "finish_reason": answer.finish_reason,
        }
        for asked, answer in zip(recorded.instructions, completions, strict=True)
    ]
