"""The annotator that a recipe names: the meadow's own, or a pool of language models that the recipe describes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pasture.annotate.draws import ContentDraws
from pasture.annotate.noise import Noise, UniformFlips
from pasture.annotate.panel import Order, load_panel
from pasture.annotate.quote import Quote
from pasture.annotate.raters import meadow_annotator
from pasture.annotate.stored import Access, StoredPool
from pasture.core.ports import Annotator, Progress, silent
from pasture.core.records import Comparison, Completion, Instruction
from pasture.engines.budget import Ledger


class PoolSettings(Access):
    """Language models that annotate: which judges, over which models, reached how."""

    pool: str = "alpaca-farm-13"
    """A shipped pool, or the path of a pool's TOML file."""
    models: tuple[str, ...] = ()
    """In the order of the pool's places, strongest first."""
    order: Order | Literal["as-pool"] = "as-pool"
    noise: Noise | Literal["flips"] = "flips"
    """How labels err where the recipe wants errors: by uniform flips with its `label_flip_probability`, or by a noise
    that brings its own figures. The noise of the pool's file plays no part."""
    completions_as_chat: bool = False
    """For services without a completion endpoint."""
    sample: Annotated[int, Field(ge=0)] = 0
    """Number of the replicate: another asks anew."""
    retry_unjudged: bool = False
    """Whether what failed, or held no verdict, is asked about once more."""


def chosen_annotator(
    name: str,
    pools: Mapping[str, PoolSettings],
    *,
    seed: int,
    label_flip_probability: float = 0.0,
    people_votes: int = 1,
    ledgers: Path | None = None,
    progress: Progress = silent,
) -> Annotator:
    """The pool that `pools` holds under `name`, else the meadow's annotator of that name.

    With a `label_flip_probability` of 0 there is no noise. `ledgers` is the folder where a run keeps what it has spent
    of each pool; without it a pool's `max_usd` counts from 0. Nothing is opened or loaded before the first question, so
    a plan may ask for the `identity` freely.

    Raises:
        RecipeError: naming what does not fit in the pool's settings.
        DataError: if neither `pools` nor the meadow knows the name.
    """
    if name not in pools:
        return meadow_annotator(
            name, seed=seed, label_flip_probability=label_flip_probability, people_votes=people_votes
        )
    ledger = None if ledgers is None else Ledger(ledgers, name)
    return _pool(pools[name], seed, label_flip_probability, ledger, progress)


def expected_quote(
    settings: PoolSettings, count: int, *, characters: int, seed: int, label_flip_probability: float = 0.0
) -> Quote:
    """What `count` comparisons will cost that do not exist yet, each of its texts about `characters` long.

    Raises:
        RecipeError: naming what does not fit in the pool's settings.
    """
    sampled = min(count, _QUOTED)
    pool = _pool(settings, seed, label_flip_probability, None, silent)
    found = pool.quote([_comparison_of_length(number, characters) for number in range(sampled)])
    scale = count / sampled if sampled else 0.0
    low, high = (None if usd is None else usd * scale for usd in (found.low_usd, found.high_usd))
    return Quote(round(found.calls * scale), 0, low, high)


_QUOTED = 520
"""Comparisons that stand for all: forty for each annotator of the paper's pool."""


def _pool(
    settings: PoolSettings, seed: int, label_flip_probability: float, ledger: Ledger | None, progress: Progress
) -> StoredPool:
    panel = load_panel(settings.pool, settings.models, completions_as_chat=settings.completions_as_chat)
    noise: Noise | None = None
    if label_flip_probability:
        flips = UniformFlips(probability=label_flip_probability)
        noise = flips if settings.noise == "flips" else settings.noise
    return StoredPool(
        replace(panel, order=panel.order if settings.order == "as-pool" else settings.order, noise=noise),
        settings,
        draws=ContentDraws(seed),
        sample=settings.sample,
        retry_unjudged=settings.retry_unjudged,
        ledger=ledger,
        progress=progress,
    )


def _comparison_of_length(number: int, characters: int) -> Comparison:
    asked = Instruction(
        id=str(number), instruction=_text(f"{number} what", characters), input="", source="quote", split="quote"
    )
    first, second = (
        Completion(instruction_id=asked.id, text=_text(f"{number} {side}", characters), system=side, seed=0)
        for side in ("first", "second")
    )
    return Comparison.of(asked, first, second)


def _text(beginning: str, characters: int) -> str:
    return (beginning + " word" * (1 + characters // 5))[: max(characters, len(beginning))]
