"""The doors through which a rule, a model, a service or a person comes in."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.core.requests import Reply, Request


@runtime_checkable
class Progress(Protocol):
    """Where long work reports to, at most a few times a second."""

    def __call__(self, done: int, total: int, **figures: float) -> None:
        """Report that `done` of `total` units are finished; `figures` are shown beside the bar."""
        ...


@runtime_checkable
class Annotator(Protocol):
    """Comparisons in, preferences out."""

    @property
    def identity(self) -> Mapping[str, object]:
        """What the verdicts depend on, as plain JSON: written to the manifest and hashed into step keys."""
        ...

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """At least one preference for each comparison, in order; a failure is 'unjudged', never left out."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Requests in, replies out: a service, a model on this machine, or a script.

    What concerns one request alone (a content filter, a reply that never came) is a `Reply` with an `error`. What
    would befall every request alike (a missing key, an unknown model, a spent budget) is raised.
    """

    @property
    def identity(self) -> Mapping[str, object]:
        """Who answers, as plain JSON without secrets, for the manifest."""
        ...

    @property
    def in_flight(self) -> int:
        """How many calls of `complete` it can use at once."""
        ...

    async def complete(self, request: Request) -> Reply:
        """The reply to one request; may be awaited on any event loop."""
        ...

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """One reply for each request, in order, many in flight; works with and without a running event loop.

        `requests` is read as places fall free, so that neither it nor the replies are ever held as a whole. Closing
        the iterator lets the calls in flight end before it returns.
        """
        ...


@runtime_checkable
class Scorer(Protocol):
    """Instructions and completions in, one number each out; any callable will do."""

    def __call__(self, instructions: Sequence[Instruction], completions: Sequence[Completion]) -> Sequence[float]:
        """One finite score per completion, higher is better."""
        ...


def silent(done: int, total: int, **figures: float) -> None:
    """The `Progress` that shows nothing."""
