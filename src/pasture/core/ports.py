"""The doors through which a rule, a model, a service or a person comes in."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from pasture.core.records import Comparison, Completion, Instruction, Preference


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


class Scorer(Protocol):
    """Instructions and completions in, one number each out; any callable will do."""

    def __call__(self, instructions: Sequence[Instruction], completions: Sequence[Completion]) -> Sequence[float]:
        """One finite score per completion, higher is better."""
        ...


def silent(done: int, total: int, **figures: float) -> None:
    """The `Progress` that shows nothing."""
