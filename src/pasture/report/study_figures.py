"""The figures of a study, each with the paper's numbers beside it where there are some."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from pasture.report import numbers, published
from pasture.report.content import (
    Figure,
    LinePoint,
    NamedPoint,
    Panel,
    PointSeries,
    PointsPanel,
    Series,
)
from pasture.report.figure_names import figure_names
from pasture.report.study_content import Curve, CurvePoint, Measured, StudyContent, StyleStudy

_NORMAL_95 = 1.96
_OF_WAYS = (
    "Win rates on the validation split along the method's way; bars are 95% intervals. Where a line turns down while "
    "the reward model's score goes on rising, the method pleases its reward model and no longer that judge."
)
_UNITS = {"n": "samples", "step": "steps", "round": "rounds"}
_UNSEEN = 0.001
"""A difference of rates that no drawing shows."""


def study_figures(content: StudyContent) -> list[Figure]:
    """The figures that the page of `content` shows, in its order."""
    found = [
        ranking_figure(content),
        power_figure(content),
        content.training,
        proxy_figure(content),
        divergence_figure(content),
        length_figure(content),
        noise_figure(content),
        validity_figure(content),
    ]
    return [figure for figure in found if figure is not None]


def ranking_figure(content: StudyContent) -> Figure | None:
    """Every system's win rate among people over that in the simulation; the paper's systems in a panel of their own."""
    ranking = content.ranking
    if ranking is None:
        return None
    known = [point for point in ranking.points if None not in (point.simulated.value, point.people.value)]
    named = {point.system: _named(point.system, point.simulated, point.people) for point in known}
    beside = content.baselines()
    made = PointSeries(
        label="made here" if beside else "systems",
        points=tuple(point for name, point in named.items() if name not in beside),
        line=_line(tuple(named.values()), ranking.slope, ranking.intercept),
    )
    told_apart = " Squares are systems that are not made here." if beside else ""
    given = PointSeries(label="not made here", points=tuple(named[name] for name in named if name in beside))
    paper = tuple(
        NamedPoint(
            label=row.name,
            x=row.simulated,
            y=row.people,
            x_low=row.simulated - _NORMAL_95 * row.simulated_error,
            x_high=row.simulated + _NORMAL_95 * row.simulated_error,
            y_low=row.people - _NORMAL_95 * row.people_error,
            y_high=row.people + _NORMAL_95 * row.people_error,
        )
        for row in published.METHODS
        if row.people is not None and row.people_error is not None
    )
    return Figure(
        name="ranking",
        title="Win rates in both worlds",
        caption="Across: trained on simulated preferences, judged by the simulation's judge without label noise. "
        "Upward: trained on people's preferences, judged by people. Bars are 95% intervals; a system on the dotted "
        "line wins as often in both, and what matters is the order. The dashed line is the least-squares "
        f"line.{told_apart}",
        panels=(
            _scatter("This study", (made, given) if given.points else (made,)),
            _scatter("The paper", (PointSeries(label="systems", points=paper),), published.RANKING),
        ),
    )


def _scatter(title: str, series: Sequence[PointSeries], note: str = "") -> PointsPanel:
    return PointsPanel(
        title=title,
        x_label="win rate in simulation",
        y_label="win rate among people",
        percent_x=True,
        percent_y=True,
        named=True,
        diagonal=True,
        series=tuple(series),
        note=note,
    )


def _line(points: Sequence[NamedPoint], slope: float | None, intercept: float | None) -> tuple[LinePoint, ...]:
    if slope is None or intercept is None or not points:
        return ()
    ends = min(point.x for point in points), max(point.x for point in points)
    return tuple(LinePoint(x=x, y=intercept + slope * x) for x in ends)


def _named(name: str, x: Measured, y: Measured) -> NamedPoint:
    return NamedPoint(
        label=name,
        x=x.value or 0.0,
        y=y.value or 0.0,
        x_low=x.interval.low,
        x_high=x.interval.high,
        y_low=y.interval.low,
        y_high=y.interval.high,
    )


def power_figure(content: StudyContent) -> Figure | None:
    """How sure studies of more and more instructions would have been."""
    power = content.ranking.power if content.ranking else ()
    if len(power) < 2:
        return None
    xs = tuple(float(row.instruction_count) for row in power)
    spearman = Series(
        label="Spearman",
        x=xs,
        y=tuple(row.spearman for row in power),
        low=tuple(row.interval.low for row in power),
        high=tuple(row.interval.high for row in power),
    )
    shares = [Series(label="Spearman of 0.9", x=xs, y=tuple(row.reaches_goal for row in power))]
    if all(row.clear_pairs_right is not None for row in power):
        shares.append(Series(label="clear pairs right", x=xs, y=tuple(row.clear_pairs_right for row in power)))
    return Figure(
        name="power",
        title="How many instructions it takes",
        caption="What studies would have reported that draw so many instructions from those at hand, with these "
        "systems and seeds. The band holds 95% of the studies.",
        panels=(
            Panel(title="Spearman correlation", x_label="instructions", log_x=True, series=(spearman,)),
            Panel(
                title="Share of studies that reach",
                x_label="instructions",
                log_x=True,
                percent=True,
                series=tuple(shares),
            ),
        ),
    )


def feedbacks(curves: Iterable[Curve]) -> list[tuple[str, str]]:
    """The kinds of feedback with their judges, in the order of the curves."""
    return list(dict.fromkeys((curve.feedback, curve.judge) for curve in curves))


def world_title(feedback: str, judge: str) -> str:
    """What stands over a panel: who taught and who judged."""
    return feedback if feedback == judge else f"{feedback}, judged by {judge}"


def proxy_figure(content: StudyContent) -> Figure | None:
    """Win rate over proxy reward, a panel for each kind of feedback, all with the same win-rate axis."""
    curves = [curve for curve in content.curves if any(point.proxy is not None for point in curve.points)]
    if not curves:
        return None
    span = _range(curves)
    panels = [
        PointsPanel(
            title=world_title(feedback, judge),
            x_label="proxy reward",
            y_label="win rate",
            percent_y=True,
            y_range=span,
            series=tuple(
                _way(curve, "proxy") for curve in curves if (curve.feedback, curve.judge) == (feedback, judge)
            ),
        )
        for feedback, judge in feedbacks(curves)
    ]
    return Figure(
        name="overoptimization-proxy",
        title="Win rate over proxy reward",
        caption="Each dot is a checkpoint, a number of samples or a round; bars are 95% intervals. A method that goes "
        f"right and down pleases its reward model and no longer its judge. {published.OVEROPTIMIZATION}",
        panels=tuple(panels),
    )


def way_figures(curves: Sequence[Curve]) -> list[Figure]:
    """For each method of one run its win rates by every judge along its way, beside them the same over its reward.

    All have one axis of win rates; the first explains them all.
    """
    families = {
        family: [curve for curve in curves if curve.family == family]
        for family in dict.fromkeys(curve.family for curve in curves)
    }
    names = figure_names("overoptimization", list(families))
    return [
        Figure(
            name=names[family],
            title=f"Does {family} over-optimize its reward?",
            caption="" if number else _OF_WAYS,
            panels=(_over_progress(own, _range(curves)), _over_proxy(own, _range(curves))),
        )
        for number, (family, own) in enumerate(families.items())
    ]


def _over_progress(curves: Sequence[Curve], span: tuple[float, float]) -> PointsPanel:
    """One method's way by every judge over its steps, rounds or samples, and which judge's line turns down."""
    name = curves[0].progress_name
    falls = [
        f"{curve.judge}: down by {numbers.points(curve.downturn.difference)} points after {curve.progress_name} "
        f"{curve.downturn.progress:g}."
        for curve in curves
        if curve.turns_down
    ]
    return PointsPanel(
        title=f"{curves[0].family}: win rate over {_UNITS.get(name, name)}",
        x_label=curves[0].progress_name,
        y_label="win rate",
        log_x=curves[0].progress_name == "n",
        percent_y=True,
        y_range=span,
        series=tuple(_way(curve, "progress").model_copy(update={"label": curve.judge}) for curve in curves),
        note=" ".join(falls) or "No line is shown to turn down.",
    )


def _over_proxy(curves: Sequence[Curve], span: tuple[float, float]) -> PointsPanel:
    """One method's way by every judge over the reward that it sees."""
    return PointsPanel(
        title=f"{curves[0].family}: win rate over its reward",
        x_label="mean score by the reward model",
        y_label="win rate",
        percent_y=True,
        y_range=span,
        series=tuple(_way(curve, "proxy").model_copy(update={"label": curve.judge}) for curve in curves),
    )


def divergence_figure(content: StudyContent) -> Figure | None:
    """Win rate over the KL divergence with the fitted laws."""
    curves = [curve for curve in content.curves if curve.fit is not None]
    if not curves:
        return None
    span = _range(curves)
    panels = [
        PointsPanel(
            title=world_title(feedback, judge),
            x_label="square root of the KL divergence, nats",
            y_label="win rate",
            percent_y=True,
            y_range=span,
            series=_ways(curves, feedback, judge, "kl"),
        )
        for feedback, judge in feedbacks(curves)
    ]
    return Figure(
        name="overoptimization-kl",
        title="Win rate over the distance from the start",
        caption="Dashed: the laws of Gao et al. 2022, start + d (a - b d) for best-of-n and expert iteration, "
        "start + d (a - b log d) for RL, with d on the horizontal axis; bands are 95% intervals of the fit.",
        panels=tuple(panels),
    )


def _ways(
    curves: Iterable[Curve], feedback: str, judge: str, across: Literal["proxy", "kl"]
) -> tuple[PointSeries, ...]:
    return tuple(_way(curve, across) for curve in curves if (curve.feedback, curve.judge) == (feedback, judge))


def _way(curve: Curve, across: Literal["proxy", "kl", "progress"]) -> PointSeries:
    points = []
    for point in curve.points:
        x = {"proxy": point.proxy, "kl": _distance(point), "progress": point.progress}[across]
        if x is not None and point.rate.value is not None:
            points.append(
                NamedPoint(
                    label=f"{curve.progress_name} {point.progress:g}",
                    x=x,
                    y=point.rate.value,
                    y_low=point.rate.interval.low,
                    y_high=point.rate.interval.high,
                )
            )
    line: tuple[LinePoint, ...] = ()
    if across == "kl" and curve.fit is not None:
        line = tuple(
            LinePoint(x=math.sqrt(place.kl), y=place.rate, low=place.interval.low, high=place.interval.high)
            for place in curve.fit.line
        )
    return PointSeries(label=curve.family, points=tuple(points), joined=across != "kl", line=line)


def _distance(point: CurvePoint) -> float | None:
    return None if point.kl is None else math.sqrt(max(0.0, point.kl))


def _range(curves: Iterable[Curve]) -> tuple[float, float]:
    """The win rates that all panels show: whole twentieths around all intervals."""
    values = [
        value
        for curve in curves
        for point in curve.points
        for value in (point.rate.value, point.rate.interval.low, point.rate.interval.high)
        if value is not None
    ]
    return math.floor(min(values) * 20) / 20, math.ceil(max(values) * 20) / 20


def length_figure(content: StudyContent) -> Figure | None:
    """Mean answer length along each method's way, a panel for each world."""
    panels = tuple(panel for study in content.styles if (panel := _length_panel(study)) is not None)
    if not panels:
        return None
    return Figure(
        name="length", title="How long the answers are", caption=f"Mean characters. {published.LENGTH}", panels=panels
    )


def _length_panel(study: StyleStudy) -> Panel | None:
    names = list(dict.fromkeys(style.system for style in study.styles if style.step is not None))
    series = []
    for name in names:
        rows = [style for style in study.styles if style.system == name and style.step is not None]
        if len(rows) > 1:
            series.append(
                Series(
                    label=name,
                    x=tuple(row.step for row in rows if row.step is not None),
                    y=tuple(row.mean_length.value for row in rows),
                    low=tuple(row.mean_length.interval.low for row in rows),
                    high=tuple(row.mean_length.interval.high for row in rows),
                )
            )
    return Panel(title=study.title, x_label="step or round", series=tuple(series)) if series else None


def noise_figure(content: StudyContent) -> Figure | None:
    """Agreement, variance and bias over the flip probability, a line for each number of annotators."""
    if len({point.flip_probability for point in content.noise}) < 2:
        return None
    counts = list(dict.fromkeys(point.annotator_count for point in content.noise))
    panels = []
    for name, title in (("agreement", "Agreement with people"), ("variance", "Variance"), ("bias", "Bias")):
        series = [_noise_line(content, name, count) for count in counts]
        if all(_lie_together(series[0], line) for line in series[1:]):
            series = [series[0].model_copy(update={"label": "any number of annotators"})]
        panels.append(Panel(title=title, x_label="flip probability", percent=True, series=tuple(series)))
    return Figure(
        name="noise",
        title="What noise and numbers do to a pool",
        caption="Expected of a pool of so many annotators whose labels are flipped so often; its bias does not depend "
        f"on flips. Bands are 95% intervals over pairs. {published.NOISE}",
        panels=tuple(panels),
    )


def _noise_line(content: StudyContent, name: str, count: int) -> Series:
    rows = [point for point in content.noise if point.annotator_count == count]
    figures: list[Measured] = [getattr(point, name) for point in rows]
    return Series(
        label=f"{count} annotator{'s' if count > 1 else ''}",
        x=tuple(point.flip_probability for point in rows),
        y=tuple(figure.value for figure in figures),
        low=tuple(figure.interval.low for figure in figures),
        high=tuple(figure.interval.high for figure in figures),
    )


def _lie_together(one: Series, other: Series) -> bool:
    """Whether two lines would be drawn over each other, so that two names would stand beside what looks like one."""
    pairs = zip(one.y, other.y, strict=False)
    return one.x == other.x and all(a == b or (a and b and abs(a - b) < _UNSEEN) for a, b in pairs)


def validity_figure(content: StudyContent) -> Figure | None:
    """Every system's win rate on live instructions over that on the evaluation set."""
    validity = content.validity
    if validity is None:
        return None
    points = tuple(
        _named(point.system, point.aggregated, point.live)
        for point in validity.points
        if point.aggregated.value is not None and point.live.value is not None
    )
    panel = PointsPanel(
        title="Evaluation set and live instructions",
        x_label="win rate on the evaluation set",
        y_label="win rate on live instructions",
        percent_x=True,
        percent_y=True,
        named=True,
        diagonal=True,
        series=(PointSeries(label="systems", points=points, line=_line(points, validity.slope, validity.intercept)),),
        note=published.EVALUATION_VALIDITY,
    )
    return Figure(
        name="evaluation-validity",
        title="Does the evaluation set stand for live use?",
        caption=f"{validity.aggregated_count:,} instructions of the evaluation set, {validity.live_count:,} live ones.",
        panels=(panel,),
    )
