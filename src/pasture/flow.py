"""Runs what a plan lacks, one step after the other, so that a kill costs the step in hand at most."""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import pasture
from pasture import recipe as recipes
from pasture.annotate.own import AnnotatorFile, OwnAnnotator
from pasture.core.errors import DependencyError, Missing, RecipeError, WaitingError
from pasture.core.files import is_no_room, unwritable
from pasture.core.looks import superseded
from pasture.core.own_file import OWN_FILE_SUFFIX, file_hash
from pasture.core.run_folder import RunFolder
from pasture.core.sections import check_section
from pasture.machine.executor import Job, LocalWorkers, Workers, walk
from pasture.machine.tracker_settings import TRACKERS_FOLDER, Tracking, check_trackers
from pasture.plan import Absent, Outline, Plan, Step, expanded, outline, outline_study
from pasture.plan.material import require_here
from pasture.recipe import Recipe
from pasture.steps import LEDGERS, Outcome, Task, together
from pasture.steps.together import Several

_TENSOR_WORK = ("learn.", "generate.", "curves.")


class Screen(Protocol):
    """Who is told how a run goes."""

    def skipped(self, step: Step) -> None:
        """The step was finished by an earlier run."""
        ...

    def started(self, step: Step) -> None:
        """The step begins."""
        ...

    def advanced(self, step: Step, done: int, total: int, **figures: float) -> None:
        """The step has done `done` of `total` units."""
        ...

    def finished(self, step: Step, seconds: float, cost_usd: float | None) -> None:
        """The step's results are in the run folder."""
        ...


class NoScreen:
    """The `Screen` that shows nothing."""

    def skipped(self, step: Step) -> None:
        """Show nothing."""

    def started(self, step: Step) -> None:
        """Show nothing."""

    def advanced(self, step: Step, done: int, total: int, **figures: float) -> None:
        """Show nothing."""

    def finished(self, step: Step, seconds: float, cost_usd: float | None) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Run:
    """A recipe made ready: settings complete, steps known, nothing done yet."""

    recipe: Recipe
    plan: Plan
    folder: RunFolder

    def pending(self) -> list[Step]:
        """The steps that are not finished, in order."""
        return [step for step in self.plan.steps if not self.folder.is_finished(step.name, self.plan.keys[step.name])]

    def superseded_looks(self) -> list[str]:
        """Steps that judged a system on the evaluation set, in this folder and under settings that are no more."""
        return superseded(self.folder.path, self.plan.keys)


def run_recipe(
    path: str | Path,
    overrides: str | Sequence[str] = (),
    out: str | Path | None = None,
    *,
    update: bool = False,
    workers: int = 1,
    allow_code: bool = False,
    screen: Screen | None = None,
) -> Path:
    """The run folder of a recipe once all of it is done, as `pasture run` does it; what was finished is not redone.

    Overrides are texts such as "seed=1". Results go to `out`, else to `runs/` and the recipe's name. `screen` hears how
    it goes. With several `workers` the script that calls this needs `if __name__ == "__main__":` around the call, since
    their processes import it.

    Raises:
        PastureError: as `prepare` and `execute` do.
    """
    changes = [overrides] if isinstance(overrides, str) else overrides
    run = prepare(Path(path), changes, None if out is None else Path(out), allow_code=allow_code)
    execute(run, screen or NoScreen(), update=update, workers=workers)
    return run.folder.path


def prepare(path: Path, overrides: Sequence[str] = (), out: Path | None = None, *, allow_code: bool = False) -> Run:
    """Read a recipe and plan it, without doing or spending anything.

    Results go to `out`, else to `runs/` and the recipe's name. With `allow_code` a method may be a Python file.

    Raises:
        RecipeError: if the recipe does not hold.
        ModelError: if a model that it names is not here.
        DataError: if a file that it names is not here.
        DependencyError: if the recipe trains and torch is not installed.
    """
    run, missing = preview(path, overrides, out, allow_code=allow_code)
    require_here(missing)
    return run


def preview(
    path: Path, overrides: Sequence[str] = (), out: Path | None = None, *, allow_code: bool = False
) -> tuple[Run, Sequence[Absent]]:
    """As `prepare` does, also where models and data are not here; what is not here comes back beside the run.

    Such a run can be looked at and not be executed: steps that need what is not here count as unfinished.

    Raises:
        RecipeError: if the recipe does not hold.
        DependencyError: if the recipe trains and torch is not installed.
    """
    written = recipes.load(path, overrides)
    recipe = _completed(written, str(path), allow_code)
    found = outline(recipe) if recipe.study is None else _study_outline(recipe, expanded(written), allow_code)
    return Run(recipe, found.plan, RunFolder(out or Path("runs") / recipe.name)), found.absent


def _study_outline(recipe: Recipe, runs: Mapping[str, Recipe], allow_code: bool) -> Outline:
    """The plan of a study; `runs` are its recipes as written, for defaults may follow from what an arm changes."""
    return outline_study(recipe, {name: _completed(one, f"run {name}", allow_code) for name, one in runs.items()})


def _completed(recipe: Recipe, origin: str, allow_code: bool) -> Recipe:
    """The recipe with the defaults of each method written out."""
    weights = recipe.model.weights.model_dump(mode="json", exclude_none=True)
    learn = {name: _complete(name, table, weights, origin, allow_code) for name, table in recipe.learn.items()}
    annotators = {name: _known(name, one, origin, allow_code) for name, one in recipe.annotators.items()}
    return recipe.model_copy(update={"learn": learn, "annotators": annotators})


def _known(name: str, settings: AnnotatorFile, origin: str, allow_code: bool) -> AnnotatorFile:
    """An annotator of the user's own with what its file holds, once it is seen that it can be asked."""
    known = settings.model_copy(
        update={"code": _allowed_hash(settings.file, f"{origin}: [annotators.{name}]", allow_code)}
    )
    OwnAnnotator(name, known, seed=0).check()
    return known


def _complete(
    name: str, table: Mapping[str, Any], weights: Mapping[str, Any], origin: str, allow_code: bool
) -> dict[str, Any]:
    lookup = training_module("pasture.learn.lookup")
    method = str(table.get("method", name))
    facts = {"method": method}
    if method.endswith(lookup.OWN_FILE_SUFFIX):
        facts["code"] = _allowed_hash(method, f"{origin}: [learn.{name}]", allow_code)
        facts["learns_from"] = lookup.method_named(method).LEARNS_FROM
    elif method not in lookup.METHODS:
        more = "" if "method" in table else " A table of another name needs a line that begins with method =."
        raise RecipeError(f"{origin}: [learn.{name}]: {lookup.unknown(method)}{more}")
    if "scorer" in table:
        facts |= _scorer_facts(str(table["scorer"]), f"{origin}: [learn.{name}]", allow_code)
    told = ("method", "code", "learns_from", "scorer", "scorer_code")
    settings = {key: value for key, value in table.items() if key not in told}
    kind = lookup.method_named(method).Config
    shared = {"weights": weights} if "weights" in kind.model_fields else {}
    config = check_section(kind, {**shared, **settings}, origin, f"learn.{name}")
    return {**facts, **config.model_dump(mode="json", exclude_none=True)}


def _scorer_facts(file: str, where: str, allow_code: bool) -> dict[str, str]:
    """A scorer of the user's own, by its file and what that holds, once it is seen that it can be asked."""
    if not file.endswith(OWN_FILE_SUFFIX):
        raise RecipeError(
            f"{where} scorer = {file!r}: expected a Python file with a function score. Leave the key out where the "
            "run's reward model is to score."
        )
    code = _allowed_hash(file, where, allow_code)
    training_module("pasture.learn.own_scorer").OwnScorer(Path(file), code)
    return {"scorer": file, "scorer_code": code}


def _allowed_hash(file: str, where: str, allow_code: bool) -> str:
    if not allow_code:
        raise RecipeError(
            f"{where} names the file {file!r}, which would run as part of Pasture. Read it, then pass --allow-code."
        )
    return file_hash(Path(file))


def training_module(name: str) -> Any:
    """A module of Pasture that needs torch, imported late so that what needs none works without it.

    Raises:
        DependencyError: if the extra is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name and error.name.split(".")[0] == "pasture":
            raise
        raise DependencyError(
            f"this needs the package {error.name!r}, which is not installed. "
            "Training and sampling come with: pip install 'pasture[train]'"
        ) from error


def execute(run: Run, screen: Screen, *, update: bool = False, workers: int = 1, cluster: str | None = None) -> None:
    """Do every step that is not finished, and write the manifest.

    Steps are done one after the other in this process, or `workers` at once in processes of their own, or wherever
    the Ray cluster at the address `cluster` has room; results are the same.

    Raises:
        RecipeError: if trainings of several processes are to be done beside one another.
        WaitingError: if people have labels to give; every step that does not need them was done.
        PastureError: from the folder or from a step; what was finished stays.
    """
    check_trackers(run.recipe.trackers)
    check_workers(run.recipe, workers)
    with run.folder.held():
        run.folder.claim(recipes.resolved(run.recipe), update=update, free=recipes.FREE_KEYS)
        pending = _pending(run, screen)
        if workers == 1 and cluster is None:
            _execute_in_turn(run, pending, screen)
        else:
            pool = LocalWorkers(workers, do_step) if cluster is None else _cluster_workers(cluster)
            _execute_at_once(run, pending, screen, pool)
        run.folder.show(run.plan.views, run.plan.keys)
        run.folder.write_manifest(_facts(run), run.plan.keys)


def check_workers(recipe: Recipe, workers: int) -> None:
    """See that so many steps can be done at once.

    Raises:
        RecipeError: if trainings of several processes are to be done beside one another.
    """
    if recipe.processes > 1 and workers > 1:
        raise RecipeError(
            f"the recipe trains with {recipe.processes} processes, and {workers} steps at once would share their cards "
            "and cores. Leave out --workers, or set processes=1."
        )


def _pending(run: Run, screen: Screen) -> list[Step]:
    pending = []
    for step in run.plan.steps:
        if run.folder.is_finished(step.name, run.plan.keys[step.name]):
            screen.skipped(step)
        else:
            pending.append(step)
    return pending


def _cluster_workers(address: str) -> Workers:
    module = importlib.import_module("pasture.machine.ray_cluster")
    pool: Workers = module.RayWorkers(address, do_step)
    return pool


def _execute_in_turn(run: Run, pending: Sequence[Step], screen: Screen) -> None:
    held_up: set[str] = set()
    missing: list[Missing] = []
    for step in pending:
        if held_up.intersection(step.needs.values()):
            held_up.add(step.name)
            continue
        screen.started(step)
        try:
            done = do_step(_order(run, step), lambda *news, step=step: _advance(screen, step, news))
        except WaitingError as error:  # people are asked at once for all that can be asked
            held_up.add(step.name)
            missing += error.missing
        else:
            screen.finished(step, done.seconds, done.cost_usd)
    if missing:
        raise WaitingError(*missing)


def _execute_at_once(run: Run, pending: Sequence[Step], screen: Screen, pool: Workers) -> None:
    steps = {step.name: step for step in pending}
    with pool as workers:
        walk(
            [_job(run, step) for step in pending],
            workers,
            started=lambda name: screen.started(steps[name]),
            said=lambda name, news: _advance(screen, steps[name], news),
            finished=lambda name, done: screen.finished(steps[name], done.seconds, done.cost_usd),
        )


def _job(run: Run, step: Step) -> Job:
    tensors = step.work.startswith(_TENSOR_WORK)
    several = run.recipe.processes if step.work in together.WORK else 1
    cpus = several * float(run.recipe.threads or 1) if tensors else 1.0
    gpus = several * run.recipe.gpus if tensors else 0.0
    return Job(step.name, frozenset(step.needs.values()), _order(run, step), cpus=cpus, gpus=gpus)


def _advance(screen: Screen, step: Step, news: tuple[Any, ...]) -> None:
    done, total, figures = news
    screen.advanced(step, done, total, **figures)


@dataclass(frozen=True)
class Order:
    """All that a process needs to know to do a step."""

    folder: Path
    step: Step
    key: str
    threads: int | None
    several: Several
    """Who trains."""
    tracking: Tracking | None = None
    """Of a step that trains, where trackers are asked for."""


@dataclass(frozen=True)
class Done:
    """How a step went."""

    seconds: float
    cost_usd: float | None


def _order(run: Run, step: Step) -> Order:
    recipe, folder, key = run.recipe, run.folder.path.absolute(), run.plan.keys[step.name]
    several = Several(recipe.processes, recipe.sharding, recipe.threads)
    return Order(folder, step, key, recipe.threads, several, _tracking(run, step, folder, key))


def _tracking(run: Run, step: Step, folder: Path, key: str) -> Tracking | None:
    if not run.recipe.trackers or not step.work.startswith("learn."):
        return None
    return Tracking(
        names=run.recipe.trackers,
        folder=folder / TRACKERS_FOLDER,
        project=run.recipe.name,
        run=step.name,
        training=key,
        settings=step.settings,
    )


def do_step(order: Order, say: Callable[..., None]) -> Done:
    """Do one step whose inputs are finished, in this process; `say(done, total, figures)` hears how it goes.

    Raises:
        PastureError: from the folder or from the step, and for what the step could not write.
    """
    folder, step = RunFolder(order.folder), order.step
    with folder.step_held(order.key) as lock:
        earlier = folder.finished(step.name)
        if earlier is not None and earlier.key == order.key:  # by a process that outlived the one that started it
            return Done(earlier.seconds, earlier.cost_usd)
        _set_threads(order)
        started = time.monotonic()
        workspace = folder.workspace(step.name, order.key)
        inputs = {role: folder.step_path(name) for role, name in step.needs.items()}
        task = Task(
            workspace,
            inputs,
            step.settings,
            lambda done, total, **figures: say(done, total, figures),
            ledgers=order.folder / LEDGERS,
        )
        try:
            outcome = _work(order, task, lock)
        except OSError as error:
            if is_no_room(error) or _is_forbidden(error, order.folder):
                raise unwritable(Path(error.filename) if error.filename else workspace, error) from error
            raise
        seconds = round(time.monotonic() - started, 3)
        if step.work == "annotate.judge_system" and step.settings["split"] == "evaluation":
            folder.look(step.name, order.key)
        folder.publish(step.name, seconds=seconds, cost_usd=outcome.cost_usd, details=outcome.details)
        return Done(seconds, outcome.cost_usd)


def _is_forbidden(error: OSError, folder: Path) -> bool:
    """Whether somebody else's file in the run folder stands in the way of writing."""
    return isinstance(error, PermissionError) and bool(error.filename) and Path(error.filename).is_relative_to(folder)


def _work(order: Order, task: Task, lock: IO[str]) -> Outcome:
    room, function = order.step.work.split(".")
    module = training_module(f"pasture.steps.{room}")
    if order.several.count > 1 and order.step.work in together.WORK:
        return together.do(order.step.work, task, order.several, lock, order.tracking)
    with _tracked(order.tracking, task.folder):
        outcome: Outcome = getattr(module, function)(task)
    return outcome


def _tracked(tracking: Tracking | None, training_folder: Path) -> contextlib.AbstractContextManager[None]:
    if tracking is None:
        return contextlib.nullcontext()
    trackers = training_module("pasture.machine.trackers")
    listening: contextlib.AbstractContextManager[None] = trackers.tracked(tracking, training_folder)
    return listening


def describe_device() -> dict[str, str]:
    """What this machine would train with, in words; empty where torch is not installed."""
    try:
        facts: dict[str, str] = training_module("pasture.machine.device").describe_device()
    except DependencyError:
        return {}
    return facts


def _set_threads(order: Order) -> None:
    if order.threads is not None and order.step.work.startswith(_TENSOR_WORK):
        training_module("pasture.machine.device").use_threads(order.threads)


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
