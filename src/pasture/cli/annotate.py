"""`pasture annotate` and `pasture bias`: have a judge prefer, or see what moves it."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from rich.console import Console
from rich.table import Table

from pasture.annotate.bias import BiasReport, Share, bias_report
from pasture.annotate.entry import Annotated as AnnotatedRows
from pasture.annotate.entry import (
    Columns,
    Listener,
    annotate_head2head,
    annotate_pairs,
    annotate_samples,
    comparison_of,
)
from pasture.annotate.noise import UniformFlips
from pasture.annotate.panel import Panel
from pasture.annotate.quote import Quote
from pasture.annotate.stored import StoredPool
from pasture.annotate.tables import as_table, require_fit, require_target, write_rows
from pasture.cli.asking import Service, Who
from pasture.cli.options import Which, spread, which_samples
from pasture.cli.progress import shown_progress
from pasture.core.files import require_apart, require_writable, write_text
from pasture.core.hostile import on_one_line
from pasture.core.ports import Annotator
from pasture.core.records import Preference


@dataclass(frozen=True)
class How:
    """Options: in which order, with what noise, and how often."""

    title: ClassVar[str] = "How it is judged"
    both_orders: Annotated[bool, typer.Option("--both-orders", help="Ask in both orders; disagreement is a tie.")] = (
        False
    )
    flip: Annotated[
        float | None,
        typer.Option("--flip", min=0.0, max=0.5, help="Share of labels to flip, in place of the pool's."),
    ] = None
    sample: Annotated[int, typer.Option("--sample", min=0, help="Number of the replicate: another asks anew.")] = 0
    compat: Annotated[
        str | None, typer.Option("--compat", help="alpaca_eval: its draws of annotators, orders, noise.")
    ] = None
    retry_unjudged: Annotated[bool, typer.Option("--retry-unjudged", help="Ask again where there is no verdict.")] = (
        False
    )


@dataclass(frozen=True)
class Rows:
    """Options: what pairs are made of, and where they go."""

    title: ClassVar[str] = "Pairs in, pairs out"
    head2head: Annotated[
        Path | None, typer.Option("--head2head", help="Outputs of another system, joined with PAIRS'.")
    ] = None
    samples: Annotated[str | None, typer.Option("--samples", help="Make pairs of several outputs: one, or all.")] = None
    prefix: Annotated[str, typer.Option("--prefix", help="What the names of new columns begin with.")] = ""
    out: Annotated[Path | None, typer.Option("--out", "-o", help="PAIRS.annotated.jsonl where absent.")] = None


Pairs = Annotated[Path, typer.Argument(help="Rows with instruction, output_1, output_2: JSON, JSONL, CSV or Parquet.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command("annotate", epilog="Example: pasture annotate pairs.jsonl --judge greedy --models gpt-4.1 --max-usd 5")(
        annotate
    )
    app.command("bias", epilog="Example: pasture bias pairs.jsonl --judge greedy --models gpt-4.1 --limit 100")(bias)


@spread
def annotate(
    pairs: Pairs,
    *,
    who: Who,
    rows: Rows,
    how: How,
    service: Service,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many calls it takes and what they cost.")] = False,
) -> None:
    """Have a judge or a pool prefer one of two outputs, row by row; paid answers are kept and never bought twice."""
    console = Console()
    panel, draws = who.panel(how.compat)
    panel = replace(panel, order="both") if how.both_orders else panel
    if how.flip is not None:
        panel = replace(panel, noise=UniformFlips(probability=how.flip) if how.flip else None)
    work = _Work(pairs, rows.head2head, which_samples(rows.samples, rows.head2head), who.seed, rows.prefix)
    access = service.access(who.config)
    if dry_run:
        listener = Listener()
        work.done_by(listener)
        pool = StoredPool(panel, access, draws=draws, sample=how.sample, retry_unjudged=how.retry_unjudged)
        _say_plan(console, len(listener.heard), pool.quote(listener.heard), _asked_again(panel, how))
        return
    target = rows.out or pairs.with_name(f"{pairs.stem}.annotated.jsonl")
    require_target(target)
    require_apart(target, pairs, *([] if rows.head2head is None else [rows.head2head]))
    require_fit(target, work.done_by(Listener()).rows)
    with (
        shown_progress(console, "judging") as progress,
        StoredPool(
            panel, access, draws=draws, sample=how.sample, retry_unjudged=how.retry_unjudged, progress=progress
        ) as pool,
    ):
        done = work.done_by(pool)
    write_rows(target, done.rows)
    _say_done(console, done)
    console.print(f"Wrote {target}", soft_wrap=True, markup=False)


@spread
def bias(
    pairs: Pairs,
    *,
    who: Who,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Pairs, from the first; four calls for each.")] = 200,
    service: Service,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the report, as JSON.")] = None,
) -> None:
    """Say what moves a judge besides quality: position, length, lists, chance; and what it refuses to judge."""
    console = Console()
    panel, draws = who.panel()
    if out is not None:
        require_writable(out)
        require_apart(out, pairs)
    table = as_table(pairs)
    comparisons = [
        comparison_of(row, Columns(), f"{pairs}, row {number}")
        for number, row in enumerate(table.rows[:limit], start=1)
    ]
    with (
        shown_progress(console, "judging") as progress,
        StoredPool(panel, service.access(who.config), draws=draws, progress=progress) as pool,
    ):
        report = bias_report(pool.pool(), comparisons)
    _say_bias(console, panel.name, report)
    if out is not None:
        write_text(out, json.dumps(report.as_dict(), indent=1) + "\n")


@dataclass(frozen=True)
class _Work:
    """What is to be annotated."""

    pairs: Path
    head2head: Path | None
    samples: Which | None
    seed: int
    prefix: str

    def done_by(self, who: Annotator) -> AnnotatedRows:
        """The rows with their preferences."""
        if self.head2head is not None:
            return annotate_head2head(self.pairs, self.head2head, who, prefix=self.prefix)
        if self.samples is not None:
            return annotate_samples(self.pairs, who, which=self.samples, seed=self.seed, prefix=self.prefix)
        return annotate_pairs(self.pairs, who, prefix=self.prefix)


def _asked_again(panel: Panel, how: How) -> str:
    """Which calls no plan can foresee; empty where there are none."""
    cases = []
    if any(judge.batch_size > 1 for judge in panel.judges):
        cases.append("each pair that a call about several leaves without a verdict is asked about once more, alone")
    if how.retry_unjudged:
        cases.append("each stored reply without a verdict is asked for anew")
    return f"Not counted: {'; '.join(cases)}." if cases else ""


def _say_plan(console: Console, rows: int, plan: Quote, asked_again: str) -> None:
    console.print(f"{rows} rows, {plan.calls} calls, {plan.stored} of them answered before.")
    if plan.low_usd is None or plan.high_usd is None:
        console.print("The price is unknown. State it with --price, to set a limit with --max-usd.")
    else:
        console.print(f"The rest costs from ${plan.low_usd:.4f} to ${plan.high_usd:.4f} at most, asked once.")
        console.print("Nothing was sent.")
    if asked_again:
        console.print(asked_again, soft_wrap=True)


def _say_done(console: Console, done: AnnotatedRows) -> None:
    """A line for each annotator, then what needs attention."""
    table = Table(box=None)
    columns = ("annotator", "asked", "first", "second", "tie", "unjudged", "noise", "cost")
    for name in columns:
        table.add_column(name, justify="left" if name == "annotator" else "right")
    groups: defaultdict[str, list[Preference]] = defaultdict(list)
    for each in done.preferences:
        groups[each.annotator].append(each)
    rows = [(name, groups[name]) for name in sorted(groups)]
    for name, said in [*rows, ("all", list(done.preferences))] if len(rows) > 1 else rows:
        verdicts = Counter(each.preferred for each in said)
        counts = [verdicts[kind] for kind in ("first", "second", "tie", "unjudged")]
        noise = sum(each.flipped_by_noise for each in said)
        table.add_row(on_one_line(name), str(len(said)), *map(str, counts), str(noise), _cost(said))
    console.print(table)
    console.print("Costs are those of the day an answer was bought; answers from the store cost nothing now.")
    for what in done.left_out[:5]:
        console.print(f"left out: {on_one_line(what)}", markup=False)
    if len(done.left_out) > 5:
        console.print(f"left out: {len(done.left_out) - 5} more")
    if done.counts["unjudged"]:
        error = next(each.error for each in done.preferences if each.error is not None)
        console.print(
            f"{done.counts['unjudged']} rows are unjudged, kept without a preference (first: {on_one_line(error)}). "
            "Run again with --retry-unjudged to ask about them alone.",
            markup=False,
        )


def _cost(said: Sequence[Preference]) -> str:
    costs = [each.cost_usd for each in said]
    known = [cost for cost in costs if cost is not None]
    return f"${sum(known):.4f}" if len(known) == len(costs) else "unknown"


def _say_bias(console: Console, name: str, report: BiasReport) -> None:
    table = Table(title=f"{on_one_line(name)} on {report.asked} pairs", title_justify="left", box=None)
    for column in ("", "share", "± s.e.", "pairs", "no leaning"):
        table.add_column(column, justify="left" if not column else "right")
    shares: list[tuple[str, Share, str]] = [
        ("prefers the answer shown first", report.prefers_first_shown, "0.5"),
        ("prefers the longer", report.prefers_longer, "0.5"),
        ("prefers the list", report.prefers_list, "0.5"),
        ("changes its mind with the order", report.changes_with_order, "0"),
        ("agrees with itself", report.agrees_with_itself, "1"),
    ]
    for title, share, neutral in shares:
        value, error = (("-" if each is None else f"{each:.3f}") for each in (share.value, share.standard_error))
        table.add_row(title, value, error, str(share.count), neutral)
    console.print(table)
    cost = "unknown" if report.cost_usd is None else f"${report.cost_usd:.4f}"
    console.print(f"{report.unjudged} pairs unjudged, {report.refused} of them refused. Cost {cost}.")
