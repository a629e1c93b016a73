"""Time on two cores, by rates that were measured with the built-in model.

They are CPU seconds of each step by its units, one thread, in the simulation's arm of `recipes/meadow/study.toml` and,
for GRPO, online DPO, SimPO and KTO, in `recipes/meadow/methods.toml`, each with a third of the labels and steps or
fewer; measured on 2026-11-27 on one of two virtual cores of an AMD EPYC with AVX-512 that others used beside it, after
training began to read no padding. Whole runs beside what these rates say: the steps of `loop.toml` with two threads
took 148 s (2 min 37 s in all), and 147 s is said, for which the figure for two threads was chosen; `study.toml` with
one thread and 10,000 pairs, which it had then, took some 39 CPU minutes, where 34 were said.

Work on another model is scaled by the number of its weights, and neither by the length of its texts nor by its
vocabulary: right to a factor of a few.
"""

from pasture.estimate.labels import OWN_MODELS, pools_asked
from pasture.estimate.size import judge_parameter_count, parameter_count
from pasture.plan import Step
from pasture.recipe import Recipe

SECONDS_PER_UNIT = {
    "data.instructions": 1.8e-4,
    "data.feedback": 1.5e-4,
    "data.labels": 1.0e-5,
    "learn.new_model": 0.3,
    "learn.sft": 2.6e-3,
    "generate.pairs": 1.5e-3,
    "annotate.label": 1.5e-4,
    "generate.answers": 2.6e-3,
    "given.written": 1.0e-4,
    "given.from_file": 3.1e-5,
    "generate.candidates": 1.4e-3,
    "learn.chosen": 8.9e-4,
    "learn.score_answers": 7.4e-4,
    "learn.drifts": 4.2e-3,
    "learn.from_scores": 8.0e-3,
    "learn.from_judgements": 8.0e-3,
    "learn.from_preferences": 6.0e-3,
    "generate.checkpoint_answers": 3.1e-3,
    "annotate.judge_checkpoints": 1.9e-4,
    "evaluate.select": 0.28,
    "annotate.judge_curve": 8.7e-5,
    "annotate.judge_system": 9.0e-5,
    "curves.of_best_of_n": 3.4,
    "curves.of_checkpoints": 0.12,
    "evaluate.board": 0.25,
    "validate.annotators": 1.7e-3,
    "report.page": 1.6,
    "study.results": 4.5,
    "study.noise": 2.3e-3,
    "study_page.page": 4.8,
}
"""By work; the unit is the one that `pasture.plan` counts for that work."""

SECONDS_PER_UNIT_OF_METHOD = {
    "ppo": 2.4e-2,
    "expert_iteration": 3.0e-2,
    "quark": 8.1e-3,
    "rloo": 6.1e-3,
    "grpo": 7.6e-3,
    "online_dpo": 8.4e-3,
    "reward_model": 3.7e-3,
    "dpo": 7.0e-3,
    "simpo": 5.4e-3,
    "kto": 8.7e-3,
    "feedme": 3.3e-3,
    "reward_conditioning": 6.1e-3,
}
"""By method, where it is known, in place of the rate of its work; expert iteration with eight answers a prompt."""

_BUILT_IN_WEIGHTS = 0.7e6
_ANSWERS_OF_EXPERT_ITERATION = 8
_TWO_THREADS = 0.7
"""What two threads take of the seconds that one takes for work on tensors: of the loop's, 135 of 190."""
_ROWS_OF_A_JUDGEMENT = 20
"""A judge reads some 1,200 tokens, its examples included; an answer that the built-in model scores has some 60."""
_TENSOR_WORK = ("learn.", "generate.")


def seconds(step: Step, recipe: Recipe) -> float:
    """Expected duration of a step that has both cores, without what is waited for."""
    rate = _rate(step)
    if not _works_on_tensors(step):
        return rate * step.units + _judging_seconds(step, recipe)
    threads = 1.0 if recipe.threads == 1 else _TWO_THREADS
    return rate * step.units * _scale(parameter_count(recipe)) * threads + _judging_seconds(step, recipe)


def slower_with_one_core(step: Step, recipe: Recipe) -> float:
    """How many times as long a step takes that has one core to itself."""
    return 1 / _TWO_THREADS if _works_on_tensors(step) and recipe.threads != 1 else 1.0


def _rate(step: Step) -> float:
    method = step.settings.get("method")
    if method not in SECONDS_PER_UNIT_OF_METHOD or step.work not in ("learn.from_scores", "learn.from_preferences"):
        return SECONDS_PER_UNIT[step.work]
    rate = SECONDS_PER_UNIT_OF_METHOD[method]
    drawn = step.settings["config"].get("n", _ANSWERS_OF_EXPERT_ITERATION) if method == "expert_iteration" else 0
    return rate * drawn / _ANSWERS_OF_EXPERT_ITERATION if drawn else rate


def _works_on_tensors(step: Step) -> bool:
    return step.work.startswith(_TENSOR_WORK)


def _judging_seconds(step: Step, recipe: Recipe) -> float:
    """Of a language model on this machine that judges."""
    row = SECONDS_PER_UNIT["learn.score_answers"] * _ROWS_OF_A_JUDGEMENT
    return sum(
        labels * row * _scale(judge_parameter_count(recipe, name))
        for name, labels in pools_asked(step, recipe).items()
        if recipe.pools[name].engine in OWN_MODELS
    )


def _scale(weights: float) -> float:
    return max(1.0, weights / _BUILT_IN_WEIGHTS)
