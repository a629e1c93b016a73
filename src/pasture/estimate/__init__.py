"""How long a step will take and what it will cost, before it is done.

On two cores by rates that were measured with the built-in model (`cores`); on cards, where a recipe has a table
[cards], by counts of operations and the rates that it states (`cards`). Asking language models is waiting, and its
price is theirs (`labels`).
"""

import heapq
from collections.abc import Sequence

from pasture.estimate import cards, cores
from pasture.estimate.labels import (
    FREE,
    PAPERS_CLAIM,
    SECONDS_PER_CALL,
    ModelPrice,
    People,
    Price,
    label_count,
    model_prices,
    people,
    pools_asked,
    price,
    waiting_seconds,
)
from pasture.estimate.size import is_counted, parameter_count
from pasture.estimate.tokens import PROMPT_TOKENS, answer_tokens
from pasture.plan import Step
from pasture.recipe import Recipe

__all__ = [
    "FREE",
    "PAPERS_CLAIM",
    "PROMPT_TOKENS",
    "SECONDS_PER_CALL",
    "ModelPrice",
    "People",
    "Price",
    "answer_tokens",
    "is_counted",
    "label_count",
    "memory_gigabytes",
    "model_prices",
    "on_what",
    "parameter_count",
    "people",
    "pools_asked",
    "price",
    "seconds",
    "span",
    "waiting_seconds",
]

memory_gigabytes = cards.memory_gigabytes


def on_what(recipe: Recipe) -> str:
    """Where the expected times hold."""
    if recipe.cards is None:
        return "on two cores"
    return "on one card" if recipe.cards.count == 1 else f"on {recipe.cards.count} cards"


def seconds(step: Step, recipe: Recipe) -> float:
    """Expected duration of a step that has its cards, or both cores, to itself, in seconds."""
    return _working_seconds(step, recipe) + waiting_seconds(step, recipe)


def span(steps: Sequence[Step], recipe: Recipe, workers: int) -> float:
    """Expected seconds until all of `steps` are done by so many workers, each taking the first in order that can begin.

    Steps that these need and that are not among them are done already. Workers share cores and cards.
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
        step = left.pop(first)
        ends[first] = now + seconds(step, recipe) * _slower_beside_others(step, recipe, workers)
        heapq.heappush(free, ends[first])
    return max(ends.values(), default=0.0)


def _working_seconds(step: Step, recipe: Recipe) -> float:
    on_cards = 0.0 if recipe.cards is None else cards.seconds(step, recipe, recipe.cards)
    return on_cards or cores.seconds(step, recipe)


def _slower_beside_others(step: Step, recipe: Recipe, workers: int) -> float:
    """How many times as long a step takes with its share of the machine, where `workers` are at work."""
    if workers == 1:
        return 1.0
    if recipe.cards is None:
        return cores.slower_with_one_core(step, recipe)
    return max(1.0, workers / recipe.cards.count) if cards.seconds(step, recipe, recipe.cards) else 1.0
