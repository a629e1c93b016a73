"""`pasture evaluation-set`: what a set of instructions holds, and whether it was trained on."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pasture.core.hostile import on_one_line, shortened
from pasture.data.evaluation_set import (
    ALPACA_EVAL_CHECKSUM,
    ALPACA_FARM_SOURCES,
    EvaluationSet,
    InstructionColumns,
    load_evaluation_set,
    read_instructions,
)
from pasture.data.overlap import require_no_overlap
from pasture.evaluate.table import percent

_NAME_CHARACTERS = 60


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command(
        "evaluation-set",
        epilog="Example: pasture evaluation-set hub:tatsu-lab/alpaca_eval/alpaca_eval.json --training sft.json",
    )(evaluation_set)


def evaluation_set(
    name: Annotated[str, typer.Argument(help="A file, a folder, or hub:ORG/NAME/FILES@REVISION.")],
    instruction: Annotated[str, typer.Option(help="Column of the instruction.")] = "instruction",
    material: Annotated[str, typer.Option("--input", help="Column of the material it speaks of.")] = "input",
    source: Annotated[str, typer.Option(help="Column of the source.")] = "dataset",
    training: Annotated[
        list[Path] | None, typer.Option("--training", help="Instructions trained on; refuse a leak. Repeatable.")
    ] = None,
    allow_overlap: Annotated[bool, typer.Option("--allow-overlap", help="Report leaks, do not refuse them.")] = False,
) -> None:
    """Count a set's sources, sum it, and refuse it where its instructions were trained on."""
    found = load_evaluation_set(name, InstructionColumns(instruction, material, source))
    console = Console()
    table = Table(title=f"{len(found.instructions):,} instructions", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("source")
    table.add_column("instructions", justify="right")
    for label, count in found.sources.items():
        table.add_row(Text(on_one_line(shortened(label, _NAME_CHARACTERS))), f"{count:,}")
    console.print(table)
    console.print(f"SHA-256 of the texts: {found.checksum}", highlight=False, soft_wrap=True)
    known = _known_as(found)
    if known:
        console.print(known, highlight=False)
    trained = [one for path in training or [] for one in read_instructions(path, split=path.name)]
    overlaps = require_no_overlap(trained, found.instructions, allow=allow_overlap, repair="pass --allow-overlap")
    if trained:
        nearest = f", at most {percent(max(one.similarity for one in overlaps))}% the same" if overlaps else ""
        console.print(f"{len(overlaps)} of them lie in {len(trained):,} trained on{nearest}.", highlight=False)


def _known_as(found: EvaluationSet) -> str:
    if found.checksum == ALPACA_EVAL_CHECKSUM:
        return "These are AlpacaEval's 805."
    if dict(found.sources) == dict(ALPACA_FARM_SOURCES):
        return "The sources are counted as in AlpacaFarm's 805; the texts are not AlpacaEval's."
    return ""
