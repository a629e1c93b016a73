"""From a recipe to the steps that it takes: a graph with a content hash for every step.

A step's key hashes what its result depends on: the work, its settings, its seed, the keys of what it reads and the
content of files from outside. Steps with the same key do the same work, in this run or in another.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pasture.annotate.raters import meadow_annotator
from pasture.core.errors import RecipeError
from pasture.core.files import fingerprint
from pasture.core.ports import Annotator
from pasture.recipe import UNTRAINED, Feedback, Recipe, Selection, resolved, start_folder

WORK_VERSION = 1
"""Raised when a release changes what a step computes, so that older results are not taken for new ones."""


@dataclass(frozen=True)
class Step:
    """One piece of work with one folder of results."""

    name: str
    """Its folder in the run: room number and name, then what it is."""
    work: str
    """`room.function`, looked up in `pasture.steps`."""
    settings: Mapping[str, Any]
    """All that the work needs to know beside its inputs; plain JSON."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Step names by the role that they play as inputs."""
    units: float = 0.0
    """Size of the work in the unit of `pasture.estimate`."""


@dataclass(frozen=True)
class Plan:
    """The steps of a run in an order in which each comes after what it needs."""

    steps: tuple[Step, ...]
    keys: Mapping[str, str]
    """Content hash by step name."""


def assemble(steps: list[Step]) -> Plan:
    """The plan of `steps`, which must be listed after what they need."""
    keys: dict[str, str] = {}
    for step in steps:
        if step.name in keys:
            raise ValueError(f"two steps are called {step.name!r}")
        identity = {
            "version": WORK_VERSION,
            "work": step.work,
            "settings": step.settings,
            "needs": {role: keys[name] for role, name in step.needs.items()},
        }
        keys[step.name] = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Plan(tuple(steps), keys)


DATA = "1-data"
START = "4-learn/start"
SFT = "4-learn/sft"
REWARD_MODEL = "4-learn/reward_model"
BOARD = "5-evaluate/board"
ANNOTATORS = "6-validate/annotators"
REPORT = "7-report"

STAGES = ("sft", "reward_model")
"""What other methods build on; tables of these names are no systems of their own but for the SFT model."""

LearnsFrom = Literal["candidates", "scores"]
LEARNS_FROM: Mapping[str, LearnsFrom] = {"best_of_n": "candidates", "ppo": "scores"}
"""What a method is given beside the SFT model: several answers to choose from, or a scorer to please."""


_SYSTEM_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_RESERVED = ("base", "start")
"""Names of what every run has: the systems' names become folders beside theirs."""


def build(recipe: Recipe) -> Plan:
    """The plan of a recipe whose method settings are complete (`pasture.flow.prepare` fills them in).

    Raises:
        RecipeError: if a method lacks another one that it builds on.
    """
    _check_methods(recipe)
    steps = [_data(recipe)]
    if recipe.model.start == UNTRAINED:
        steps.append(Step(START, "learn.new_model", {"seed": recipe.seed}, units=1))
    if "sft" in recipe.learn:
        steps.append(_sft(recipe))
    if "reward_model" in recipe.learn:
        steps += _feedback(recipe)
    systems = _systems(recipe, steps)
    steps += [_judged(recipe, system, answers) for system, answers in systems.items()]
    steps.append(_board(recipe, list(systems)))
    if "reward_model" in recipe.learn:
        steps.append(_annotators(recipe))
    steps.append(_report(recipe, steps))
    return assemble(steps)


def _check_methods(recipe: Recipe) -> None:
    for name, table in recipe.learn.items():
        method = table["method"]
        if not _SYSTEM_NAME.fullmatch(name) or name in _RESERVED:
            raise RecipeError(
                f"[learn.{name}]: a system cannot be called {name!r}. Expected small letters, digits, '-' and '_', "
                f"and none of {', '.join(_RESERVED)}."
            )
        if (name in STAGES or method in STAGES) and name != method:
            raise RecipeError(
                f"[learn.{name}] says method = {method!r}. {' and '.join(STAGES)} are the stages that other methods "
                "build on: each has the table of its own name, and no other table names it."
            )
        needed = {"sft": None, "reward_model": "sft"}.get(name, "reward_model")
        if needed is not None and needed not in recipe.learn:
            raise RecipeError(
                f"[learn.{name}] builds on [learn.{needed}], which the recipe lacks. "
                f"Add an empty table [learn.{needed}] to take its defaults."
            )


def _data(recipe: Recipe) -> Step:
    return Step(
        DATA,
        "data.instructions",
        {**recipe.data.model_dump(), "seed": recipe.seed},
        units=sum(value for value in recipe.data.model_dump().values() if isinstance(value, int)),
    )


def _sft(recipe: Recipe) -> Step:
    settings = {
        **_method(recipe, "sft"),
        "demonstrations": recipe.data.demonstrations,
        **_start(recipe),
    }
    return Step(
        SFT,
        "learn.sft",
        settings,
        {"data": DATA, **_start_needs(recipe)},
        units=recipe.data.sft * settings["config"]["epochs"],
    )


def _start_needs(recipe: Recipe) -> dict[str, str]:
    return {"model": START} if recipe.model.start == UNTRAINED else {}


def _start(recipe: Recipe) -> dict[str, Any]:
    start = recipe.model.start
    fingerprint = "" if start == UNTRAINED else folder_fingerprint(start_folder(start))
    return {**recipe.model.model_dump(), "start_fingerprint": fingerprint}


def _feedback(recipe: Recipe) -> list[Step]:
    pairs = Step(
        "2-generate/preference",
        "generate.pairs",
        {
            "split": "preference",
            "decoding": recipe.sampling.model_dump(),
            "seed": recipe.seed,
            "template": recipe.model.template,
        },
        {"data": DATA, "model": SFT},
        units=2 * recipe.data.preference,
    )
    labels = Step(
        "3-annotate/preference",
        "annotate.label",
        _annotation(recipe, recipe.feedback),
        {"pairs": pairs.name},
        units=recipe.data.preference,
    )
    settings = _method(recipe, "reward_model")
    reward_model = Step(
        REWARD_MODEL,
        "learn.reward_model",
        settings,
        {"pairs": pairs.name, "labels": labels.name, "model": SFT},
        units=recipe.data.preference * settings["config"]["epochs"],
    )
    return [pairs, labels, reward_model]


def _annotation(recipe: Recipe, who: Feedback | Selection) -> dict[str, Any]:
    """Who labels, as settings; the hash of its identity redoes the labels when a release changes the annotators."""
    annotator = meadow_annotator(who.annotator, seed=recipe.seed, label_flip_probability=who.label_flip_probability)
    return {**who.model_dump(), "seed": recipe.seed, "identity": _identity(annotator)}


def _identity(annotator: Annotator) -> str:
    return hashlib.sha256(json.dumps(annotator.identity, sort_keys=True).encode()).hexdigest()


def _systems(recipe: Recipe, steps: list[Step]) -> dict[str, str]:
    """Append the steps that make each system and its answers; the step that holds the answers, by system."""
    systems = {"base": _answers(recipe, "base", {"data": DATA, **_start_needs(recipe)}, steps)}
    if "sft" in recipe.learn:
        systems["sft"] = _answers(recipe, "sft", {"data": DATA, "model": SFT}, steps)
    build_system = {"candidates": _chosen_answers, "scores": _trained_on_scores}
    for name, table in recipe.learn.items():
        if name not in STAGES:
            systems[name] = build_system[LEARNS_FROM[table["method"]]](recipe, name, steps)
    return systems


def _answers(recipe: Recipe, system: str, needs: Mapping[str, str], steps: list[Step]) -> str:
    settings = {"system": system, "decoding": recipe.answering.model_dump(), "seed": recipe.seed, **_start(recipe)}
    step = Step(f"2-generate/evaluation/{system}", "generate.answers", settings, needs, units=recipe.data.evaluation)
    steps.append(step)
    return step.name


def _method(recipe: Recipe, name: str) -> dict[str, Any]:
    return {
        "config": {key: value for key, value in recipe.learn[name].items() if key != "method"},
        "seed": recipe.seed,
        "template": recipe.model.template,
    }


def _chosen_answers(recipe: Recipe, name: str, steps: list[Step]) -> str:
    """A method that chooses among answers of the SFT model."""
    settings = _method(recipe, name)
    count = settings["config"]["n"] * recipe.data.evaluation
    candidates = Step(
        f"2-generate/evaluation/{name}",
        "generate.candidates",
        {
            "n": settings["config"]["n"],
            "decoding": recipe.sampling.model_dump(),
            "seed": recipe.seed,
            "template": recipe.model.template,
        },
        {"data": DATA, "model": SFT},
        units=count,
    )
    chosen = Step(
        f"4-learn/{name}",
        f"learn.{recipe.learn[name]['method']}",
        {**settings, "system": name},
        {"data": DATA, "candidates": candidates.name, "scorer": REWARD_MODEL},
        units=count,
    )
    steps += [candidates, chosen]
    return chosen.name


def _trained_on_scores(recipe: Recipe, name: str, steps: list[Step]) -> str:
    """A method that learns from scores of its own answers; one of its saved steps is picked on the validation split."""
    settings = _method(recipe, name)
    config = settings["config"]
    training = Step(
        f"4-learn/{name}",
        f"learn.{recipe.learn[name]['method']}",
        settings,
        {"data": DATA, "model": SFT, "scorer": REWARD_MODEL},
        units=config["steps"] * config["rollout_batch_size"],
    )
    count = (config["steps"] // config["save_every"] + 1) * recipe.data.validation
    answers = Step(
        f"2-generate/validation/{name}",
        "generate.checkpoint_answers",
        {
            "system": name,
            "decoding": recipe.answering.model_dump(),
            "seed": recipe.seed,
            "template": recipe.model.template,
        },
        {"data": DATA, "model": SFT, "checkpoints": training.name},
        units=count,
    )
    judged = Step(
        f"3-annotate/validation/{name}",
        "annotate.judge_checkpoints",
        _annotation(recipe, recipe.selection),
        {"data": DATA, "answers": answers.name},
        units=count,
    )
    selection = Step(
        f"5-evaluate/selection/{name}",
        "evaluate.select",
        {"seed": recipe.seed},
        {"judged": judged.name, "answers": answers.name},
        units=1,
    )
    steps += [training, answers, judged, selection]
    needs = {"data": DATA, "checkpoints": training.name, "selection": selection.name}
    return _answers(recipe, name, needs, steps)


def _judged(recipe: Recipe, system: str, answers: str) -> Step:
    return Step(
        f"3-annotate/evaluation/{system}",
        "annotate.judge_system",
        {
            "judges": list(recipe.evaluate.judges),
            "seed": recipe.seed,
            "people_votes": recipe.evaluate.people_votes,
            "identities": [
                _identity(meadow_annotator(name, seed=recipe.seed, people_votes=recipe.evaluate.people_votes))
                for name in recipe.evaluate.judges
            ],
        },
        {"data": DATA, "answers": answers},
        units=recipe.data.evaluation * len(recipe.evaluate.judges),
    )


def _board(recipe: Recipe, systems: list[str]) -> Step:
    settings = {
        "systems": systems,
        "judges": list(recipe.evaluate.judges),
        "reference": recipe.evaluate.reference,
        "seed": recipe.seed,
    }
    needs = {system: f"3-annotate/evaluation/{system}" for system in systems}
    return Step(BOARD, "evaluate.board", settings, needs, units=len(systems))


_CROSS_ANNOTATED = 2_000
"""Pairs that people and pool label several times each, to be compared; costs nothing in the meadow."""


def _annotators(recipe: Recipe) -> Step:
    settings = {
        "pairs": _CROSS_ANNOTATED,
        "label_flip_probability": recipe.feedback.label_flip_probability,
        "seed": recipe.seed,
        "identities": [_identity(meadow_annotator(name, seed=recipe.seed)) for name in ("people", "pool")],
    }
    return Step(
        ANNOTATORS,
        "validate.annotators",
        settings,
        {"pairs": "2-generate/preference"},
        units=min(_CROSS_ANNOTATED, recipe.data.preference),
    )


def _report(recipe: Recipe, steps: list[Step]) -> Step:
    return Step(REPORT, "report.page", {"recipe": resolved(recipe)}, {step.name: step.name for step in steps}, units=1)


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over the names and fingerprints of a model folder's files."""
    rows = [f"{path.relative_to(folder)} {fingerprint(path)}" for path in sorted(folder.rglob("*")) if path.is_file()]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
