"""How long a step will take and what it will cost, before it is done.

Rates were measured with the built-in model on two cores (benchmarks/loop.py); work on another model is scaled by the
number of its weights, which is right to a factor of a few.
"""

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pasture.annotate.choose import expected_quote
from pasture.plan import Step
from pasture.recipe import Recipe

ON_WHAT = "on two cores"

_SECONDS_PER_UNIT = {
    "data.instructions": 1.6e-4,
    "data.feedback": 1.5e-4,
    "data.labels": 1.0e-5,
    "learn.new_model": 0.3,
    "learn.sft": 2.5e-3,
    "generate.pairs": 1.25e-3,
    "annotate.label": 2.8e-4,
    "generate.answers": 1.6e-3,
    "generate.candidates": 8.5e-4,
    "learn.chosen": 7.0e-4,
    "learn.score_answers": 4.0e-4,
    "learn.drifts": 2.4e-3,
    "learn.from_scores": 1.6e-2,
    "learn.from_judgements": 1.6e-2,
    "learn.from_preferences": 5.0e-3,
    "generate.checkpoint_answers": 1.8e-3,
    "annotate.judge_checkpoints": 2.0e-4,
    "evaluate.select": 0.3,
    "annotate.judge_curve": 1.3e-4,
    "annotate.judge_system": 1.3e-4,
    "curves.of_best_of_n": 3.0,
    "curves.of_checkpoints": 0.5,
    "evaluate.board": 0.15,
    "validate.annotators": 1.4e-3,
    "report.page": 1.7,
    "study.results": 20.0,
    "study.noise": 5.0e-3,
    "study_page.page": 15.0,
}
"""By work, for the built-in model; the unit is the one that `pasture.plan` counts for that work."""

_JUDGED_WHILE_LEARNING = "learn.from_judgements"
_SCALES_WITH_MODEL = ("learn.", "generate.")
_BUILT_IN_BYTES = 2.8e6


def seconds(step: Step, recipe: Recipe) -> float:
    """Expected duration of a step, in seconds."""
    rate = _SECONDS_PER_UNIT[step.work]
    scale = _model_scale(recipe) if step.work.startswith(_SCALES_WITH_MODEL) else 1.0
    return rate * step.units * scale


def span(steps: Sequence[Step], recipe: Recipe, workers: int) -> float:
    """Expected seconds until all of `steps` are done by so many workers, each taking the first in order that can begin.

    Steps that these need and that are not among them are done already.
    """
    left = {step.name: step for step in steps}
    ends: dict[str, float] = {}
    free = [0.0] * workers
    while left:
        ready = {
            name: max((ends[need] for need in step.needs.values() if need in ends), default=0.0)
            for name, step in left.items()
            if not left.keys() & set(step.needs.values())
        }
        now = max(heapq.heappop(free), min(ready.values()))
        first = next(name for name, since in ready.items() if since <= now)
        ends[first] = now + seconds(left.pop(first), recipe)
        heapq.heappush(free, ends[first])
    return max(ends.values(), default=0.0)


class Price(NamedTuple):
    """Dollars, between what is likely and what is the most."""

    low: float
    high: float

    def __add__(self, other: object) -> "Price":
        """Both together."""
        if not isinstance(other, Price):
            return NotImplemented
        return Price(self.low + other.low, self.high + other.high)


FREE = Price(0.0, 0.0)
_CHARACTERS_PER_TOKEN = 4


def price(step: Step, recipe: Recipe) -> Price | None:
    """What a step's labels will cost; None where a price is unknown. People are not paid by Pasture."""
    judges = step.settings.get("judges", [step.settings.get("annotator")])
    asks = step.work.startswith("annotate.") or step.work == _JUDGED_WHILE_LEARNING
    pools = [recipe.pools[name] for name in judges if name in recipe.pools] if asks else []
    units = step.units / 2 if step.work == _JUDGED_WHILE_LEARNING else step.units  # two answers to a comparison
    total = FREE
    for pool in pools:
        quote = expected_quote(
            pool,
            round(units / len(judges)),
            characters=_CHARACTERS_PER_TOKEN * recipe.sampling.max_new_tokens,
            seed=recipe.seed,
            label_flip_probability=step.settings.get("label_flip_probability", 0.0),
        )
        if quote.low_usd is None or quote.high_usd is None:
            return None
        total += Price(quote.low_usd, quote.high_usd)
    return total


def _model_scale(recipe: Recipe) -> float:
    weights = [path.stat().st_size for path in Path(recipe.model.start).glob("*.safetensors")]
    return max(1.0, sum(weights) / _BUILT_IN_BYTES)
