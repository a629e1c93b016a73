"""Rates: who does too much of something in too short a time is asked to wait."""

import time
from collections import OrderedDict
from collections.abc import Callable

_MOST_KEYS = 20_000


class Buckets:
    """A bucket for each key that holds `burst` and fills at `per_second`; an act takes one out."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> bool:
        """Whether the act may be done; the key's bucket is one poorer if so."""
        left = self._now(key)
        if left < 1:
            return False
        self._left[key] = (left - 1, self._clock())
        self._left.move_to_end(key)
        while len(self._left) > _MOST_KEYS:
            self._left.popitem(last=False)
        return True

    def _now(self, key: str) -> float:
        left, at = self._left.get(key, (self._burst, self._clock()))
        return min(self._burst, left + (self._clock() - at) * self._per_second)
