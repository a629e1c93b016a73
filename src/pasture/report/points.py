"""Draws points over two measured axes: names that find their place, error bars, fitted lines with their bands."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from pasture.core.palette import LIGHT, SERIES
from pasture.report.content import LinePoint, NamedPoint, PointSeries, PointsPanel
from pasture.report.labels import on_label

_SCATTER_INCHES = 4.4, 4.2
_WAY_INCHES = 3.5, 2.9
_POINTS_PER_INCH = 72
_LETTER, _LINE = 5.2, 12.0
"""Size of a letter and of a line of text in points, at the size that figures are written in."""
_REACHES = (9.0, 18.0, 30.0, 44.0, 60.0)
_DIRECTIONS = ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1))
_MARKERS = "osD^vP"
_STRUCK = 2.0
"""What an area that a name shares with a bar or a line weighs: a name struck through is hard to read."""
_SQUARE = 3.0


class _Box(NamedTuple):
    """A rectangle, in points from the lower left corner of the axes."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "_Box") -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)


def points_size(panel: PointsPanel) -> tuple[float, float]:
    """Inches of the panel's drawing: nearly square where names are written."""
    return _SCATTER_INCHES if panel.named else _WAY_INCHES


def points_rows(panel: PointsPanel) -> Iterator[tuple[object, ...]]:
    """Each drawn value as kind, series, label, x, y, low, high, x_low, x_high."""
    for series in panel.series:
        for point in series.points:
            yield ("point", series.label, point.label, point.x, point.y,
                   point.y_low, point.y_high, point.x_low, point.x_high)  # fmt: skip
        for place in series.line:
            yield "line", series.label, None, place.x, place.y, place.low, place.high, None, None


def draw_points(axes: Axes, panel: PointsPanel, styles: Mapping[str, int]) -> None:
    """Draw the panel; series of one panel differ in color and in marker."""
    for order, series in enumerate(panel.series):
        _draw_series(axes, series, LIGHT[SERIES[styles.get(series.label, order % len(SERIES))]], order, panel.named)
    axes.set_xlabel(on_label(panel.x_label, 60))
    axes.set_ylabel(on_label(panel.y_label, 60))
    for axis, percent in ((axes.xaxis, panel.percent_x), (axes.yaxis, panel.percent_y)):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        if percent:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.10g}%"))
    if panel.log_x:
        draw_log_ticks(axes, {point.x for series in panel.series for point in series.points})
    axes.grid(axis="both")
    axes.set_axisbelow(True)
    axes.margins(0.08)
    if panel.x_range is not None:
        axes.set_xlim(*panel.x_range)
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)
    if panel.diagonal:
        _draw_diagonal(axes)
    if panel.named:
        _name_points(axes, panel)
    elif len(panel.series) > 1:
        axes.legend(
            handles=_keys(axes, panel.series),
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=2,
            frameon=False,
            handlelength=1.4,
            columnspacing=1.0,
            labelcolor=LIGHT["ink"],
            borderaxespad=0.2,
        )


def draw_log_ticks(axes: Axes, values: Collection[float]) -> None:
    """Make the x axis logarithmic, with a tick at each value and nowhere else."""
    axes.set_xscale("log")
    axes.set_xticks(sorted(values), [f"{value:g}" for value in sorted(values)])
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_series(axes: Axes, series: PointSeries, color: str, order: int, named: bool) -> None:
    if series.line:
        along = [place.x for place in series.line]
        axes.plot(
            along, [place.y for place in series.line], color=color, linewidth=1.4, linestyle=(0, (5, 2)), zorder=2
        )
        banded = [place for place in series.line if place.low is not None and place.high is not None]
        if banded:
            axes.fill_between(
                [place.x for place in banded],
                [place.low or 0.0 for place in banded],
                [place.high or 0.0 for place in banded],
                color=color,
                alpha=0.10,
                linewidth=0,
            )
    if series.joined:
        axes.plot(
            [point.x for point in series.points],
            [point.y for point in series.points],
            color=color,
            linewidth=1.0,
            alpha=0.45,
            zorder=2,
        )
    for point in series.points:
        bars = []
        if point.y_low is not None and point.y_high is not None:
            bars.append(((point.x, point.x), (point.y_low, point.y_high)))
        if point.x_low is not None and point.x_high is not None:
            bars.append(((point.x_low, point.x_high), (point.y, point.y)))
        for xs, ys in bars:
            axes.plot(
                xs, ys, color=color, linewidth=1.2, alpha=0.45 if named else 0.7, solid_capstyle="round", zorder=2
            )
    marker = _MARKERS[order % len(_MARKERS)]
    axes.plot(
        [point.x for point in series.points],
        [point.y for point in series.points],
        marker=marker,
        markersize=5.5 if named else 4.5,
        linestyle="none",
        color=color,
        markeredgecolor=LIGHT["paper"],
        markeredgewidth=0.8,
        zorder=4,
        label=on_label(series.label),
    )


def _keys(axes: Axes, series: Sequence[PointSeries]) -> list[Line2D]:
    """The drawn markers of the series, in their order."""
    names = {on_label(one.label) for one in series}
    return [line for line in axes.lines if line.get_label() in names]


def _draw_diagonal(axes: Axes) -> None:
    low = max(axes.get_xlim()[0], axes.get_ylim()[0])
    high = min(axes.get_xlim()[1], axes.get_ylim()[1])
    if low < high:
        axes.plot([low, high], [low, high], color=LIGHT["soft"], linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)


def _name_points(axes: Axes, panel: PointsPanel) -> None:
    """Write each point's name where it covers least: beside the point, or further off with a thin line to it.

    Points in the thick of the others choose last, as they have the least to choose from near by and may go far.
    """
    width, height = (
        inches * _POINTS_PER_INCH * share for inches, share in zip(points_size(panel), (0.82, 0.84), strict=True)
    )
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    points = [point for series in panel.series for point in series.points]
    places = [((p.x - x0) / (x1 - x0) * width, (p.y - y0) / (y1 - y0) * height) for p in points]
    taken = [_Box(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    bars = [box for point in points for box in _bars(point, (x0, x1, width), (y0, y1, height))]
    bars += [box for series in panel.series for box in _along(series.line, (x0, x1, width), (y0, y1, height))]
    crowding = [sum(abs(x - a) + abs(y - b) < 40 for a, b in places) for x, y in places]
    for number in sorted(range(len(points)), key=lambda one: (crowding[one], -places[one][1], one)):
        name = on_label(points[number].label)
        x, y = places[number]
        box, reach = _best_place(name, x, y, (width, height), (taken, bars))
        taken.append(box)
        left = box.left if box.left >= x - 1 else box.right
        axes.annotate(
            name,
            (points[number].x, points[number].y),
            xytext=((box.left + box.right) / 2 - x, (box.bottom + box.top) / 2 - y),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9.2,
            color=LIGHT["ink"],
            zorder=5,
            annotation_clip=False,
            arrowprops=None
            if reach <= _REACHES[0] or abs(left - x) < 2
            else {"arrowstyle": "-", "color": LIGHT["soft"], "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4},
        )


def _bars(
    point: NamedPoint, across: tuple[float, float, float], upward: tuple[float, float, float]
) -> tuple[_Box, ...]:
    """What the point's error bars cover, each axis given as its ends and its length in points."""
    x, y = _place(point.x, across), _place(point.y, upward)
    boxes = []
    if point.x_low is not None and point.x_high is not None:
        boxes.append(_Box(_place(point.x_low, across), y - 1, _place(point.x_high, across), y + 1))
    if point.y_low is not None and point.y_high is not None:
        boxes.append(_Box(x - 1, _place(point.y_low, upward), x + 1, _place(point.y_high, upward)))
    return tuple(boxes)


def _along(
    line: Sequence[LinePoint], across: tuple[float, float, float], upward: tuple[float, float, float]
) -> Iterator[_Box]:
    """What a fitted line covers, in small squares."""
    ends = [(_place(point.x, across), _place(point.y, upward)) for point in line]
    for (x0, y0), (x1, y1) in pairwise(ends):
        steps = max(1, round(math.hypot(x1 - x0, y1 - y0) / _SQUARE))
        for number in range(steps):
            x, y = (a + (b - a) * (number + 0.5) / steps for a, b in ((x0, x1), (y0, y1)))
            yield _Box(x - 1, y - _SQUARE / 2, x + 1, y + _SQUARE / 2)


def _place(value: float, axis: tuple[float, float, float]) -> float:
    """Points from the beginning of an axis, which is given as its ends and its length in points."""
    return (value - axis[0]) / (axis[1] - axis[0]) * axis[2]


def _best_place(
    name: str, x: float, y: float, size: tuple[float, float], obstacles: tuple[Sequence[_Box], Sequence[_Box]]
) -> tuple[_Box, float]:
    """The box of the name that covers least, and how far off it is."""
    wide, high = len(name) * _LETTER, _LINE
    best = (math.inf, _Box(x, y, x, y), 0.0)
    for reach in _REACHES:
        for right, up in _DIRECTIONS:
            middle_x = x + right * (reach * (0.75 if up else 1) + wide / 2)
            middle_y = y + up * (reach * 0.75 + (0 if right else high / 4))
            box = _Box(middle_x - wide / 2, middle_y - high / 2, middle_x + wide / 2, middle_y + high / 2)
            outside = max(0.0, -box.left) + max(0.0, box.right - size[0])
            outside += max(0.0, -box.bottom) + max(0.0, box.top - size[1])
            covered = sum(box.overlap(other) for other in obstacles[0]) * 4
            covered += sum(box.overlap(other) for other in obstacles[1]) * _STRUCK
            cost = covered + 60 * outside + 1.2 * reach
            if cost < best[0] - 1e-9:
                best = (cost, box, reach)
    return best[1], best[2]
