"""What asking would cost, before anything is sent."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pasture.core.requests import Request, Usage
from pasture.engines.prices import StatedPrice, cost_usd, likely_input_tokens, most_usage
from pasture.engines.settings import ApiSettings, BatchSettings, EngineKind, EngineSettings

HOME_URLS = {"api": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""What is meant where no address is named."""


@dataclass(frozen=True)
class Rates:
    """By what a service is priced: its addresses, or a price that the user states."""

    addresses: tuple[str, ...]
    """None of them: a model of one's own, which costs nothing."""
    stated: StatedPrice | None = None
    share: float = 1.0
    """Of the price, that is paid."""

    @classmethod
    def of(cls, kind: EngineKind, settings: EngineSettings) -> "Rates":
        """Those of an engine with `settings`."""
        if isinstance(settings, BatchSettings):
            address = "" if settings.command else settings.address.base_url or HOME_URLS["api"]
            return cls((address,), settings.price, settings.share_of_price)
        if not isinstance(settings, ApiSettings):
            return cls(())
        addresses = [each.base_url or HOME_URLS[kind] for each in settings.endpoints]
        return cls(tuple(dict.fromkeys(addresses)), settings.price)

    def costs(self, usage: Usage | None, model: str) -> list[float] | None:
        """Dollars at each address; None where one of them is unknown, or the usage is."""
        if not self.addresses:
            return [0.0]
        if usage is None:
            return None
        found = [cost_usd(usage, model, address, self.stated) for address in self.addresses]
        known = [cost * self.share for cost in found if cost is not None]
        return known if len(known) == len(found) else None


@dataclass(frozen=True)
class Quote:
    """Calls and what they cost."""

    calls: int
    stored: int
    """Calls of these that were answered before, and cost nothing."""
    low_usd: float | None
    """Each reply a single token, four characters a token; None where a price is unknown."""
    high_usd: float | None
    """Each reply the longest, each byte a token; None where a price is unknown, or a reply has no limit."""


def quote(requests: Iterable[Request], rates: Rates, is_stored: Callable[[Request], bool]) -> Quote:
    """What `requests` cost, less those that are answered."""
    calls, stored, low, high = 0, 0, [0.0], [0.0]
    known = {"low": True, "high": True}
    for request in requests:
        calls += 1
        if is_stored(request):
            stored += 1
            continue
        least = rates.costs(Usage(input_tokens=likely_input_tokens(request), output_tokens=1), request.model)
        most = rates.costs(most_usage(request), request.model)
        known = {"low": known["low"] and least is not None, "high": known["high"] and most is not None}
        low.append(min(least or [0.0]))
        high.append(max(most or [0.0]))
    return Quote(calls, stored, sum(low) if known["low"] else None, sum(high) if known["high"] else None)
