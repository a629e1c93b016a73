"""Noise as a quantity to be set: how labels come to differ from what the annotator would have said.

Noise that needs no judgement takes its place before anyone is asked, so it costs nothing and is never stored as a
judgement. Noise that depends on the judgement turns it over afterwards; the stored reply stays as it was given.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from pasture.annotate.draws import Draws, Side, other_side
from pasture.annotate.render import Definition
from pasture.core.errors import DataError
from pasture.core.records import Comparison, Preference

FlipProbability = Annotated[float, Field(ge=0.0, le=0.5)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class UniformFlips(Definition):
    """Every label differs from the judgement with the same probability, as in AlpacaFarm's training labels."""

    kind: Literal["uniform"] = "uniform"
    probability: FlipProbability

    def label(self, comparison: Comparison, annotator: str, shown_first: Side, draws: Draws) -> Side | None:
        """A fair coin in the place of `2 * probability` of the judgements."""
        return draws.noise_label(comparison, self.probability)


class PerAnnotatorFlips(Definition):
    """Some annotators err more often than others."""

    kind: Literal["per-annotator"] = "per-annotator"
    probabilities: Mapping[str, FlipProbability]
    """By annotator, as results name it: model and judge, such as `gpt-4.1/short`."""
    otherwise: FlipProbability = 0.0
    """For annotators that are not named."""

    def label(self, comparison: Comparison, annotator: str, shown_first: Side, draws: Draws) -> Side | None:
        """A fair coin in the place of twice the annotator's probability of judgements."""
        return draws.noise_label(comparison, self.probabilities.get(annotator, self.otherwise))


class PositionLeaning(Definition):
    """Now and then an annotator takes whatever it saw first."""

    kind: Literal["position"] = "position"
    probability: Probability
    """Share of the comparisons in which the answer shown first is taken unread."""

    def label(self, comparison: Comparison, annotator: str, shown_first: Side, draws: Draws) -> Side | None:
        """The side that was shown first, in `probability` of the comparisons."""
        return shown_first if draws.uniform(comparison, "position-leaning") < self.probability else None


class LengthLeaning(Definition):
    """Now and then an annotator takes the longer answer."""

    kind: Literal["length"] = "length"
    probability: Probability
    """Share of the comparisons in which the answer with more characters is taken unread."""

    def label(self, comparison: Comparison, annotator: str, shown_first: Side, draws: Draws) -> Side | None:
        """The longer side, in `probability` of the comparisons whose lengths differ."""
        more = len(comparison.first.text) - len(comparison.second.text)
        if more == 0 or draws.uniform(comparison, "length-leaning") >= self.probability:
            return None
        return "first" if more > 0 else "second"


class MarginFlips(Definition):
    """The closer the call, the likelier the error: a Bradley-Terry reader of the judge's own probability.

    A judgement with log-odds m comes out as it is with probability 1 / (1 + exp(-|m| / temperature)). Temperature 1
    draws each label from the judge's probability; as it falls to 0 the noise disappears.
    """

    kind: Literal["margin"] = "margin"
    temperature: Annotated[float, Field(gt=0.0)]

    def flips(self, comparison: Comparison, probability_first: float, draws: Draws) -> bool:
        """Whether noise turns the judgement over."""
        margin = abs(_log_odds(probability_first))
        return draws.uniform(comparison, "margin-noise") < 1 / (1 + math.exp(min(margin / self.temperature, 700)))


Noise = Annotated[
    UniformFlips | PerAnnotatorFlips | PositionLeaning | LengthLeaning | MarginFlips, Field(discriminator="kind")
]

NOISES: Mapping[str, type[Definition]] = {
    kind.model_fields["kind"].default: kind
    for kind in (UniformFlips, PerAnnotatorFlips, PositionLeaning, LengthLeaning, MarginFlips)
}
"""By the name that a pool file gives."""


def noise_label(
    noise: Noise | None, comparison: Comparison, annotator: str, shown_first: Side, draws: Draws
) -> Side | None:
    """The label that takes the judgement's place, or None where the annotator is asked."""
    if noise is None or isinstance(noise, MarginFlips):
        return None
    return noise.label(comparison, annotator, shown_first, draws)


def with_noise(noise: Noise | None, comparison: Comparison, judged: Preference, draws: Draws) -> Preference:
    """The judgement, turned over where noise that depends on it says so; ties and the unjudged stay.

    Raises:
        DataError: if the noise needs a probability and the judge gives none.
    """
    if not isinstance(noise, MarginFlips) or judged.preferred in ("tie", "unjudged"):
        return judged
    if judged.probability_first is None:
        raise DataError(
            f"margin noise needs the judge's probability, and {judged.annotator!r} gives none. "
            "Use a judge with log-probabilities, such as pool 'alpaca-eval-2', or another kind of noise."
        )
    if not noise.flips(comparison, judged.probability_first, draws):
        return judged
    side: Side = "first" if judged.preferred == "first" else "second"
    return judged.model_copy(
        update={
            "preferred": other_side(side),
            "probability_first": 1 - judged.probability_first,
            "flipped_by_noise": True,
        }
    )


def _log_odds(probability: float) -> float:
    if probability in (0.0, 1.0):
        return math.inf
    return math.log(probability) - math.log1p(-probability)
