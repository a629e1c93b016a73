"""How fast a service may be asked: rates a minute, and a number of calls in flight that gives way to overload."""

import time
from dataclasses import dataclass, field

from aiolimiter import AsyncLimiter

from pasture.engines.loop import pause

TOKEN_WINDOW_SECONDS = 10.0
SECONDS_BETWEEN_CUTS = 1.0
"""Answers to calls that were sent before the last cut say nothing about the new number."""

DOWN_AFTER = 3
"""Failures without an answer between them."""
LONGEST_REST_SECONDS = 30.0


@dataclass
class Places:
    """Calls in flight at one endpoint: additive increase, multiplicative decrease."""

    most: int
    in_flight: int = 0
    resting_until: float = 0.0
    """While others are free, an endpoint that has just failed is left alone."""
    failed_in_a_row: int = 0
    limit: float = field(init=False)
    _cut_at: float = -1e9

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    @property
    def has_room(self) -> bool:
        """Whether another call may be sent."""
        return self.in_flight < max(1, int(self.limit))

    @property
    def is_down(self) -> bool:
        """Whether it has only failed of late; no call is worth a try here while another endpoint answers."""
        return self.failed_in_a_row >= DOWN_AFTER and time.monotonic() < self.resting_until

    def succeeded(self) -> None:
        """One more place for every `limit` answers."""
        self.failed_in_a_row = 0
        self.limit = min(self.most, self.limit + 1.0 / self.limit)

    def failed(self, *, throttled: bool) -> None:
        """Half the places, at most once a second, where the service says that it is too much."""
        now = time.monotonic()
        if now >= self.resting_until:
            rounds = max(0, self.failed_in_a_row - DOWN_AFTER)
            self.resting_until = now + min(LONGEST_REST_SECONDS, SECONDS_BETWEEN_CUTS * 2.0 ** min(rounds, 10))
        self.failed_in_a_row += 1
        if throttled and now - self._cut_at >= SECONDS_BETWEEN_CUTS:
            self.limit = max(1.0, self.limit / 2)
            self._cut_at = now


class Rate:
    """Requests and tokens a minute, None for no limit; spread evenly, so that no window of a minute holds more."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = None
        if requests_per_minute is not None:
            self._requests = AsyncLimiter(1, 60.0 / requests_per_minute)
        self._tokens = None
        if tokens_per_minute is not None:
            self._tokens = AsyncLimiter(tokens_per_minute * TOKEN_WINDOW_SECONDS / 60.0, TOKEN_WINDOW_SECONDS)

    async def wait(self, tokens: int) -> None:
        """Until a request of about so many tokens may be sent."""
        if self._requests is not None:
            await _acquire(self._requests, 1)
        if self._tokens is not None:
            await _acquire(self._tokens, min(tokens, self._tokens.max_rate))


async def _acquire(limiter: AsyncLimiter, amount: float) -> None:
    while not limiter.has_capacity(amount):
        await pause(min(1.0, amount * limiter.time_period / limiter.max_rate))
    await limiter.acquire(amount)
