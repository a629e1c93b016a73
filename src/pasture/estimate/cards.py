"""Time and room on cards, from counts of operations.

They are 2 for each weight and token that is read or drawn, 6 for each that is trained on, 4 where adapters alone are
trained, and 2 more where layers are computed again to save memory.

What a method reads and trains on is counted as `pasture.learn` does it: a pair's prompt once for both answers, the
reference of DPO and KTO once before training, four models in PPO. Lengths are those of `estimate.tokens`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pasture.estimate.labels import OWN_MODELS, pools_asked
from pasture.estimate.size import judge_parameter_count, parameter_count
from pasture.estimate.tokens import PROMPT_TOKENS, answer_tokens
from pasture.plan import Step
from pasture.recipe import Cards, Recipe
from pasture.steps import together

JUDGEMENT_TOKENS = 1200.0
"""Of a judge's prompt, examples and both answers included."""
_READ, _TRAINED, _TRAINED_ADAPTERS = 2, 6, 4
_GIGA = 1e9


class Tokens(NamedTuple):
    """How many tokens pass through a model, by what is done with them."""

    trained: float = 0.0
    read: float = 0.0
    drawn: float = 0.0

    def times(self, number: float) -> "Tokens":
        """So many times as many of each."""
        return Tokens(*(number * count for count in self))


@dataclass(frozen=True)
class _Lengths:
    prompt: float
    answer: float

    @property
    def row(self) -> float:
        """A prompt and its answer."""
        return self.prompt + self.answer

    @property
    def pair(self) -> float:
        """A prompt and two answers to it."""
        return self.prompt + 2 * self.answer

    @property
    def drawing(self) -> Tokens:
        """One answer drawn."""
        return Tokens(read=self.prompt, drawn=self.answer)


def cards_of(step: Step, recipe: Recipe, cards: Cards) -> int:
    """How many cards a step works on: a training those of its processes, all else one."""
    return min(recipe.processes, cards.count) if step.work in together.WORK else 1


def seconds(step: Step, recipe: Recipe, cards: Cards) -> float:
    """Expected duration of a step on its cards, without what is waited for."""
    count = parameter_count(recipe)
    tokens = tokens_of(step, recipe)
    for name, labels in pools_asked(step, recipe).items():
        if recipe.pools[name].engine in OWN_MODELS:
            tokens = _plus(tokens, Tokens(read=labels * JUDGEMENT_TOKENS * judge_parameter_count(recipe, name) / count))
    learning = tokens.trained * _operations_of_training(step) + tokens.read * _READ
    drawing = tokens.drawn * _READ
    rates = cards.training_operations_per_second, cards.drawing_operations_per_second
    return count * (learning / rates[0] + drawing / rates[1]) / cards_of(step, recipe, cards)


def tokens_of(step: Step, recipe: Recipe) -> Tokens:
    """Tokens that a step trains on, reads and draws with models of the recipe's size."""
    config = step.settings.get("config", {})
    lengths = _Lengths(PROMPT_TOKENS, answer_tokens(recipe, config))
    if step.work == "learn.sft":
        return Tokens(trained=step.units * lengths.row)
    if step.work == "learn.from_preferences":
        return _of_preferences(step, config, lengths)
    if step.work in ("learn.from_scores", "learn.from_judgements"):
        return _of_answers(step, config, lengths)
    if step.work in ("learn.chosen", "learn.score_answers"):
        return Tokens(read=step.units * lengths.row)
    if step.work == "learn.drifts":
        return _plus(lengths.drawing, Tokens(read=2 * lengths.row)).times(step.units)
    return lengths.drawing.times(step.units) if step.work.startswith("generate.") else Tokens()


def _of_preferences(step: Step, config: Mapping[str, Any], lengths: _Lengths) -> Tokens:
    apart = 2 * lengths.row
    trained = {
        "feedme": lengths.row,
        "kto": apart,
        "reward_conditioning": apart,
        "reward_model_ensemble": lengths.pair * config.get("members", 1),
    }.get(step.settings["method"], lengths.pair)
    once = {"dpo": lengths.pair, "kto": apart}.get(step.settings["method"], 0.0)
    return Tokens(trained=step.units * trained, read=step.units / config.get("epochs", 1) * once)


def _of_answers(step: Step, config: Mapping[str, Any], lengths: _Lengths) -> Tokens:
    """A method that draws its own answers: each is read by the reference and the scorer, where there is one."""
    row = lengths.row
    scorers = 0 if step.work == "learn.from_judgements" or step.settings.get("scorer") else 1
    if step.settings["method"] == "expert_iteration":
        drawn = _plus(lengths.drawing, Tokens(read=scorers * row)).times(step.units * config["n"])
        return _plus(drawn, Tokens(trained=step.units * config["epochs"] * row))
    trained, values = config.get("inner_epochs", 1) * row, 0
    if step.settings["method"] == "ppo" and config.get("value") != "shared":
        trained, values = 2 * trained, 1
    return _plus(lengths.drawing, Tokens(trained=trained, read=(1 + scorers + values) * row)).times(step.units)


def _plus(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(*(a + b for a, b in zip(one, other, strict=True)))


def _operations_of_training(step: Step) -> int:
    weights = step.settings.get("config", {}).get("weights", {})
    operations = _TRAINED_ADAPTERS if weights.get("lora") else _TRAINED
    return operations + _READ if weights.get("gradient_checkpointing") else operations


_TRAINED_BYTES = {"bfloat16": 18, "float32": 16}
_HELD_BYTES = {"bfloat16": 2, "float32": 4}


def memory_gigabytes(step: Step, recipe: Recipe) -> float | None:
    """What a step keeps on a card, activations and caches not counted; None where it holds no model.

    For a weight that is trained in bfloat16: 2 bytes, 4 for its copy in float32, 8 for AdamW's two moments, 4 for the
    gradient; in float32 there is no copy. Adapters are below a hundredth of a model and left out. With fsdp2 each
    process holds its part of what is trained and of the reference, and while it draws the whole policy.
    """
    resting = _HELD_BYTES[recipe.model.weights.dtype]  # of a model that answers or scores, as it was saved
    if step.work.startswith("generate.") or step.work in ("learn.chosen", "learn.score_answers"):
        return parameter_count(recipe) * resting / _GIGA
    if step.work == "learn.drifts":
        return parameter_count(recipe) * 2 * resting / _GIGA
    if step.work not in together.WORK:
        return None
    weights = step.settings["config"].get("weights") or recipe.model.weights.model_dump()
    adapters = bool(weights.get("lora"))
    held = _HELD_BYTES[weights["dtype"]]
    trained, references, scorers = _models_held(step, adapters=adapters)
    parts = trained * (held if adapters else _TRAINED_BYTES[weights["dtype"]]) + references * held
    shared_by = recipe.processes if recipe.sharding == "fsdp2" else 1
    total = parts / shared_by + scorers * resting
    if step.settings["method"] == "expert_iteration":  # which draws before it trains, with a model of its own
        total = max(total, resting + scorers * resting)
    elif shared_by > 1 and step.work in ("learn.from_scores", "learn.from_judgements"):
        total += held
    return parameter_count(recipe) * total / _GIGA


def _models_held(step: Step, *, adapters: bool) -> tuple[int, int, int]:
    """How many models a training holds at once: trained, as the reference, as the scorer.

    The reference of adapters is the same model without them; from preferences it is read before training and let go.
    """
    if step.work not in ("learn.from_scores", "learn.from_judgements"):
        return 1, 0, 0
    a_model_scores = step.work == "learn.from_scores" and not step.settings.get("scorer")
    scorers = 1 if a_model_scores and step.settings["config"].get("reward") != "shared" else 0
    if step.settings["method"] == "expert_iteration":
        return 1, 0, scorers
    own_values = step.settings["method"] == "ppo" and step.settings["config"].get("value") != "shared"
    return 2 if own_values else 1, 0 if adapters else 1, scorers
