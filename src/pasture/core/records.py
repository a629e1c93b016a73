"""The nouns that the rooms hand to one another, one JSON object a line on disk.

All records are frozen and strict: an unknown or missing field, a wrong type, a lone surrogate or an empty text where
one is needed is an error. Identical content gives identical bytes.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pasture.core.errors import DataError

NonEmpty = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

Verdict = Literal["first", "second", "tie", "unjudged"]
FinishReason = Literal["stop", "length", "filtered", "unknown"]


def content_id(*parts: str | int | None) -> str:
    """Sixteen hexadecimal digits that depend on nothing but `parts`."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _plain_json(value: dict[str, Any]) -> dict[str, Any]:
    # Pydantic lets NaN and lone surrogates through where a type is Any, and would write NaN as null.
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"not plain JSON: {error}") from error
    return value


class Record(BaseModel):
    """A line of a JSONL file."""

    # A string type with any bound, even none at all, is checked for lone surrogates; without one it is not.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, str_min_length=0)

    def to_json(self) -> str:
        """The record as one line of JSON, fields in the order of their definition."""
        return self.model_dump_json()


class Instruction(Record):
    """What a system is asked to do."""

    id: NonEmpty
    instruction: NonEmpty
    input: str = ""
    """Material that the instruction speaks of; empty where there is none."""
    source: NonEmpty
    """The collection or family it comes from; leaderboards break down by it."""
    split: NonEmpty


class Completion(Record):
    """One answer of one system to one instruction."""

    instruction_id: NonEmpty
    text: str
    """May be empty: a system can stay silent, and is then judged so."""
    system: NonEmpty
    seed: int
    """Number of the sample among those that the system gave to this instruction."""
    finish_reason: FinishReason = "unknown"
    token_count: Annotated[int, Field(ge=0)] | None = None
    """Tokens generated, the end token included; None where the engine does not say."""


def _require_answer(name: str, completion: Completion, instruction: Instruction) -> None:
    if completion.instruction_id != instruction.id:
        raise ValueError(f"{name} answers instruction {completion.instruction_id!r}, expected {instruction.id!r}")


class Comparison(Record):
    """Two completions of one instruction, to be judged against each other.

    `first` and `second` name them for the record; which one a judge sees first is drawn by the annotator.
    """

    id: NonEmpty
    instruction: Instruction
    first: Completion
    second: Completion

    @model_validator(mode="after")
    def _completions_answer_the_instruction(self) -> Self:
        for side in ("first", "second"):
            _require_answer(side, getattr(self, side), self.instruction)
        return self

    @classmethod
    def of(cls, instruction: Instruction, first: Completion, second: Completion) -> Self:
        """The comparison whose id is drawn from its content."""
        sides = [part for side in (first, second) for part in (side.system, side.seed, side.text)]
        identity = content_id(instruction.id, instruction.instruction, instruction.input, *sides)
        return cls(id=identity, instruction=instruction, first=first, second=second)


def by_id(comparisons: Iterable[Comparison]) -> dict[str, Comparison]:
    """The comparisons by their id, each once.

    Raises:
        DataError: if two of one id compare different texts or systems.
    """
    found: dict[str, Comparison] = {}
    for each in comparisons:
        before = found.setdefault(each.id, each)
        if before != each and _what_is_compared(before) != _what_is_compared(each):
            raise DataError(
                f"two comparisons have the id {each.id!r} and differ: {_named(before)}, and {_named(each)}. Whom a "
                "preference is about could not be told: give each an id of its own."
            )
    return found


def _what_is_compared(comparison: Comparison) -> tuple[str, ...]:
    asked, sides = comparison.instruction, (comparison.first, comparison.second)
    return asked.instruction, asked.input, *(part for side in sides for part in (side.system, side.text))


def _named(comparison: Comparison) -> str:
    sides = " with ".join(repr(side.system) for side in (comparison.first, comparison.second))
    return f"{sides} on instruction {comparison.instruction.id!r}"


class Preference(Record):
    """What one annotator said of one comparison, in the comparison's own naming of first and second."""

    comparison_id: NonEmpty
    annotator: NonEmpty
    preferred: Verdict
    probability_first: Fraction | None = None
    """Probability that the first is better, where the judge gives one."""
    shown_first: Literal["first", "second"] = "first"
    """Which completion the annotator saw first."""
    flipped_by_noise: bool = False
    """Whether label noise, not judgement, chose `preferred`."""
    cost_usd: Annotated[float, Field(ge=0.0)] | None = None
    """None where the price is unknown."""
    seconds: Annotated[float, Field(ge=0.0)] | None = None
    """Time from question to answer; None where no one waited."""
    evidence: Annotated[dict[str, Any], AfterValidator(_plain_json)] | None = None
    """What else the judge gave: log-probabilities, reasons, a person's comment."""
    raw_reply: str | None = None
    error: str | None = None
    """Why the comparison is unjudged."""

    @model_validator(mode="after")
    def _unjudged_has_a_reason(self) -> Self:
        if (self.preferred == "unjudged") != (self.error is not None):
            raise ValueError("'error' must be given exactly when 'preferred' is 'unjudged'")
        return self


class Rating(Record):
    """What one annotator said of one completion on its own, without another beside it: a thumb up or down."""

    instruction: Instruction
    completion: Completion
    annotator: NonEmpty
    desirable: bool

    @model_validator(mode="after")
    def _completion_answers_the_instruction(self) -> Self:
        _require_answer("completion", self.completion, self.instruction)
        return self


Judgement = tuple[Comparison, Preference] | tuple[Rating]
"""What somebody said of a pair of completions, or of one alone."""


class Score(Record):
    """What a scorer made of one completion; higher is better, the scale is the scorer's own."""

    instruction_id: NonEmpty
    system: NonEmpty
    seed: int
    scorer: NonEmpty
    value: float


class WinRate(Record):
    """How often a judge preferred one system to a reference, ties counting half."""

    system: NonEmpty
    reference: NonEmpty
    judge: NonEmpty
    rate: Fraction | None
    """None where nothing was judged."""
    standard_error: Annotated[float, Field(ge=0.0)] | None
    """Sample standard deviation over the square root of the judged count; None below two."""
    interval_low: Fraction | None = None
    interval_high: Fraction | None = None
    """Bootstrap interval over instructions, at 95% unless the table says otherwise."""
    asked: Annotated[int, Field(ge=0)]
    judged: Annotated[int, Field(ge=0)]
    unjudged: Annotated[int, Field(ge=0)]
    wins: Annotated[int, Field(ge=0)]
    losses: Annotated[int, Field(ge=0)]
    ties: Annotated[int, Field(ge=0)]
    mean_length: Annotated[float, Field(ge=0.0)] | None = None
    """Mean characters of the system's completions."""
