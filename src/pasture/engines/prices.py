"""What an answer costs: separate rates for input, cached input and output; unknown stays unknown."""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated
from urllib.parse import urlsplit

import genai_prices
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pasture.core.requests import Request, Usage

Dollars = Annotated[float, Field(ge=0.0)]
SECONDS_OF_A_PRICE = 600.0
"""Some services change prices by the hour of the day."""
TOKENS_PER_MESSAGE = 16
"""More than any known chat format adds around a message."""


class StatedPrice(BaseModel):
    """A price that the user states, in dollars for a million tokens; zero for a server of one's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_per_million: Dollars
    output_per_million: Dollars
    cached_input_per_million: Dollars | None = None
    """As `input_per_million` where it is not given."""


def cost_usd(usage: Usage, model: str, base_url: str, stated: StatedPrice | None = None) -> float | None:
    """Dollars for `usage`, by the stated price or by genai-prices; None where neither knows.

    A service is known by its address: a server of one's own that calls its model 'gpt-4o' is not priced as OpenAI.
    """
    if stated is not None:
        cached_rate = stated.cached_input_per_million
        cached = usage.cached_input_tokens if cached_rate is not None else 0
        fresh = (usage.input_tokens - cached) * stated.input_per_million
        return (fresh + cached * (cached_rate or 0.0) + usage.output_tokens * stated.output_per_million) / 1e6
    if _is_private(base_url):
        return None
    rates = _rates(model, base_url, int(time.time() // SECONDS_OF_A_PRICE))
    if rates is None:
        return None
    counts = (usage.input_tokens - usage.cached_input_tokens, usage.cached_input_tokens, usage.output_tokens)
    if not rates.linear:
        return _listed(counts, model, base_url)
    return sum(count * rate for count, rate in zip(counts, rates.per_token, strict=True))


@lru_cache(maxsize=256)
def _is_private(base_url: str) -> bool:
    """Whether no list of prices can know the server; reading the list takes half a second."""
    host = urlsplit(base_url).hostname or ""
    return "." not in host or host.startswith("127.") or host.endswith(".local")


@dataclass(frozen=True)
class _Rates:
    per_token: tuple[float, ...]
    linear: bool
    """False where the price of a token depends on how many there are."""


@lru_cache(maxsize=256)
def _rates(model: str, base_url: str, _period: int) -> _Rates | None:
    """Dollars for a token: fresh input, cached input, output. Looking up a price takes longer than using it."""
    few, many = 1_000, 1_000_000
    small = [_listed(counts, model, base_url) for counts in ((few, 0, 0), (0, few, 0), (0, 0, few))]
    large = [_listed(counts, model, base_url) for counts in ((many, 0, 0), (0, many, 0), (0, 0, many))]
    mixed = _listed((many, many, many), model, base_url)
    if any(price is None for price in small):
        return None
    per_token = tuple((price or 0.0) / few for price in small)
    expected = [rate * many for rate in per_token]
    found = [price or 0.0 for price in large]
    linear = bool(np.allclose([*found, mixed or 0.0], [*expected, sum(expected)], rtol=1e-9, atol=0.0))
    return _Rates(per_token, linear)


def _listed(counts: tuple[int, int, int], model: str, base_url: str) -> float | None:
    fresh, cached, made = counts
    usage = genai_prices.Usage(input_tokens=fresh + cached, cache_read_tokens=cached, output_tokens=made)
    try:
        return float(genai_prices.calc_price(usage, model, provider_api_url=base_url).total_price)
    except LookupError:
        return None


def most_usage(request: Request) -> Usage | None:
    """More tokens than `request` can be billed for; None where its answer has no limit.

    A token is at least one byte of the text.
    """
    if request.max_completion_tokens is None:
        return None
    texts = [message.content for message in request.messages or ()]
    size = sum(len(text.encode()) for text in texts) + len((request.prompt or "").encode())
    schema = 0 if request.json_schema is None else len(request.canonical_json)
    overhead = TOKENS_PER_MESSAGE * (len(texts) + 1)
    return Usage(input_tokens=size + schema + overhead, output_tokens=request.max_completion_tokens)


def likely_input_tokens(request: Request) -> int:
    """A guess for plans and rate limits: four characters a token."""
    texts = [message.content for message in request.messages or ()] + [request.prompt or ""]
    return sum(map(len, texts)) // 4 + 4 * len(texts)
