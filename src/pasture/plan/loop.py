"""From a recipe to the steps of one run, from instructions to the report."""

import re
from typing import Any

from pasture.annotate.raters import meadow_annotator
from pasture.core.errors import RecipeError
from pasture.plan.graph import Plan, Step, assemble
from pasture.plan.material import Outline, absent, require_here
from pasture.plan.settings import (
    data_settings,
    feedback_settings,
    identity_hash,
    judge_settings,
    label_settings,
    method_settings,
    start_settings,
)
from pasture.plan.systems import (
    DATA,
    LABELS,
    PAIRS,
    REWARD_MODEL,
    SFT,
    STAGE_OF,
    START,
    Systems,
    answered_splits,
    baseline_steps,
    check_scorer,
    has_curve,
    learns_from,
    needs_reward_model,
    plan_systems,
    start_needs,
)
from pasture.recipe import MEADOW, STAGES, UNTRAINED, Baseline, Recipe, resolved_for_steps
from pasture.world.writing import WRITERS

BOARD = "5-evaluate/board"
ANNOTATORS = "6-validate/annotators"
REPORT = "7-report"

LENGTH_CONTROL_DRAWS = 500
"""Resamples of instructions, each with a refit, behind the error of a rate at equal length."""

_SYSTEM_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_RESERVED = ("base", "start", "live", "curve", "drift", "demonstrations")
"""Names of what every run has: the systems' names become folders beside theirs."""


def build(recipe: Recipe) -> Plan:
    """The plan of a recipe whose method settings are complete (`pasture.flow.prepare` fills them in).

    Raises:
        RecipeError: if a method lacks another one that it builds on.
        ModelError: if a model is not here.
        DataError: if a file is not here.
    """
    found = outline(recipe)
    require_here(found.absent)
    return found.plan


def outline(recipe: Recipe) -> Outline:
    """As `build` does, also where the model or the data are not here.

    Raises:
        RecipeError: as `build` does.
    """
    steps = list(steps_before_report(recipe))
    steps.append(_report(recipe, steps))
    return Outline(assemble(steps), tuple(absent(recipe, steps)))


def steps_before_report(recipe: Recipe) -> list[Step]:
    """Every step of a run but the report.

    Raises:
        RecipeError: if a method lacks another one that it builds on.
    """
    _check_methods(recipe)
    _check_baselines(recipe)
    steps = [_data(recipe), *baseline_steps(recipe)]
    if recipe.model.start == UNTRAINED:
        steps.append(Step(START, "learn.new_model", {"seed": recipe.seed}, units=1))
    if "sft" in recipe.learn:
        steps.append(_sft(recipe))
    if _needs_feedback(recipe):
        steps += _feedback(recipe)
    if "reward_model" in recipe.learn:
        steps.append(_reward_model(recipe))
    systems = plan_systems(recipe)
    steps += systems.steps
    steps += _judged(recipe, systems)
    if _needs_feedback(recipe) and recipe.data.source == MEADOW and not recipe.feedback.file:
        steps.append(_annotators(recipe))
    return steps


def _check_methods(recipe: Recipe) -> None:
    for name, table in recipe.learn.items():
        method = table["method"]
        _check_name("learn", name)
        if STAGE_OF.get(method) != (name if name in STAGES else None):
            raise RecipeError(
                f"[learn.{name}] says method = {method!r}. {' and '.join(STAGES)} are the stages that other methods "
                f"build on: the methods {', '.join(STAGE_OF)} each stand in the table of their stage and in no other."
            )
        if name not in STAGES:
            check_scorer(recipe, name)
        needed = _builds_on(recipe, name)
        if needed is not None and needed not in recipe.learn:
            raise RecipeError(
                f"[learn.{name}] builds on [learn.{needed}], which the recipe lacks. "
                f"Add an empty table [learn.{needed}] to take its defaults."
            )
    unknown = sorted(set(recipe.evaluate.curves) - (set(recipe.learn) - set(STAGES)))
    if unknown:
        raise RecipeError(f"evaluate.curves names {unknown[0]!r}, but there is no [learn.{unknown[0]}].")
    for name in recipe.evaluate.curves:
        if not has_curve(recipe, name):
            raise RecipeError(
                f"evaluate.curves names {name!r}, which keeps nothing on its way that a curve could follow. Set "
                "save_every, or rounds above 1, where its method has them, or leave it out."
            )


def _check_name(table: str, name: str) -> None:
    if not _SYSTEM_NAME.fullmatch(name) or name in _RESERVED:
        raise RecipeError(
            f"[{table}.{name}]: a system cannot be called {name!r}. Expected small letters, digits, '-' and '_', "
            f"and none of {', '.join(_RESERVED)}."
        )


def _check_baselines(recipe: Recipe) -> None:
    for name, baseline in recipe.baselines.items():
        _check_name("baselines", name)
        if name in recipe.learn or name == "sft":
            raise RecipeError(f"[baselines.{name}]: [learn.{name}] makes a system of that name. Choose another.")
        problem = _writer_problem(recipe, baseline) if baseline.writer else _file_problem(recipe, baseline)
        if problem:
            raise RecipeError(f"[baselines.{name}]: {problem}")


def _writer_problem(recipe: Recipe, baseline: Baseline) -> str:
    if baseline.evaluation or baseline.live:
        return "give a writer or files of answers, not both."
    if recipe.data.source != MEADOW:
        return "writers know the meadow's instructions only. Name files of answers."
    if baseline.writer not in WRITERS:
        return f"no writer {baseline.writer!r}. Writers: {', '.join(WRITERS)}."
    return ""


def _file_problem(recipe: Recipe, baseline: Baseline) -> str:
    lacking = [split for split in answered_splits(recipe) if not getattr(baseline, split)]
    if not lacking:
        return ""
    return f'no answers to the {lacking[0]} instructions. Name their file: {lacking[0]} = "answers.json".'


def _builds_on(recipe: Recipe, name: str) -> str | None:
    if name in STAGES:
        return {"sft": None, "reward_model": "sft"}[name]
    return "reward_model" if needs_reward_model(recipe, name) else "sft"


def _needs_feedback(recipe: Recipe) -> bool:
    return any(name == "reward_model" or _learns_from_labels(recipe, name) for name in recipe.learn)


def _learns_from_labels(recipe: Recipe, name: str) -> bool:
    return name not in STAGES and learns_from(recipe, name) == "preferences"


def _data(recipe: Recipe) -> Step:
    return Step(
        DATA,
        "data.instructions",
        data_settings(recipe),
        units=sum(value for value in recipe.data.model_dump().values() if isinstance(value, int)),
    )


def _sft(recipe: Recipe) -> Step:
    settings = {
        **method_settings(recipe, "sft"),
        "demonstrations": recipe.data.demonstrations,
        **start_settings(recipe),
    }
    units = recipe.data.sft * settings["config"]["epochs"]
    return Step(SFT, "learn.sft", settings, {"data": DATA, **start_needs(recipe)}, units=units)


def _feedback(recipe: Recipe) -> list[Step]:
    if recipe.feedback.file:
        count = recipe.data.preference
        given = feedback_settings(recipe)
        return [
            Step(PAIRS, "data.feedback", given, units=count),
            Step(LABELS, "data.labels", {}, {"pairs": PAIRS}, units=count),
        ]
    sampling: dict[str, Any] = {
        "split": "preference",
        "decoding": recipe.sampling.model_dump(),
        "seed": recipe.seed,
        "template": recipe.model.template,
    }
    count = recipe.data.preference
    return [
        Step(PAIRS, "generate.pairs", sampling, {"data": DATA, "model": SFT}, units=2 * count),
        Step(LABELS, "annotate.label", label_settings(recipe, recipe.feedback), {"pairs": PAIRS}, units=count),
    ]


def _reward_model(recipe: Recipe) -> Step:
    settings = method_settings(recipe, "reward_model")
    units = recipe.data.preference * settings["config"]["epochs"]
    needs = {"pairs": PAIRS, "labels": LABELS, "model": SFT}
    return Step(REWARD_MODEL, "learn.from_preferences", settings, needs, units=units)


def _judged(recipe: Recipe, systems: Systems) -> list[Step]:
    """Every system's answers judged, and a board for each split."""
    steps = []
    for split, answers in systems.answers.items():
        for system, step in answers.items():
            settings = {**judge_settings(recipe), "split": split}
            units = getattr(recipe.data, split) * len(recipe.evaluate.judges)
            needs = {"data": DATA, "answers": step}
            steps.append(Step(f"3-annotate/{split}/{system}", "annotate.judge_system", settings, needs, units=units))
        steps.append(_board(recipe, split, list(answers)))
    return steps


def _board(recipe: Recipe, split: str, systems: list[str]) -> Step:
    settings = {
        "systems": systems,
        "judges": list(recipe.evaluate.judges),
        "reference": recipe.evaluate.reference,
        "length_control_draws": LENGTH_CONTROL_DRAWS,
        "seed": recipe.seed,
    }
    needs = {system: f"3-annotate/{split}/{system}" for system in systems}
    name = BOARD if split == "evaluation" else f"5-evaluate/{split}"
    return Step(name, "evaluate.board", settings, needs, units=len(systems))


_CROSS_ANNOTATED = 2_000
"""Pairs that people and pool label several times each, to be compared; costs nothing in the meadow."""


def _annotators(recipe: Recipe) -> Step:
    settings = {
        "pairs": _CROSS_ANNOTATED,
        "label_flip_probability": recipe.feedback.label_flip_probability,
        "seed": recipe.seed,
        "identities": [identity_hash(meadow_annotator(name, seed=recipe.seed)) for name in ("people", "pool")],
    }
    units = min(_CROSS_ANNOTATED, recipe.data.preference)
    return Step(ANNOTATORS, "validate.annotators", settings, {"pairs": PAIRS}, units=units)


def _report(recipe: Recipe, steps: list[Step]) -> Step:
    needs = {step.name: step.name for step in steps}
    return Step(REPORT, "report.page", {"recipe": resolved_for_steps(recipe)}, needs, units=1)
