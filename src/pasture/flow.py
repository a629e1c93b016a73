"""Runs what a plan lacks, one step after the other, so that a kill costs the step in hand at most."""

import importlib
import importlib.metadata
import importlib.util
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pasture
from pasture import recipe as recipes
from pasture.core.errors import DependencyError, RecipeError
from pasture.core.files import unwritable
from pasture.core.run_folder import RunFolder
from pasture.plan import Plan, Step, build
from pasture.recipe import Recipe
from pasture.steps import Outcome, Task


class Screen(Protocol):
    """Who is told how a run goes."""

    def skipped(self, step: Step) -> None:
        """The step was finished by an earlier run."""
        ...

    def started(self, step: Step) -> None:
        """The step begins."""
        ...

    def advanced(self, done: int, total: int, **figures: float) -> None:
        """The step in hand has done `done` of `total` units."""
        ...

    def finished(self, step: Step, seconds: float, cost_usd: float | None) -> None:
        """The step's results are in the run folder."""
        ...


@dataclass(frozen=True)
class Run:
    """A recipe made ready: settings complete, steps known, nothing done yet."""

    recipe: Recipe
    plan: Plan
    folder: RunFolder

    def pending(self) -> list[Step]:
        """The steps that are not finished, in order."""
        return [step for step in self.plan.steps if not self.folder.is_finished(step.name, self.plan.keys[step.name])]


def prepare(path: Path, overrides: Sequence[str] = (), out: Path | None = None, *, allow_code: bool = False) -> Run:
    """Read a recipe and plan it, without doing or spending anything.

    Results go to `out`, else to `runs/` and the recipe's name. With `allow_code` a method may be a Python file.

    Raises:
        RecipeError: if the recipe does not hold.
        DependencyError: if the recipe trains and torch is not installed.
    """
    recipe = recipes.load(path, overrides)
    recipe = recipe.model_copy(update={"learn": _complete_methods(recipe, str(path), allow_code)})
    return Run(recipe, build(recipe), RunFolder(out or Path("runs") / recipe.name))


def _complete_methods(recipe: Recipe, origin: str, allow_code: bool) -> dict[str, dict[str, Any]]:
    """The settings of each method with its defaults written out."""
    return {name: _complete(name, table, origin, allow_code) for name, table in recipe.learn.items()}


def _complete(name: str, table: Mapping[str, Any], origin: str, allow_code: bool) -> dict[str, Any]:
    lookup = _training_module("pasture.learn.lookup")
    method = str(table.get("method", name))
    facts = {"method": method}
    if method.endswith(lookup.OWN_FILE_SUFFIX):
        if not allow_code:
            raise RecipeError(
                f"{origin}: [learn.{name}] names the file {method!r}, which would run as part of Pasture. "
                "Read it, then pass --allow-code."
            )
        facts["code"] = lookup.file_hash(Path(method))
        facts["learns_from"] = lookup.method_named(method).LEARNS_FROM
    elif method not in lookup.METHODS:
        raise RecipeError(f"{origin}: {recipes.describe_unknown(method, list(lookup.METHODS), 'learn')}")
    settings = {key: value for key, value in table.items() if key != "method"}
    config = recipes.check_section(lookup.method_named(method).Config, settings, origin, f"learn.{name}")
    return {**facts, **config.model_dump(mode="json", exclude_none=True)}


def _training_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name and error.name.split(".")[0] == "pasture":
            raise
        raise DependencyError(
            f"this needs the package {error.name!r}, which is not installed. "
            "Training and sampling come with: pip install 'pasture[train]'"
        ) from error


def execute(run: Run, screen: Screen, *, update: bool = False) -> None:
    """Do every step that is not finished, and write the manifest.

    Raises:
        PastureError: from the folder or from a step; what was finished stays.
    """
    with run.folder.held():
        run.folder.claim(recipes.resolved(run.recipe), update=update)
        for step in run.plan.steps:
            if run.folder.is_finished(step.name, run.plan.keys[step.name]):
                screen.skipped(step)
            else:
                _do(run, step, screen)
        run.folder.write_manifest(_facts(run), run.plan.keys)


def describe_device() -> dict[str, str]:
    """What this machine would train with, in words; empty where torch is not installed."""
    try:
        facts: dict[str, str] = _training_module("pasture.machine.device").describe_device()
    except DependencyError:
        return {}
    return facts


def _do(run: Run, step: Step, screen: Screen) -> None:
    screen.started(step)
    _set_threads(run.recipe, step)
    room, function = step.work.split(".")
    work = getattr(_training_module(f"pasture.steps.{room}"), function)
    started = time.monotonic()
    folder = run.folder.workspace(step.name, run.plan.keys[step.name])
    inputs = {role: run.folder.step_path(name) for role, name in step.needs.items()}
    try:
        outcome: Outcome = work(Task(folder, inputs, step.settings, screen.advanced))
    except OSError as error:
        raise unwritable(Path(error.filename) if error.filename else folder, error) from error
    seconds = time.monotonic() - started
    run.folder.publish(step.name, seconds=round(seconds, 3), cost_usd=outcome.cost_usd, details=outcome.details)
    screen.finished(step, seconds, outcome.cost_usd)


def _set_threads(recipe: Recipe, step: Step) -> None:
    if recipe.threads is not None and step.work.startswith(("learn.", "generate.")):
        _training_module("pasture.machine.device").use_threads(recipe.threads)


def _facts(run: Run) -> dict[str, object]:
    return {
        "pasture": pasture.__version__,
        "recipe": run.recipe.name,
        "seed": run.recipe.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {
            # As installed, not as imported: a run that skips every step imports little.
            name: importlib.metadata.version(name)
            for name in ("numpy", "torch", "transformers", "tokenizers", "safetensors")
            if importlib.util.find_spec(name) is not None
        },
    }
