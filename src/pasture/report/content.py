"""What a report says, before anyone decides how it looks; plain values that can be kept as JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pasture.core.records import Completion, Fraction, Instruction, NonEmpty, WinRate

FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
CellFormat = Literal["text", "figure", "count", "number", "percent", "usd", "seconds"]
"""A figure is a text that is set as numbers are: a rate with its interval, each on a line of its own."""
Outcome = Literal["win", "loss", "tie", "unjudged"]


class Content(BaseModel):
    """A part of a report."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EqualLengthGap(Content):
    """How much more often one system would win than another if all answers were as long as the reference's."""

    difference: Annotated[float, Field(ge=-1.0, le=1.0)]
    interval_low: Annotated[float, Field(ge=-1.0, le=1.0)]
    interval_high: Annotated[float, Field(ge=-1.0, le=1.0)]

    def reversed(self) -> Self:
        """The same with the two systems in each other's place."""
        return type(self)(
            difference=-self.difference, interval_low=-self.interval_high, interval_high=-self.interval_low
        )


class Difference(Content):
    """How much more often one system won than another, on the same instructions and by the same judge."""

    system: NonEmpty
    baseline: NonEmpty
    difference: Annotated[float, Field(ge=-1.0, le=1.0)]
    """Win rate of the system less that of the baseline."""
    interval_low: Annotated[float, Field(ge=-1.0, le=1.0)]
    interval_high: Annotated[float, Field(ge=-1.0, le=1.0)]
    p_value: Fraction | None = None
    """Of the paired test that the two are equally good."""
    at_equal_length: EqualLengthGap | None = None
    """None where it was not computed."""


class Leaderboard(Content):
    """Win rates of several systems against one reference by one judge."""

    title: NonEmpty
    """Whose judgement it is, as it reads after "by": "people (hidden)", "simulated annotators"."""
    rows: tuple[WinRate, ...]
    differences: tuple[Difference, ...] = ()
    """Paired comparisons of systems in `rows`."""
    note: str = ""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """Of every interval in this leaderboard."""

    @model_validator(mode="after")
    def _rows_can_be_compared(self) -> Self:
        for field in ("judge", "reference"):
            found = sorted({getattr(row, field) for row in self.rows})
            if len(found) > 1:
                raise ValueError(
                    f"leaderboard {self.title!r}: expected one {field} for all rows, got {', '.join(found)}; "
                    "make one leaderboard for each"
                )
        systems = [row.system for row in self.rows]
        if len(set(systems)) < len(systems):
            raise ValueError(f"leaderboard {self.title!r}: a system stands in more than one row")
        return self

    def ranked(self) -> list[WinRate]:
        """The rows from the highest rate to the lowest, equal rates by name, systems without a rate last."""
        return sorted(self.rows, key=lambda row: (row.rate is None, -(row.rate or 0.0), row.system))

    def row(self, system: str) -> WinRate | None:
        """The row of `system`, if there is one."""
        return next((row for row in self.rows if row.system == system), None)


class Series(Content):
    """One line of a panel."""

    label: NonEmpty
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    """None leaves a gap."""
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.label!r}: a band needs both 'low' and 'high'")
        for name in ("y", "low", "high"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.x):
                raise ValueError(f"series {self.label!r}: {len(self.x)} values of x, but {len(values)} of {name}")
        return self

    @classmethod
    def of(
        cls, label: str, rows: Sequence[Mapping[str, object]], *, x: str, y: str, low: str = "", high: str = ""
    ) -> Self:
        """The columns `x` and `y` of logged rows; rows without `x` are left out, missing or infinite `y` is a gap.

        `low` and `high` name the columns of the band, if there is one.
        """
        kept = [row for row in rows if _finite(row.get(x)) is not None]
        return cls(
            label=label,
            x=tuple(float(value) for row in kept if (value := _finite(row[x])) is not None),
            y=tuple(_finite(row.get(y)) for row in kept),
            low=tuple(_finite(row.get(low)) for row in kept) if low else None,
            high=tuple(_finite(row.get(high)) for row in kept) if high else None,
        )


def _finite(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


class Mark(Content):
    """A place on the x axis that the reader should look at, such as the step that was picked."""

    x: float
    label: NonEmpty


class Panel(Content):
    """Lines over one pair of axes."""

    kind: Literal["lines"] = "lines"
    title: NonEmpty
    x_label: NonEmpty = "step"
    percent: bool = False
    """Whether y is a fraction to be shown as a percentage."""
    log_x: bool = False
    """Whether x is drawn as a logarithm, with a tick at each value; all x are above 0."""
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    note: str = ""
    """One sentence under the panel: what to look for."""


class Dot(Content):
    """One measured value with its interval."""

    label: NonEmpty
    value: float
    low: float | None = None
    high: float | None = None


class DotSeries(Content):
    """Values that belong together, such as all win rates by one judge."""

    label: NonEmpty
    dots: tuple[Dot, ...]


class DotPanel(Content):
    """Named values with intervals, one line of the panel for each name; values are fractions."""

    kind: Literal["dots"] = "dots"
    title: NonEmpty
    series: tuple[DotSeries, ...]
    guide: float | None = None
    """Where a line is drawn for comparison, such as one half."""
    guide_label: str = ""
    note: str = ""


class NamedPoint(Content):
    """A place on two measured axes, with what is known of its error along each."""

    label: NonEmpty
    x: float
    y: float
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None


class LinePoint(Content):
    """A place on a fitted line, with the band of the fit."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


class PointSeries(Content):
    """Points that belong together, and the line that was fitted to them, if one was."""

    label: NonEmpty
    points: tuple[NamedPoint, ...]
    joined: bool = False
    """Whether the points are stations of one way."""
    line: tuple[LinePoint, ...] = ()


class PointsPanel(Content):
    """Points over two measured axes: a scatter of systems, or the way of a method."""

    kind: Literal["points"] = "points"
    title: NonEmpty
    x_label: NonEmpty
    y_label: NonEmpty
    log_x: bool = False
    """Whether x is drawn as a logarithm, with a tick at each value; all x are above 0."""
    percent_x: bool = False
    percent_y: bool = False
    """Whether values are fractions to be shown as percentages."""
    named: bool = False
    """Whether each point's name is written beside it."""
    diagonal: bool = False
    """Whether the line of equal values is drawn."""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    """What the axes show, so that panels can be compared; None leaves it to the points."""
    series: tuple[PointSeries, ...]
    note: str = ""


AnyPanel = Panel | DotPanel | PointsPanel


class Figure(Content):
    """Panels that are read together."""

    name: FileName
    """Of its files: name.svg, name.png, name.csv."""
    title: NonEmpty
    caption: str = ""
    panels: tuple[Annotated[AnyPanel, Field(discriminator="kind")], ...]


class Judgement(Content):
    """What one judge said of an answer beside the reference's."""

    judge: NonEmpty
    outcome: Outcome


class Answer(Content):
    """One system's answer, as it is shown in an example."""

    completion: Completion
    score: float | None = None
    judgements: tuple[Judgement, ...] = ()


class Sample(Content):
    """One instruction and what the systems answered."""

    instruction: Instruction
    answers: tuple[Answer, ...]

    @model_validator(mode="after")
    def _answers_belong_to_the_instruction(self) -> Self:
        for answer in self.answers:
            if answer.completion.instruction_id != self.instruction.id:
                raise ValueError(
                    f"sample {self.instruction.id!r}: {answer.completion.system!r} answers another instruction, "
                    f"{answer.completion.instruction_id!r}"
                )
        return self


class Column(Content):
    """A column of a table, with what a reader needs to know of it."""

    title: NonEmpty
    format: CellFormat = "text"
    """Percentages are given as fractions, times in seconds."""
    meaning: str = ""
    digits: Annotated[int, Field(ge=0, le=6)] | None = None
    """Digits after the point; None leaves it to the format."""


class Table(Content):
    """Any table: annotators, agreement, ablations."""

    title: NonEmpty
    caption: str = ""
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    """None is shown as a dash: not measured."""

    @model_validator(mode="after")
    def _cells_fit_their_columns(self) -> Self:
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}, row {number}: expected {len(self.columns)} cells, got {len(row)}"
                )
            for column, cell in zip(self.columns, row, strict=True):
                if cell is not None and isinstance(cell, str) != (column.format in ("text", "figure")):
                    raise ValueError(
                        f"table {self.title!r}, row {number}, {column.title!r}: expected {column.format}, got {cell!r}"
                    )
        return self


class StepCost(Content):
    """What one step of the run took."""

    step: NonEmpty
    seconds: Annotated[float, Field(ge=0.0)]
    cost_usd: Annotated[float, Field(ge=0.0)] | None
    """None where a price is unknown."""
    note: str = ""
    """Such as "40 steps of 128 prompts, 0.9 s each"."""


class Fact(Content):
    """A name and a value: a version, a seed, a judge's identity."""

    name: NonEmpty
    value: str


class ReportContent(Content):
    """Everything on the page. Parts that are empty leave no trace on it."""

    title: NonEmpty
    subtitle: str = ""
    date: str = ""
    """Of the run, if the page shall show one; the page never asks the clock."""
    testbed: str = ""
    """What a reader must know of the world the numbers come from, such as `summary.MEADOW`."""
    baseline: str = ""
    """The system that the others set out from; the summary says how far they came."""
    leaderboards: tuple[Leaderboard, ...] = ()
    """The judgement that counts most comes first."""
    breakdowns: tuple[Table, ...] = ()
    """What stands behind the leaderboards: rates by source, lengths, shares."""
    figures: tuple[Figure, ...] = ()
    samples: tuple[Sample, ...] = ()
    score_label: str = "score"
    """What the scores beside the answers are."""
    annotators: tuple[Table, ...] = ()
    costs: tuple[StepCost, ...] = ()
    facts: tuple[Fact, ...] = ()
    words: tuple[Fact, ...] = ()
    """Words of the run's own and what they mean, such as names that a recipe gave its systems."""
    recipe: str = ""
    warnings: tuple[str, ...] = ()
