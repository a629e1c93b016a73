"""What labels cost and how long they take to be given, by language models as a recipe names them and by people."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pasture.annotate.choose import PoolSettings, expected_quote
from pasture.annotate.quote import Quote, Rates
from pasture.core.requests import Usage
from pasture.engines.settings import ApiSettings, checked_settings
from pasture.estimate.tokens import answer_tokens
from pasture.plan import Step
from pasture.recipe import Recipe
from pasture.validate.cost import PEOPLE_SECONDS_PER_LABEL, PEOPLE_USD_PER_LABEL

SECONDS_PER_CALL = 2.0
"""From a question to its answer, by a service: a round figure, not measured here; the ledger of a run knows better."""
PAPERS_CLAIM = "less than 24 hours, on eight cards of 80 GB, and less than $200"
"""Source: the announcement of AlpacaFarm (Dubois et al. 2023); the cards are those of its scripts."""
OWN_MODELS = ("local", "vllm")
"""Engines that load a model on this machine."""

_JUDGED_WHILE_LEARNING = "learn.from_judgements"
_CHARACTERS_PER_TOKEN = 4
_CALLS_AT_ONCE = 50
_MILLION = 1_000_000


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


def asks(step: Step) -> bool:
    """Whether labels are given in a step."""
    return step.work.startswith("annotate.") or step.work == _JUDGED_WHILE_LEARNING


def label_count(step: Step) -> float:
    """Labels that a step asks for, of all its annotators together."""
    if not asks(step):
        return 0.0
    return step.units / 2 if step.work == _JUDGED_WHILE_LEARNING else step.units  # two answers to a comparison


def pools_asked(step: Step, recipe: Recipe) -> Mapping[str, float]:
    """How many labels a step asks of each pool of language models."""
    judges = _judges(step)
    return {name: label_count(step) / len(judges) for name in judges if name in recipe.pools} if asks(step) else {}


def price(step: Step, recipe: Recipe) -> Price | None:
    """What a step's labels will cost; None where a price is unknown. People are not paid by Pasture."""
    total = FREE
    for name, count in pools_asked(step, recipe).items():
        if recipe.pools[name].engine in OWN_MODELS:
            continue
        quote = _quote(step, recipe, recipe.pools[name], count)
        if quote.low_usd is None or quote.high_usd is None:
            return None
        total += Price(quote.low_usd, quote.high_usd)
    return total


def waiting_seconds(step: Step, recipe: Recipe) -> float:
    """How long a step waits for the answers of services."""
    total = 0.0
    for name, count in pools_asked(step, recipe).items():
        pool = recipe.pools[name]
        if pool.engine in OWN_MODELS:
            continue
        calls = _quote(step, recipe, pool, count).calls
        total += calls * SECONDS_PER_CALL / _calls_at_once(pool)
    return total


@dataclass(frozen=True)
class People:
    """What as many labels would take from people."""

    usd: float
    hours: float
    """Of one person's time."""


def people(labels: float) -> People:
    """So many labels at the paper's rate for people."""
    return People(labels * PEOPLE_USD_PER_LABEL, labels * PEOPLE_SECONDS_PER_LABEL / 3600)


class ModelPrice(NamedTuple):
    """Dollars for a million tokens; None where they are unknown."""

    model: str
    input_usd: float | None
    output_usd: float | None


def model_prices(pool: PoolSettings) -> list[ModelPrice]:
    """What the models of a pool cost, as the recipe states it or the list of prices has it."""
    if pool.engine in OWN_MODELS:
        return []
    rates = Rates.of(pool.engine, checked_settings(pool.engine, pool.engine_settings))
    usages = (Usage(input_tokens=_MILLION, output_tokens=0), Usage(input_tokens=0, output_tokens=_MILLION))
    found = []
    for model in pool.models:
        least = [None if (costs := rates.costs(usage, model)) is None else min(costs) for usage in usages]
        found.append(ModelPrice(model, *least))
    return found


def _judges(step: Step) -> list[str]:
    return list(step.settings.get("judges", [step.settings.get("annotator")]))


def _quote(step: Step, recipe: Recipe, pool: PoolSettings, count: float) -> Quote:
    flips = step.settings.get("label_flip_probability", 0.0)
    characters = round(_CHARACTERS_PER_TOKEN * answer_tokens(recipe))
    return _quoted(pool.model_dump_json(), round(count), characters, recipe.seed, flips)


@lru_cache(maxsize=256)
def _quoted(pool: str, count: int, characters: int, seed: int, flips: float) -> Quote:
    """Hundreds of questions are put together for a quote, and many steps ask alike."""
    settings = PoolSettings.model_validate_json(pool)
    return expected_quote(settings, count, characters=characters, seed=seed, label_flip_probability=flips)


def _calls_at_once(pool: PoolSettings) -> int:
    settings = checked_settings(pool.engine, pool.engine_settings)
    return settings.in_flight if isinstance(settings, ApiSettings) else _CALLS_AT_ONCE
