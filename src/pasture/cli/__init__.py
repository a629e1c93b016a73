"""The command `pasture`: one module for each group of verbs, one place for errors."""

import importlib
import sys
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

import pasture
from pasture.core.errors import PastureError
from pasture.core.hostile import for_terminal

VERBS = {
    "run": "run",
    "plan": "plan",
    "train": "train",
    "score": "train",
    "generate": "generate",
    "annotate": "annotate",
    "bias": "annotate",
    "evaluate": "evaluate",
    "leaderboard": "evaluate",
    "evaluation-set": "evaluation_set",
    "compare": "evaluate",
    "analyze-annotators": "analyze",
    "calibrate": "calibrate",
    "demo": "demo",
    "people": "people",
    "doctor": "doctor",
}
"""The module of each verb. A verb loads its own alone: those of others bring libraries that it would wait for."""

_GOES_ON = ("run", "train")
"""Verbs that go on where they were stopped."""


class _StoppedError(Exception):
    """Ctrl-C, on its way past typer, which would leave without a word."""


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _StoppedError from stop


def application(verb: str | None = None) -> typer.Typer:
    """The command with the verbs of `verb`'s module; with all of them where `verb` is none."""
    app = typer.Typer(
        name="pasture",
        cls=_Verbs,
        help="Simulate learning from human feedback: annotators, methods, evaluation.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_options)
    wanted = [VERBS[verb]] if verb in VERBS else list(dict.fromkeys(VERBS.values()))
    for module in wanted:
        importlib.import_module(f"pasture.cli.{module}").register(app)
    return app


def _options(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        typer.echo(pasture.__version__)
        raise typer.Exit


def main() -> None:
    """Run the command; what the user can put right is one message and exit code 2."""
    errors = Console(stderr=True, highlight=False)
    verb = sys.argv[1] if len(sys.argv) > 1 else None
    try:
        application(verb)(standalone_mode=True)
    except PastureError as error:
        errors.print(f"[bold red]{type(error).__name__}[/]:", end=" ")
        errors.print(for_terminal(str(error)), markup=False, soft_wrap=True)
        sys.exit(2)
    except (KeyboardInterrupt, _StoppedError):
        goes_on = " What is finished is safe; the same command goes on from here." if verb in _GOES_ON else ""
        errors.print(f"Stopped.{goes_on}")
        sys.exit(130)
