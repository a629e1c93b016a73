"""The command `pasture`: one module for each group of verbs, one place for errors."""

import os
import sys

import typer
from rich.console import Console

import pasture
from pasture.cli import annotate, doctor, evaluate, run
from pasture.core.errors import PastureError
from pasture.core.hostile import for_terminal

app = typer.Typer(
    name="pasture",
    help="Simulate learning from human feedback: annotators, methods, evaluation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        typer.echo(pasture.__version__)
        raise typer.Exit


for verbs in (run, annotate, evaluate, doctor):
    verbs.register(app)


def main() -> None:
    """Run the command; what the user can put right is one message and exit code 2."""
    # Threads of torch that spin while they wait take the core from those that work; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    errors = Console(stderr=True, highlight=False)
    try:
        app(standalone_mode=True)
    except PastureError as error:
        errors.print(f"[bold red]{type(error).__name__}[/]:", end=" ")
        errors.print(for_terminal(str(error)), markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("Stopped. Finished steps are safe; the same command goes on from here.")
        sys.exit(130)
