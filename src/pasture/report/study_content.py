"""What the page of a study says; its parts have the fields of the JSON that `pasture.validate` writes of each study."""

from typing import Annotated, Literal

from pydantic import Field

from pasture.core.records import NonEmpty
from pasture.report.content import Content, Difference, Fact, Figure, Sample, StepCost, Table


class Span(Content):
    """An interval; None where a bound is not known."""

    low: float | None
    high: float | None


class Measured(Content):
    """A figure with its error."""

    value: float | None
    standard_error: float | None
    interval: Span


class Likeness(Content):
    """A correlation with its interval."""

    value: float | None
    interval: Span


class SystemPoint(Content):
    """One system in both worlds."""

    system: NonEmpty
    simulated: Measured
    people: Measured
    simulated_judged: int
    people_judged: int


class PairOrder(Content):
    """Two systems in both worlds; see `pasture.validate.rank_correlation`."""

    first: NonEmpty
    second: NonEmpty
    simulated_difference: float | None
    people_difference: float | None
    simulated_p_value: float | None
    people_p_value: float | None
    swapped: bool
    simulated_significant: bool
    people_significant: bool


class StudySize(Content):
    """What studies of so many instructions would have reported."""

    instruction_count: int
    label_count: int
    spearman: float | None
    interval: Span
    reaches_goal: float
    clear_pairs_right: float | None


class Ranking(Content):
    """`pasture.validate.rank_correlation.RankCorrelation.to_dict()`."""

    points: tuple[SystemPoint, ...]
    spearman: Likeness
    kendall: Likeness
    r_squared: Likeness
    slope: float | None
    intercept: float | None
    pairs: tuple[PairOrder, ...]
    power: tuple[StudySize, ...]
    instruction_count: int
    seed_count: int


class CurvePoint(Content):
    """One point of a curve."""

    progress: float
    kl: float | None
    proxy: float | None
    rate: Measured


class FitPoint(Content):
    """One point of a fitted law."""

    kl: float
    rate: float
    interval: Span


class Fit(Content):
    """A fitted law; see `pasture.validate.overoptimization`."""

    form: Literal["best-of-n", "rl"]
    start: Measured
    a: Measured
    b: Measured
    r_squared: float | None
    peak_kl: float | None
    peak_kl_interval: Span | None
    line: tuple[FitPoint, ...]


class Excess(Content):
    """How far a curve's best point lies above another."""

    progress: float
    difference: float
    interval: Span
    p_value: float


class Curve(Content):
    """`pasture.validate.overoptimization.Overoptimization.to_dict()`."""

    family: NonEmpty
    feedback: NonEmpty
    judge: NonEmpty
    progress_name: NonEmpty
    points: tuple[CurvePoint, ...]
    fit: Fit | None
    rise: Excess
    downturn: Excess
    proxy_change: float | None
    turns_down: bool


class Fall(Content):
    """How far a curve ends below its best point."""

    family: NonEmpty
    downturn: Excess
    turns_down: bool


class LabelEffect(Content):
    """What learning from one kind of labels comes to."""

    feedback: NonEmpty
    judge: NonEmpty
    like_people: Measured | None
    """Share of the labels that are people's own; None for people, and where they were asked about other pairs."""
    system_count: int
    """Systems that people's labels made too."""
    spearman: Likeness | None
    """Of these systems' win rates with those among people; None where they are few."""
    falls: tuple[Fall, ...]


class Style(Content):
    """`pasture.validate.style.Style.to_dict()`."""

    system: NonEmpty
    step: float | None
    mean_length: Measured
    list_share: Measured
    gain: Measured
    gain_at_equal_length: Measured | None
    explained_by_length: Measured | None


class StyleStudy(Content):
    """Styles of the systems of one world, by its judge."""

    title: NonEmpty
    """Such as "trained on people, judged by people"."""
    baseline: NonEmpty
    styles: tuple[Style, ...]


class NoisePoint(Content):
    """`pasture.validate.noise.NoisePoint.to_dict()`."""

    annotator_count: int
    flip_probability: float
    agreement: Measured
    variance: Measured
    bias: Measured


class ValidityPoint(Content):
    """One system on both sets of instructions."""

    system: NonEmpty
    aggregated: Measured
    live: Measured


class Validity(Content):
    """`pasture.validate.evaluation_validity.EvaluationValidity.to_dict()`."""

    points: tuple[ValidityPoint, ...]
    spearman: Likeness
    kendall: Likeness
    r_squared: Likeness
    slope: float | None
    intercept: float | None
    aggregated_count: int
    live_count: int


class LabelCost(Content):
    """Labels of one kind."""

    labels: NonEmpty
    label_count: int
    cost_usd: float | None
    hours: float
    usd_per_thousand: float | None
    hours_per_thousand: float


class Cost(Content):
    """`pasture.validate.cost.StudyCost.to_dict()`."""

    simulated: LabelCost
    people: LabelCost
    study_usd: float | None
    study_hours: float
    with_people_usd: float | None
    with_people_hours: float
    price_ratio: float | None


class Transfer(Content):
    """A system trained in the simulation and judged by people."""

    system: NonEmpty
    rate: Measured


class WorldDifferences(Content):
    """How far apart the systems are that one kind of feedback made, by one judge."""

    feedback: NonEmpty
    judge: NonEmpty
    pairs: tuple[Difference, ...]
    """The better system of each first, from the best two on; without the start and what is not made here."""


class StudyContent(Content):
    """Everything on the page of a study. Parts that are empty leave no trace on it."""

    title: NonEmpty
    subtitle: str = ""
    date: str = ""
    """Of the run, if the page shall show one; the page never asks the clock."""
    testbed: str = ""
    """What a reader must know of the world the numbers come from, such as `summary.MEADOW`."""
    warnings: tuple[str, ...] = ()
    reference: str = ""
    """What every win rate is against."""
    ranking: Ranking | None = None
    learners: Ranking | None = None
    """The ranking of the systems that are made here alone, where `ranking` holds others beside them."""
    differences: tuple[WorldDifferences, ...] = ()
    """People's world first, the simulation's next."""
    training: Figure | None = None
    """How the trainings went."""
    transfer: tuple[Transfer, ...] = ()
    """Of systems in `ranking`."""
    curves: tuple[Curve, ...] = ()
    """In the order in which the page shows their kinds of feedback: people's first."""
    styles: tuple[StyleStudy, ...] = ()
    annotators: tuple[Table, ...] = ()
    noise: tuple[NoisePoint, ...] = ()
    labels: tuple[LabelEffect, ...] = ()
    ablations: tuple[Table, ...] = ()
    """What label noise does to over-optimization, ranking and whatever else was measured under it."""
    validity: Validity | None = None
    selection: tuple[Table, ...] = ()
    """Which settings were picked on which split, and how often the evaluation set was touched."""
    cost: Cost | None = None
    costs: tuple[StepCost, ...] = ()
    samples: tuple[Sample, ...] = ()
    score_label: str = "score"
    facts: tuple[Fact, ...] = ()
    words: tuple[Fact, ...] = ()
    """Words of the run's own and what they mean, such as names that a recipe gave its systems."""
    recipe: str = ""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """Of every interval."""

    def baselines(self) -> frozenset[str]:
        """The systems of `ranking` that are not made here."""
        if self.ranking is None or self.learners is None:
            return frozenset()
        made = {point.system for point in self.learners.points}
        return frozenset(point.system for point in self.ranking.points if point.system not in made)
