"""`pasture run`: do what a recipe asks for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pasture import flow
from pasture.cli.options import Track, spread
from pasture.cli.screen import LiveScreen
from pasture.machine.launch import check_alone
from pasture.machine.tracker_settings import trackers_named
from pasture.plan import BOARD, REPORT

BOARD_SUMMARY = f"{BOARD}/leaderboard.txt"
STUDY_SUMMARY = f"{REPORT}/summary.txt"

RecipePath = Annotated[Path, typer.Argument(help="A TOML file; those that come with Pasture lie in recipes/.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings to change, such as seed=1 or learn.ppo.steps=20.")
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Run folder; runs/NAME where absent.", show_default=False)
]
Update = Annotated[
    bool, typer.Option("--update", help="Go on in a folder begun with another recipe; redo what the change touches.")
]


Workers = Annotated[int, typer.Option("--workers", "-j", min=1, help="Steps at once, each in a process of its own.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", help="Do the steps on the Ray cluster at this address; auto is this machine's.", show_default=False
    ),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Let the recipe name Python files as methods; they run on this machine.")
]


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command("run", epilog="Example: pasture run recipes/meadow/loop.toml seed=1 --out runs/second")(run)


@dataclass(frozen=True)
class Doing:
    """Options: who does the steps, and who is shown how trainings go."""

    workers: Workers = 1
    cluster: Cluster = None
    track: Track = None


@spread
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Out = None,
    update: Update = False,
    allow_code: AllowCode = False,
    *,
    doing: Doing,
) -> None:
    """Do what a recipe asks for, from instructions to the report; finished steps are skipped."""
    check_alone("run")
    console = Console()
    trackers = [f"trackers={json.dumps(trackers_named(doing.track))}"] if doing.track else []
    prepared = flow.prepare(recipe, [*(overrides or []), *trackers], out, allow_code=allow_code)
    with LiveScreen(console, prepared, doing.workers) as screen:
        flow.execute(prepared, screen, update=update, workers=doing.workers, cluster=doing.cluster)
    console.print()
    summary = STUDY_SUMMARY if prepared.recipe.study is not None else BOARD_SUMMARY
    typer.echo((prepared.folder.path / summary).read_text(encoding="utf-8"))
    superseded = prepared.superseded_looks()
    if superseded:
        console.print(
            f"[yellow]The evaluation set was looked at before with {len(superseded)} systems under other settings "
            f"(first: {superseded[0]}).[/] Settings that were chosen after that were chosen on it; choose on the "
            "validation split.",
        )
    console.print(f"Report: {prepared.folder.step_path(REPORT) / 'index.html'}", soft_wrap=True, markup=False)
