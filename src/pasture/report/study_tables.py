"""The tables of a study."""

from collections.abc import Iterable, Sequence

from pasture.report import published
from pasture.report.content import Column, Difference, Table
from pasture.report.numbers import DASH, MINUS, number, p_value, percent, points, usd
from pasture.report.study_content import (
    Excess,
    Likeness,
    Measured,
    Span,
    StudyContent,
    StyleStudy,
    WorldDifferences,
)
from pasture.report.study_figures import world_title

_INTERVAL = "95% interval"
_MOST_PAIRS = 10
"""Of a world that are shown unasked."""


def interval(span: Span) -> str | None:
    """A range of fractions as percentages; None where it is not known."""
    if span.low is None or span.high is None:
        return None
    return f"{percent(span.low)} to {percent(span.high)}"


def method_table(content: StudyContent) -> Table | None:
    """Every system in both worlds, from best to worst by people."""
    ranking = content.ranking
    if ranking is None:
        return None
    transfers = {row.system: row.rate for row in content.transfer}
    lengths = _lengths(content.styles)
    people, simulation = _people_and_simulation(content)
    made = f"Trained on {simulation.feedback}, judged by"
    columns = [
        Column(title="System"),
        Column(title="Simulation", format="percent", meaning=f"{made} {simulation.judge}."),
        Column(title=_INTERVAL),
        Column(title="People", format="percent", meaning=f"Trained on {people.feedback}, judged by {people.judge}."),
        Column(title=_INTERVAL),
    ]
    if transfers:
        meaning = f"{made} {people.judge}: what a model made in simulation is worth."
        columns.append(Column(title="Transfer", format="percent", meaning=meaning))
        columns.append(Column(title=_INTERVAL))
    if lengths:
        columns.append(Column(title="Characters", format="count", meaning="Mean length of the answers."))
    rows = []
    for point in ranking.points:
        row: list[str | float | None] = [point.system, point.simulated.value, interval(point.simulated.interval)]
        row += [point.people.value, interval(point.people.interval)]
        if transfers:
            moved = transfers.get(point.system)
            row += [None, None] if moved is None else [moved.value, interval(moved.interval)]
        if lengths:
            row.append(lengths.get(point.system))
        rows.append(tuple(row))
    against = f" against {content.reference}" if content.reference else ""
    seeds = f"{ranking.seed_count} seed{'s' if ranking.seed_count > 1 else ''}"
    return Table(
        title="Methods in both worlds",
        caption=f"Win rates{against} on {ranking.instruction_count:,} instructions, {seeds}, best by people first. "
        f"{published.TRANSFER if transfers else ''}",
        columns=tuple(columns),
        rows=tuple(rows),
    )


_NAMELESS = (
    WorldDifferences(feedback="people's preferences", judge="people", pairs=()),
    WorldDifferences(feedback="simulated preferences", judge="the simulation's judge", pairs=()),
)


def _people_and_simulation(content: StudyContent) -> tuple[WorldDifferences, WorldDifferences]:
    """Whose preferences the systems of either world learned from and who judges them, as the recipe has it."""
    people, simulation = content.differences[:2] if len(content.differences) > 1 else _NAMELESS
    return people, simulation


def _lengths(studies: Iterable[StyleStudy]) -> dict[str, float]:
    """By system, from the first world that has it: at the end of its way, or as it is where it has no steps."""
    found: dict[str, float] = {}
    for study in studies:
        last = {style.system: style for style in study.styles}
        last |= {style.system: style for style in study.styles if style.step is None}
        for name, style in last.items():
            if style.mean_length.value is not None:
                found.setdefault(name, style.mean_length.value)
    return found


def paper_table() -> Table:
    """The paper's own table of methods."""
    return Table(
        title="The paper's methods",
        caption=f"Against text-davinci-003 on 805 instructions. {published.SOURCE}, Table 2.",
        columns=(
            Column(title="System"),
            Column(title="Simulation", format="percent"),
            Column(title="± SE", format="percent"),
            Column(title="People", format="percent"),
            Column(title="± SE ", format="percent"),
        ),
        rows=tuple((row.name, row.simulated, row.simulated_error, row.people, row.people_error)
                   for row in published.METHODS),
    )  # fmt: skip


def swap_table(content: StudyContent) -> Table | None:
    """The pairs that people have the other way round."""
    ranking = content.ranking
    swapped = [pair for pair in ranking.pairs if pair.swapped] if ranking else []
    if ranking is None or not swapped:
        return None
    rows = tuple(
        (
            f"{pair.first} over {pair.second}",
            None if pair.simulated_difference is None else points(pair.simulated_difference),
            _p(pair.simulated_p_value),
            None if pair.people_difference is None else points(pair.people_difference),
            _p(pair.people_p_value),
            _verdict(pair.simulated_significant, pair.people_significant),
        )
        for pair in swapped
    )
    return Table(
        title="Pairs that swap",
        caption=f"{len(swapped)} of {len(ranking.pairs)} pairs stand one way in the simulation and the other way among "
        "people. p-values are of paired tests over instructions and seeds, corrected by Holm for all pairs of a world.",
        columns=(
            Column(title="In the simulation"),
            Column(title="Simulation, points"),
            Column(title="p"),
            Column(title="People, points"),
            Column(title="p "),
            Column(title="What it means"),
        ),
        rows=rows,
    )


def _verdict(simulated: bool, people: bool) -> str:
    if simulated and people:
        return "the worlds contradict each other"
    if people:
        return "people are sure, the simulation is not"
    if simulated:
        return "the simulation is sure, people are not"
    return "within chance on both sides"


def difference_tables(content: StudyContent) -> tuple[Table, ...]:
    """For each judge how far the systems are apart: each pair, or the best with each other where pairs are many."""
    shown: list[Table] = []
    for world in content.differences:
        few = len(world.pairs) <= _MOST_PAIRS
        pairs = [pair for pair in world.pairs if few or pair.system == world.pairs[0].system]
        caption = "" if few else "The best with each other; all pairs are below. "
        if pairs:
            caption += _DIFFERENCES if not shown else ""
            shown.append(_difference_table(pairs, f"Which system is better, {_told(world)}", caption))
    return tuple(shown)


_DIFFERENCES = (
    "Differences of win rates on the same instructions, the better system first. Where the interval leaves out 0, "
    "chance does not explain the difference; of pairs that are truly equal one in twenty looks so all the same."
)


def all_pairs_tables(content: StudyContent) -> tuple[Table, ...]:
    """Every pair of each world that `difference_tables` does not show whole."""
    return tuple(
        _difference_table(world.pairs, f"All {len(world.pairs)} pairs, {_told(world)}", "")
        for world in content.differences
        if len(world.pairs) > _MOST_PAIRS
    )


def _told(world: WorldDifferences) -> str:
    return f"trained on {world.feedback}, judged by {world.judge}"


def _difference_table(pairs: Sequence[Difference], title: str, caption: str) -> Table:
    return Table(
        title=title,
        caption=caption,
        columns=(
            Column(title="Systems"),
            Column(title="Difference, points", format="figure"),
            Column(title=_INTERVAL, format="figure"),
            Column(title="p", format="figure"),
        ),
        rows=tuple(
            (
                f"{pair.system} over {pair.baseline}",
                points(pair.difference),
                f"{points(pair.interval_low)} to {points(pair.interval_high)}",
                _p(pair.p_value),
            )
            for pair in pairs
        ),
    )


def _p(value: float | None) -> str | None:
    return None if value is None else p_value(value)


def power_table(content: StudyContent) -> Table | None:
    """What a study of each size would have reported."""
    ranking = content.ranking
    if ranking is None or not ranking.power:
        return None
    return Table(
        title="Studies of each size, in numbers",
        columns=(
            Column(title="Instructions", format="count"),
            Column(title="Labels", format="count", meaning="Judgements in both worlds together."),
            Column(title="Spearman", format="number", meaning="The median study's."),
            Column(title="95% of studies"),
            Column(title="Report 0.9 or more", format="percent", digits=0),
            Column(
                title="All clear pairs right",
                format="percent",
                digits=0,
                meaning="Studies whose simulation orders every pair that people told apart as people did.",
            ),
        ),
        rows=tuple(
            (
                float(row.instruction_count),
                float(row.label_count),
                row.spearman,
                _range(row.interval),
                row.reaches_goal,
                row.clear_pairs_right,
            )
            for row in ranking.power
        ),
    )


def _range(span: Span) -> str | None:
    if span.low is None or span.high is None:
        return None
    return f"{number(span.low)} to {number(span.high)}"


def turn_table(content: StudyContent) -> Table | None:
    """Where each curve is best, what it gained, and whether it turns down."""
    if not content.curves:
        return None
    return Table(
        title="Which curves turn down",
        caption="The best of several noisy points is better than the last by chance alone; the test allows for that "
        "choice (Romano and Wolf 2005). Differences in percentage points, bounds at 95% each.",
        columns=(
            Column(title="Trained on"),
            Column(title="Method"),
            Column(title="Turns down"),
            Column(title="Best at"),
            Column(title="Rise from the start"),
            Column(title="Fall to the end"),
            Column(title="p of the fall"),
            Column(title="Proxy since", format="number", meaning="Change of the proxy reward from the best point on."),
        ),
        rows=tuple(
            (
                world_title(curve.feedback, curve.judge),
                curve.family,
                "yes" if curve.turns_down else "not shown",
                f"{curve.progress_name} {curve.downturn.progress:g}",
                _gap(curve.rise),
                _gap(curve.downturn),
                _p(curve.downturn.p_value),
                curve.proxy_change,
            )
            for curve in content.curves
        ),
    )


def _gap(excess: Excess) -> str:
    shown = points(excess.difference)
    if excess.interval.low is None or excess.interval.high is None:
        return shown
    return f"{shown} ({points(excess.interval.low)} to {points(excess.interval.high)})"


def label_table(content: StudyContent) -> Table | None:
    """What learning from each kind of labels comes to: likeness to people, ranking, the fall of each curve."""
    if not content.labels:
        return None
    families = list(dict.fromkeys(fall.family for row in content.labels for fall in row.falls))
    told = " Falls are from a curve's best point to its last, in percentage points by the judge named last."
    ranked = any(row.spearman is not None for row in content.labels)
    rows = []
    for row in content.labels:
        falls = {fall.family: fall for fall in row.falls}
        if row.like_people is None and row.spearman is None and not falls:
            continue
        cells: list[str | float | None] = [world_title(row.feedback, row.judge)]
        cells += [row.like_people.value, interval(row.like_people.interval)] if row.like_people else [None, None]
        if ranked:
            cells.append(None if row.spearman is None else _correlation(row.spearman))
        cells += [_gap(falls[family].downturn) if family in falls else None for family in families]
        rows.append(tuple(cells))
    if not rows:
        return None
    order = Column(title="Spearman with people", meaning="Over the systems that people's labels made too.")
    return Table(
        title="What the labels do to learning",
        caption=f"The same methods, trained anew on each kind of labels.{told if families else ''}",
        columns=(
            Column(title="Trained on"),
            Column(title="Labels like people's", format="percent", meaning="Pairs of which people said the same."),
            Column(title=_INTERVAL),
            *([order] if ranked else []),
            *(Column(title=f"Fall of {family}") for family in families),
        ),
        rows=tuple(rows),
    )


def _correlation(likeness: Likeness) -> str | None:
    if likeness.value is None:
        return None
    span = _range(likeness.interval)
    return f"{number(likeness.value)} ({span})" if span else number(likeness.value)


def law_table(content: StudyContent) -> Table | None:
    """The coefficients of the fitted laws."""
    fits = [(curve, curve.fit) for curve in content.curves if curve.fit is not None]
    if not fits:
        return None
    return Table(
        title="The laws of Gao et al., fitted",
        caption="d is the square root of the KL divergence in nats. A positive b bends the curve down.",
        columns=(
            Column(title="Trained on"),
            Column(title="Method"),
            Column(title="a"),
            Column(title="b"),
            Column(title="R²", format="number"),
            Column(title="Highest at KL"),
        ),
        rows=tuple(
            (
                world_title(curve.feedback, curve.judge),
                curve.family,
                _coefficient(fit.a),
                _coefficient(fit.b),
                fit.r_squared,
                None if fit.peak_kl is None else _peak(fit.peak_kl, fit.peak_kl_interval),
            )
            for curve, fit in fits
        ),
    )


def _coefficient(figure: Measured) -> str | None:
    if figure.value is None:
        return None
    value = f"{figure.value:.3f}"
    if figure.interval.low is not None and figure.interval.high is not None:
        value += f" ({figure.interval.low:.3f} to {figure.interval.high:.3f})"
    return value.replace("-", MINUS)


_FAR = 1_000
"""Nats beyond which a peak is no longer told in numbers: it was never near."""


def _peak(kl: float, span: Span | None) -> str:
    def shown(value: float) -> str:
        return f"{value:.1f}" if value < _FAR else "never reached"

    if span is None or span.low is None or span.high is None:
        return shown(kl)
    return f"{shown(kl)} ({shown(span.low)} to {shown(span.high)})"


def style_table(study: StyleStudy) -> Table:
    """Length, lists, and what length explains of the gain over the baseline."""
    return Table(
        title=f"Length and style, {study.title}",
        caption=f"Gains are win rates over those of {study.baseline} on the same instructions, in points.",
        columns=(
            Column(title="System"),
            Column(title="Step", format="count"),
            Column(title="Characters", format="count"),
            Column(title="With a list", format="percent"),
            Column(title="Gain"),
            Column(
                title="Gain at equal length",
                meaning="The height, at equal lengths, of the line of gains over the log ratio of lengths; a dash "
                "where hardly any answer is as short as the baseline's.",
            ),
            Column(
                title="Explained by length",
                meaning="1 - gain at equal length / gain; a dash where there is no gain beyond chance. Length stands "
                "for all that comes with it, better content included. More than all: at equal length the system would "
                "lose to the baseline. It cannot be told where the interval is wider than 100 points.",
            ),
        ),
        rows=tuple(
            (
                style.system,
                style.step,
                style.mean_length.value,
                style.list_share.value,
                _points_with_interval(style.gain),
                None if style.gain_at_equal_length is None else _points_with_interval(style.gain_at_equal_length),
                None if style.explained_by_length is None else _share(style.explained_by_length),
            )
            for style in study.styles
        ),
    )


def _points_with_interval(figure: Measured) -> str | None:
    if figure.value is None:
        return None
    if figure.interval.low is None or figure.interval.high is None:
        return points(figure.value)
    return f"{points(figure.value)} ({points(figure.interval.low)} to {points(figure.interval.high)})"


def _share(figure: Measured) -> str:
    """A share of a gain; in words where more than all is explained, or the interval leaves open whether any is."""
    low, high = figure.interval.low, figure.interval.high
    if figure.value is None:
        return DASH
    if low is None or high is None:
        return percent(figure.value)
    if high - low > 1:
        return f"{percent(low)} or more; how much cannot be told" if low > 0 else "cannot be told"
    span = f"{percent(low)} to {percent(high)}"
    if figure.value > 1:
        return f"more than all of it ({span})"
    return f"{percent(figure.value)} ({span})"


def cost_table(content: StudyContent) -> Table | None:
    """Labels and the whole study, simulated and with people."""
    cost = content.cost
    if cost is None:
        return None
    rows: list[tuple[str | float | None, ...]] = [
        (f"Labels, {row.labels}", float(row.label_count), row.cost_usd, 3600 * row.hours, usd(row.usd_per_thousand),
         3600 * row.hours_per_thousand)
        for row in (cost.simulated, cost.people)
    ]  # fmt: skip
    rows.append(("The whole study", None, cost.study_usd, 3600 * cost.study_hours, None, None))
    rows.append(("The whole study with people", None, cost.with_people_usd, 3600 * cost.with_people_hours, None, None))
    return Table(
        title="What it costs",
        caption="From the run's own records; people at the paper's $0.30 and 36.8 seconds a label. "
        f"{published.COST} {published.ANNOTATORS}",
        columns=(
            Column(title="What"),
            Column(title="Labels", format="count"),
            Column(title="Dollars", format="usd"),
            Column(title="Time", format="seconds"),
            Column(title="Dollars per 1,000"),
            Column(title="Time per 1,000", format="seconds"),
        ),
        rows=tuple(rows),
    )
