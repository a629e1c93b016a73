"""Requests that wait for places in a batch, and which of them go in next."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Request:
    """One answer that was asked for."""

    number: int
    """Its place among all that were asked for."""
    prompt: tuple[int, ...]
    seed: int


class RequestQueue:
    """Waiting requests, shortest prompts first; as many at once as a budget of cache positions holds.

    Requests with one prompt go in together, so that it is read once. When places become free, newcomers wait until a
    quarter of all are, so that prompts are read by the dozen.
    """

    def __init__(self, requests: Sequence[Request], *, new_tokens: int, budget: int) -> None:
        """Take requests; each needs its prompt's positions and `new_tokens`."""
        self._new_tokens = new_tokens
        self._budget = budget
        self._groups: deque[list[Request]] = deque()
        ordered = sorted(requests, key=lambda request: (len(request.prompt), request.prompt))
        for prompt, alike in groupby(ordered, key=lambda request: request.prompt):
            members = list(alike)
            size = self._share(self._places(prompt))
            self._groups += [members[start : start + size] for start in range(0, len(members), size)]

    def __len__(self) -> int:
        return sum(map(len, self._groups))

    def __bool__(self) -> bool:
        return bool(self._groups)

    @property
    def places(self) -> int:
        """The most requests that can be under way at once, from now on."""
        return self._places(self._groups[0][0].prompt) if self._groups else 0

    def enter(self, live: int) -> list[Request]:
        """The requests that go in beside `live` others, none if it is better to wait; they wait no more."""
        if not self._groups or (live and self.places - live < max(self._share(self.places), len(self._groups[0]))):
            return []
        entering: list[Request] = []
        while self._groups:
            group = self._groups[0]
            under_way = live + len(entering)
            if under_way and under_way + len(group) > self._places(group[0].prompt):
                break
            entering += self._groups.popleft()
        return entering

    def _places(self, prompt: tuple[int, ...]) -> int:
        return max(1, self._budget // (len(prompt) + self._new_tokens))

    @staticmethod
    def _share(places: int) -> int:
        return max(1, places // 4)
