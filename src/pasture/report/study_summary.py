"""What a study found, in sentences that follow from its numbers."""

from collections.abc import Sequence

from pasture.core.hostile import on_one_line, shortened
from pasture.report.numbers import number, points
from pasture.report.study_content import (
    Cost,
    Curve,
    Likeness,
    Measured,
    Ranking,
    StudyContent,
    Validity,
    WorldDifferences,
)

GOAL = 0.9
_NAME_CHARACTERS = 40
_NAMED = 4
_WORLDS = 2
"""Whose best two are told: people's and the simulation's."""


def study_sentences(content: StudyContent) -> list[str]:
    """One statement each, the most important first; empty where nothing was studied."""
    lines: list[str] = []
    if content.ranking is not None:
        lines += _ranking(content.ranking)
    if content.learners is not None:
        lines.append(_learners(content.learners))
    lines.append(_no_room_below(content))
    lines += [_best_two(world) for world in content.differences[:_WORLDS]]
    lines += _curves(content.curves)
    if content.validity is not None:
        lines.append(_validity(content.validity))
    if content.cost is not None:
        lines.append(_cost(content.cost))
    return [line for line in lines if line]


def summary_text(content: StudyContent) -> str:
    """The summary for a terminal: the leaderboard, then the statements."""
    return "\n".join([*_leaderboard(content.ranking, content.reference), *study_sentences(content)]) + "\n"


def _leaderboard(ranking: Ranking | None, reference: str) -> list[str]:
    """The systems from best to worst by people, with their rates in both worlds; empty where none was ranked."""
    if ranking is None:
        return []
    rows = [(_name(point.system), _rate(point.people), _rate(point.simulated)) for point in ranking.points]
    rows.insert(0, ("system", "by people", "in simulation"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    against = f" against {_name(reference)}" if reference else ""
    lines = [f" {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}" for row in rows]
    return [f"Leaderboard by people: percent won{against}, 95% interval", *lines, ""]


def _rate(figure: Measured) -> str:
    if figure.value is None:
        return "-"
    low, high = figure.interval.low, figure.interval.high
    span = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * figure.value:.1f}{span}"


def _best_two(world: WorldDifferences) -> str:
    if not world.pairs:
        return ""
    pair = world.pairs[0]
    clear = pair.interval_low > 0
    span = f"{points(pair.interval_low)} to {points(pair.interval_high)}"
    return (
        f"Trained on {_name(world.feedback)} and judged by {_name(world.judge)}, {_name(pair.system)} is the best that "
        f"was made here, {points(pair.difference)} points (95% interval {span}) ahead of {_name(pair.baseline)}: "
        f"{'chance does not explain it' if clear else 'it may be chance'}."
    )


def _ranking(ranking: Ranking) -> list[str]:
    spearman = ranking.spearman
    if spearman.value is None:
        return ["The systems cannot be ranked: their win rates are all alike in one of the worlds."]
    count = len(ranking.points)
    lines = [
        f"Simulation and people rank {count} systems with a Spearman correlation of {_with_interval(spearman)}.",
        _goal(spearman),
    ]
    swapped = [pair for pair in ranking.pairs if pair.swapped]
    sure = [pair for pair in swapped if pair.simulated_significant and pair.people_significant]
    if not swapped:
        lines.append(f"All {len(ranking.pairs)} pairs stand in the same order.")
    elif not sure:
        verb = "pair swaps" if len(swapped) == 1 else "pairs swap"
        lines.append(
            f"{len(swapped)} of {len(ranking.pairs)} {verb}, none with a difference that both worlds are sure of."
        )
    else:
        named = ", ".join(f"{_name(pair.first)} and {_name(pair.second)}" for pair in sure[:_NAMED])
        more = f" and {len(sure) - _NAMED} more" if len(sure) > _NAMED else ""
        lines.append(
            f"{len(swapped)} of {len(ranking.pairs)} pairs swap; of {len(sure)} both worlds are sure: {named}{more}."
        )
    return lines


def _learners(ranking: Ranking) -> str:
    if ranking.spearman.value is None:
        return ""
    return (
        f"Of the {len(ranking.points)} systems made here alone the correlation is {_with_interval(ranking.spearman)}."
    )


def _no_room_below(content: StudyContent) -> str:
    """Why an interval begins at its own figure, which looks like a mistake; empty where none does."""
    found = [part.spearman for part in (content.ranking, content.learners, content.validity) if part is not None]
    if not any(one.value is not None and one.interval.low == one.value for one in found):
        return ""
    return (
        "An interval that begins at its own figure is no mistake: with so few systems hardly any resample of the "
        "instructions ranked them less alike."
    )


def _goal(spearman: Likeness) -> str:
    low, high = spearman.interval.low, spearman.interval.high
    if spearman.value is None or low is None or high is None:
        return ""
    if low >= GOAL:
        return f"The whole interval lies at {GOAL:g} or above."
    if high < GOAL:
        return f"The whole interval lies below {GOAL:g}, so the simulation does not rank as people do."
    if spearman.value >= GOAL:
        return f"The figure reaches {GOAL:g}; the interval says that less cannot be ruled out."
    return f"The figure stays below {GOAL:g}; the interval says that {GOAL:g} cannot be ruled out."


def _curves(curves: Sequence[Curve]) -> list[str]:
    lines = []
    for feedback, judge in dict.fromkeys((curve.feedback, curve.judge) for curve in curves):
        group = [curve for curve in curves if (curve.feedback, curve.judge) == (feedback, judge)]
        turning = [curve for curve in group if curve.turns_down]
        world = f"Trained on {_name(feedback)} and judged by {_name(judge)}"
        if not turning:
            lines.append(f"{world}, no curve is shown to turn down.")
            continue
        falls = ", ".join(
            f"{_name(curve.family)} by {points(curve.downturn.difference)} points after "
            f"{curve.progress_name} {curve.downturn.progress:g}"
            for curve in turning[:_NAMED]
        )
        lines.append(f"{world}, {_amount(len(turning), len(group))} down: {falls}.")
    return lines


def _amount(turning: int, all_of_them: int) -> str:
    if all_of_them == 1:
        return "the curve turns"
    return f"{turning} of {all_of_them} curves turn" if turning > 1 else f"1 of {all_of_them} curves turns"


def _validity(validity: Validity) -> str:
    return (
        f"The evaluation set ranks {len(validity.points)} systems as live instructions do with a Spearman correlation "
        f"of {_with_interval(validity.spearman)}, R² {_with_interval(validity.r_squared)}."
    )


def _cost(cost: Cost) -> str:
    people = f"{cost.people.label_count:,} labels from people would cost ${cost.people.cost_usd or 0:,.0f}"
    hours = f"and {cost.people.hours:,.0f} hours of their time at the paper's rate"
    if cost.simulated.cost_usd is None:
        return f"{people} {hours}; the price of the simulated ones is unknown."
    return f"{people} {hours}; the simulated ones cost ${cost.simulated.cost_usd:,.2f}."


def _with_interval(figure: Likeness) -> str:
    if figure.value is None:
        return "unknown size"
    if figure.interval.low is None or figure.interval.high is None:
        return number(figure.value)
    return f"{number(figure.value)} (95% interval {number(figure.interval.low)} to {number(figure.interval.high)})"


def likeness_line(spearman: Likeness, kendall: Likeness, r_squared: Likeness) -> str:
    """The three measures on one line."""
    return f"Spearman {_with_interval(spearman)}, Kendall {_with_interval(kendall)}, R² {_with_interval(r_squared)}."


def _name(text: str) -> str:
    return on_one_line(shortened(text, _NAME_CHARACTERS))
