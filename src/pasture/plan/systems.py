"""The steps that make each system of a recipe: its training, the choice of a checkpoint, its answers, its curve."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pasture.core.errors import RecipeError
from pasture.plan.graph import Step
from pasture.plan.settings import baseline_settings, judge_settings, label_settings, method_settings, start_settings
from pasture.recipe import STAGES, UNTRAINED, Recipe

DATA = "1-data"
START = "4-learn/start"
SFT = "4-learn/sft"
REWARD_MODEL = "4-learn/reward_model"
PAIRS = "2-generate/preference"
LABELS = "3-annotate/preference"

LearnsFrom = Literal["candidates", "scores", "preferences", "judgements"]
LEARNS_FROM: Mapping[str, LearnsFrom] = {
    "best_of_n": "candidates",
    "ppo": "scores",
    "rloo": "scores",
    "grpo": "scores",
    "expert_iteration": "scores",
    "online_dpo": "scores",
    "quark": "scores",
    "dpo": "preferences",
    "simpo": "preferences",
    "kto": "preferences",
    "feedme": "preferences",
    "reward_conditioning": "preferences",
}
"""What a method is given beside the SFT model: several answers to choose from, a scorer to please, or the labels; where
it says `judge = "annotator"`, an annotator's judgements of its own answers."""


@dataclass(frozen=True)
class Systems:
    """Steps in the order of their making, and where each system's answers lie, by split and system."""

    steps: list[Step] = field(default_factory=list)
    answers: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, step: Step) -> str:
        """Take the step in; its name comes back."""
        self.steps.append(step)
        return step.name


def learns_from(recipe: Recipe, name: str) -> LearnsFrom:
    """What the method of the system `name` is given; a user's own method says so itself.

    Raises:
        RecipeError: if nothing says so.
    """
    table = recipe.learn[name]
    if table["method"] == "online_dpo" and table.get("judge") == "annotator":
        return "judgements"
    found: LearnsFrom | None = table.get("learns_from") or LEARNS_FROM.get(table["method"])
    if found is None:
        raise RecipeError(f"[learn.{name}]: nothing says what the method {table['method']!r} learns from.")
    return found


def answered_splits(recipe: Recipe) -> list[str]:
    """The splits that every system answers, to be judged."""
    return ["evaluation", "live"] if recipe.data.live else ["evaluation"]


def plan_systems(recipe: Recipe) -> Systems:
    """All systems of a recipe; what they build on (data, SFT, feedback) is planned before."""
    systems = Systems(answers={split: {} for split in answered_splits(recipe)})
    for split in systems.answers:
        _answers(recipe, "base", split, {"data": DATA, **start_needs(recipe)}, systems)
        if "sft" in recipe.learn:
            _answers(recipe, "sft", split, {"data": DATA, "model": SFT}, systems)
    for name in recipe.learn:
        if name in STAGES:
            continue
        if learns_from(recipe, name) == "candidates":
            _chosen_answers(recipe, name, systems)
        else:
            _trained(recipe, name, systems)
    for split, answers in systems.answers.items():
        answers |= {name: _given(split, name) for name in recipe.baselines}
    return systems


STAGE_OF = {"sft": "sft", "reward_model": "reward_model", "reward_model_ensemble": "reward_model"}
"""Methods by the stage that they make."""


def start_needs(recipe: Recipe) -> dict[str, str]:
    """The step that makes the model to start from, where one does."""
    return {"model": START} if recipe.model.start == UNTRAINED else {}


def _answers(recipe: Recipe, system: str, split: str, needs: Mapping[str, str], systems: Systems) -> None:
    settings = {
        "system": system,
        "split": split,
        "decoding": recipe.answering.model_dump(),
        "seed": recipe.seed,
        **start_settings(recipe),
    }
    count = getattr(recipe.data, split)
    name = systems.add(Step(f"2-generate/{split}/{system}", "generate.answers", settings, needs, units=count))
    systems.answers[split][system] = name


def baseline_steps(recipe: Recipe) -> list[Step]:
    """The answers of systems that are not made here, which can be wanting: so they come before anything is trained."""
    steps = []
    for split in answered_splits(recipe):
        for name, baseline in recipe.baselines.items():
            settings = {"system": name, "split": split, **baseline_settings(recipe, baseline, split)}
            work = "given.written" if baseline.writer else "given.from_file"
            count = getattr(recipe.data, split)
            steps.append(Step(_given(split, name), work, settings, {"data": DATA}, units=count))
    return steps


def _given(split: str, name: str) -> str:
    return f"2-generate/{split}/{name}"


def _chosen_answers(recipe: Recipe, name: str, systems: Systems) -> None:
    """A method that chooses among answers of the SFT model."""
    settings = method_settings(recipe, name)
    for split, answers in systems.answers.items():
        candidates = _candidates(recipe, name, split, settings["config"]["n"], systems)
        place = name if split == "evaluation" else f"{split}/{name}"
        answers[name] = systems.add(
            Step(
                f"4-learn/{place}",
                "learn.chosen",
                {**settings, "system": name, "split": split},
                {"data": DATA, "candidates": candidates, **_scorer_needs(recipe, name)},
                units=settings["config"]["n"] * getattr(recipe.data, split),
            )
        )
    if name in recipe.evaluate.curves:
        most = max(recipe.evaluate.curve_n, settings["config"]["n"])
        candidates = _candidates(recipe, name, "validation", most, systems)
        _curve(recipe, name, {"data": DATA, "answers": candidates}, "curves.of_best_of_n", systems)


def _candidates(recipe: Recipe, name: str, split: str, n: int, systems: Systems) -> str:
    settings = {
        "n": n,
        "split": split,
        "decoding": recipe.sampling.model_dump(),
        "seed": recipe.seed,
        "template": recipe.model.template,
    }
    needs = {"data": DATA, "model": SFT}
    units = n * getattr(recipe.data, split)
    return systems.add(Step(f"2-generate/{split}/{name}", "generate.candidates", settings, needs, units=units))


def _trained(recipe: Recipe, name: str, systems: Systems) -> None:
    """A method that trains; where it saves copies on its way, one is picked on the validation split."""
    training = systems.add(_training(recipe, name))
    needs = {"data": DATA, "checkpoints": training}
    if _saves_on_its_way(recipe, name):
        needs["selection"] = _selection(recipe, name, training, systems)
    for split in systems.answers:
        _answers(recipe, name, split, needs, systems)


def has_curve(recipe: Recipe, name: str) -> bool:
    """Whether a method can be followed: over n, or over the policies that it keeps."""
    return learns_from(recipe, name) == "candidates" or _saves_on_its_way(recipe, name)


def _saves_on_its_way(recipe: Recipe, name: str) -> bool:
    """Whether a method leaves several policies to pick from: one every few steps, or one a round."""
    config = recipe.learn[name]
    return "save_every" in config or config.get("rounds", 1) > 1


_USUAL_COPIES = 3


def policy_count(recipe: Recipe, name: str) -> int:
    """How many policies there are to pick from: what a method saves on its way, and the one that it begins with.

    Of a user's own method, which saves as it likes, a guess.
    """
    config = recipe.learn[name]
    every = config.get("save_every")
    if config.get("rounds", 1) > 1:
        return 1 + int(config["rounds"])
    if every and "steps" in config:  # the last step's is kept as well
        steps = int(config["steps"])
    elif every and "batch_size" in config:
        rows = max(1, recipe.data.preference - config.get("held_out_count", 0))
        steps = math.ceil(rows / config["batch_size"]) * config.get("epochs", 1)
    else:
        return 1 + _USUAL_COPIES
    copies: int = math.ceil(steps / every)
    return 1 + copies


def _training(recipe: Recipe, name: str) -> Step:
    settings = method_settings(recipe, name)
    config = settings["config"]
    source = learns_from(recipe, name)
    if source in ("scores", "judgements"):
        needs = {"data": DATA, "model": SFT}
        units = config.get("steps", config.get("rounds", 1)) * config.get("rollout_batch_size", recipe.data.unlabeled)
        if source == "judgements":
            settings |= _asked(recipe, name)
            return Step(f"4-learn/{name}", "learn.from_judgements", settings, needs, units=units)
        needs |= _scorer_needs(recipe, name)
        if config.get("fine_tune") == "base":
            settings |= start_settings(recipe)
            needs |= {"base": START} if recipe.model.start == UNTRAINED else {}
        return Step(f"4-learn/{name}", "learn.from_scores", settings, needs, units=units)
    needs = {"pairs": PAIRS, "labels": LABELS, "model": SFT}
    units = config.get("epochs", 1) * recipe.data.preference
    return Step(f"4-learn/{name}", "learn.from_preferences", settings, needs, units=units)


def needs_reward_model(recipe: Recipe, name: str) -> bool:
    """Whether a method cannot do without the reward model: its scores, PPO's values, a curve along its scores."""
    scored = learns_from(recipe, name) in ("candidates", "scores") or name in recipe.evaluate.curves
    return (scored and not _own_scorer(recipe, name)) or recipe.learn[name]["method"] == "ppo"


def _own_scorer(recipe: Recipe, name: str) -> dict[str, str]:
    """The user's own scorer, where the recipe names one for the method."""
    return {key: recipe.learn[name][key] for key in ("scorer", "scorer_code") if key in recipe.learn[name]}


def _scorer_needs(recipe: Recipe, name: str) -> dict[str, str]:
    return {"scorer": REWARD_MODEL} if needs_reward_model(recipe, name) else {}


def _asked(recipe: Recipe, name: str) -> dict[str, Any]:
    """The annotator that judges a method's answers as it learns: the one that labels for the reward model."""
    if recipe.feedback.file:
        raise RecipeError(
            f'[learn.{name}] judge = "annotator" asks feedback.annotator while it learns, but feedback.file brings '
            'labels that exist already. Leave feedback.file out, or set judge = "scorer".'
        )
    return label_settings(recipe, recipe.feedback)


def check_scorer(recipe: Recipe, name: str) -> None:
    """See that a method for which a scorer is named asks one.

    Raises:
        RecipeError: if it does not.
    """
    source = learns_from(recipe, name)
    if "scorer" in recipe.learn[name] and source not in ("candidates", "scores"):
        raise RecipeError(f"[learn.{name}] learns from {source} and asks no scorer. Leave the key out.")


def _selection(recipe: Recipe, name: str, training: str, systems: Systems) -> str:
    count = policy_count(recipe, name) * recipe.data.validation
    settings: dict[str, Any] = {
        "system": name,
        "decoding": recipe.answering.model_dump(),
        "seed": recipe.seed,
        "template": recipe.model.template,
    }
    needs = {"data": DATA, "model": SFT, "checkpoints": training}
    answers = systems.add(
        Step(f"2-generate/validation/{name}", "generate.checkpoint_answers", settings, needs, units=count)
    )
    judged = systems.add(
        Step(
            f"3-annotate/validation/{name}",
            "annotate.judge_checkpoints",
            label_settings(recipe, recipe.selection),
            {"data": DATA, "answers": answers},
            units=count,
        )
    )
    if name in recipe.evaluate.curves:
        drift = systems.add(_drift(recipe, name, needs))
        _curve(recipe, name, {"data": DATA, "answers": answers, "drift": drift}, "curves.of_checkpoints", systems)
    return systems.add(
        Step(
            f"5-evaluate/selection/{name}",
            "evaluate.select",
            {"seed": recipe.seed, "judge": recipe.selection.annotator},
            {"judged": judged, "answers": answers},
            units=1,
        )
    )


def _drift(recipe: Recipe, name: str, needs: Mapping[str, str]) -> Step:
    """How far each checkpoint has moved from the SFT model, in nats an answer."""
    settings = {
        "seed": recipe.seed,
        "template": recipe.model.template,
        "max_new_tokens": recipe.sampling.max_new_tokens,
    }
    count = policy_count(recipe, name) * recipe.data.validation
    return Step(f"4-learn/drift/{name}", "learn.drifts", settings, needs, units=count)


def _curve(recipe: Recipe, name: str, needs: Mapping[str, str], work: str, systems: Systems) -> None:
    """How the reward model's score and the judges' win rates go along a method, on the validation split."""
    answers = {"data": needs["data"], "answers": needs["answers"]}
    each = recipe.evaluate.curve_n if work == "curves.of_best_of_n" else policy_count(recipe, name)
    count = recipe.data.validation * each
    judged = systems.add(
        Step(
            f"3-annotate/curve/{name}",
            "annotate.judge_curve",
            judge_settings(recipe),
            answers,
            units=count * len(recipe.evaluate.judges),
        )
    )
    scored = systems.add(
        Step(
            f"4-learn/curve/{name}",
            "learn.score_answers",
            {"template": recipe.model.template, **_own_scorer(recipe, name)},
            {**answers, **({} if _own_scorer(recipe, name) else {"scorer": REWARD_MODEL})},
            units=count,
        )
    )
    systems.add(
        Step(
            f"5-evaluate/curve/{name}",
            work,
            {"system": name, "progress": _progress_name(recipe, name), "judges": list(recipe.evaluate.judges)},
            {**needs, "judged": judged, "scored": scored},
            units=1,
        )
    )


def _progress_name(recipe: Recipe, name: str) -> str:
    """What a method goes on by."""
    config = recipe.learn[name]
    return "n" if learns_from(recipe, name) == "candidates" else "round" if "rounds" in config else "step"
