"""A study: one recipe in many runs, an arm for each kind of feedback and a run for each seed, drawn up as one plan.

Steps of different runs that have the same key are one step. Each lies once under `steps/`, with the beginning of its
key in its name, so that a setting that is changed and changed back finds its old result; `runs/ARM-SEED/` shows every
run as the folder that it would have been alone.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pasture.annotate.raters import meadow_annotator
from pasture.core.errors import RecipeError
from pasture.plan.graph import Plan, Step, assemble
from pasture.plan.loop import ANNOTATORS, REPORT, steps_before_report
from pasture.plan.material import Absent, Outline, absent, require_here
from pasture.plan.settings import identity_hash
from pasture.plan.systems import PAIRS
from pasture.recipe import STAGES, Arm, Recipe, Study, parse, resolved, resolved_for_steps

RUNS = "runs"
STUDY = "6-validate/study"
NOISE = "6-validate/noise"
NOISE_PAIRS = 2_000
"""Pairs on which every annotator of the pool and several people give a label, to see what noise does."""

_ARM_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_KEY_LETTERS = 10
_OF_THE_WHOLE = ("name", "title", "seed", "threads", "trackers", "gpus", "processes", "sharding", "cards", "study")
"""Keys of a recipe that a study follows in all of its runs, so that an arm's own would do nothing."""


def run_name(arm: str, seed: int) -> str:
    """What the run of an arm with a seed is called."""
    return f"{arm}-{seed}"


def expanded(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe of each run of a study, by run; the settings of their methods are as complete as the recipe's own.

    Defaults follow from what an arm changes, as a method's weights from the model's, so they are written out after it.

    Raises:
        RecipeError: if an arm is misnamed, changes what is not there or not its own, or names a system that the recipe
            lacks.
    """
    study = _checked_study(recipe)
    runs = {}
    for seed in study.seeds:
        for name, arm in study.arms.items():
            table = resolved(recipe)
            del table["study"]
            changed = _changed(_only(table, arm, name), arm.change)
            runs[run_name(name, seed)] = parse({**changed, "seed": seed}, f"arm {name!r}")
    return runs


def build_study(recipe: Recipe, runs: Mapping[str, Recipe]) -> Plan:
    """The plan of a study whose runs' method settings are complete.

    Raises:
        RecipeError: if a run lacks what its methods build on.
        ModelError: if a model is not here.
        DataError: if a file is not here.
    """
    found = outline_study(recipe, runs)
    require_here(found.absent)
    return found.plan


def outline_study(recipe: Recipe, runs: Mapping[str, Recipe]) -> Outline:
    """As `build_study` does, also where models or data are not here.

    Raises:
        RecipeError: as `build_study` does.
    """
    named: dict[str, Step] = {}
    views: dict[str, str] = {}
    missing: dict[tuple[str, str], Absent] = {}
    for run, one in runs.items():
        alone = assemble(steps_before_report(one))
        missing |= {(lack.key, lack.name): lack for lack in absent(one, alone.steps)}
        stored = {name: f"steps/{name}-{key[:_KEY_LETTERS]}" for name, key in alone.keys.items()}
        for step in alone.steps:
            name = stored[step.name]
            views[f"{RUNS}/{run}/{step.name}"] = name
            needs = {role: stored[needed] for role, needed in step.needs.items()}
            named.setdefault(name, replace(step, name=name, needs=needs))
    steps = [*named.values(), *_conclusions(recipe, views)]
    return Outline(replace(assemble(steps), views=views), tuple(missing.values()))


def _conclusions(recipe: Recipe, views: Mapping[str, str]) -> list[Step]:
    """What is made of all runs together; roles are `RUN/STEP`."""
    study = _checked_study(recipe)
    every = {path.removeprefix(f"{RUNS}/"): name for path, name in views.items()}
    told = ("2-generate/validation/", "3-annotate/", "5-evaluate/")
    judged = {role: name for role, name in every.items() if role.partition("/")[2].startswith(told)}
    settings = {
        "study": study.model_dump(mode="json", exclude_none=True),
        "baselines": list(recipe.baselines),
        "seed": recipe.seed,
    }
    found = Step(STUDY, "study.results", settings, judged, units=1)
    noise = _noise(recipe, every, run_name(study.simulation, study.seeds[0]))
    needs = {**every, "study": STUDY, **({"noise": NOISE} if noise else {})}
    page = Step(REPORT, "study_page.page", {"recipe": resolved_for_steps(recipe)}, needs, units=1)
    return [found, *noise, page]


def _noise(recipe: Recipe, every: Mapping[str, str], run: str) -> list[Step]:
    """What noise does to the meadow's pool; none where `run` does not compare the meadow's annotators either."""
    if f"{run}/{ANNOTATORS}" not in every:
        return []
    settings = {
        "seed": recipe.seed,
        "pairs": NOISE_PAIRS,
        "identities": [identity_hash(meadow_annotator(name, seed=recipe.seed)) for name in ("people", "pool")],
    }
    return [Step(NOISE, "study.noise", settings, {"pairs": every[f"{run}/{PAIRS}"]}, units=NOISE_PAIRS)]


def _checked_study(recipe: Recipe) -> Study:
    study = recipe.study
    if study is None:
        raise RecipeError("the recipe has no table [study].")
    for name, arm in study.arms.items():
        if not _ARM_NAME.fullmatch(name):
            raise RecipeError(f"[study.arms.{name}]: expected a name of small letters, digits and '-'.")
        common = [key for key in _OF_THE_WHOLE if key in arm.change]
        if common:
            raise RecipeError(
                f"[study.arms.{name}]: change.{common[0]} would do nothing, as all runs of a study share that key. Set "
                "it for the whole recipe. Seeds stand in study.seeds, the title of an arm in its own table."
            )
        if arm.judge not in recipe.evaluate.judges:
            raise RecipeError(f"[study.arms.{name}]: judge = {arm.judge!r} is none of evaluate.judges.")
        unknown = sorted(set(arm.systems or ()) - (set(recipe.learn) - set(STAGES)))
        if unknown:
            raise RecipeError(
                f"[study.arms.{name}]: systems names {unknown[0]!r}, but there is no [learn.{unknown[0]}]."
            )
    for role in ("simulation", "people"):
        if getattr(study, role) not in study.arms:
            raise RecipeError(f"study.{role} = {getattr(study, role)!r}, but there is no such arm.")
    return study


def _only(table: dict[str, Any], arm: Arm, name: str) -> dict[str, Any]:
    """The recipe with the arm's systems alone, and its own name."""
    learn, curves, baselines = table["learn"], table["evaluate"]["curves"], table["baselines"]
    if arm.systems is not None:
        baselines = {}
        learn = {system: one for system, one in learn.items() if system in STAGES or system in arm.systems}
        curves = [system for system in curves if system in arm.systems]
    evaluate = {**table["evaluate"], "curves": curves}
    changed = {"learn": learn, "evaluate": evaluate, "baselines": baselines}
    return {**table, "name": f"{table['name']}-{name}", **changed}


def _changed(table: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`table` with the keys of `change` in place of its own, table by table."""
    merged = dict(table)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _changed(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
