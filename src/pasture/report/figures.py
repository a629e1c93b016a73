"""Figures: drawn by matplotlib, inlined in the page as SVG or saved as SVG, PNG and CSV.

Equal content gives equal bytes: no date, no random identifiers, no settings of the user's own matplotlib.
"""

import contextlib
import csv
import io
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pasture.core.files import atomic_file, write_text
from pasture.core.hostile import for_csv, shortened
from pasture.core.palette import DASHES, LIGHT, SERIES
from pasture.report.content import (
    AnyPanel,
    Dot,
    DotPanel,
    DotSeries,
    Figure,
    Leaderboard,
    Panel,
    PointsPanel,
    ReportContent,
    Series,
)
from pasture.report.labels import on_label
from pasture.report.points import draw_log_ticks, draw_points, points_rows, points_size

_PANEL_INCHES = 3.5, 2.35
_DOT_LINE_INCHES = 0.21
_CHARACTER_INCHES = 0.08
_ROOMY_CHARACTERS = 12
_CELL_CHARACTERS = 1_000
_COLUMNS = 3
_OVERVIEW_SYSTEMS = 30
_ROUND = [1, 2, 2.5, 5, 10]
_CSV_HEADER = ("panel", "kind", "series", "label", "x", "y", "low", "high", "x_low", "x_high")

Styles = Mapping[str, int]
"""Number of the color of each label: one system has one color in every panel."""


def win_rate_figure(leaderboards: Sequence[Leaderboard]) -> Figure | None:
    """All win rates by all judges over one another, in the order of the first leaderboard; None without a rate.

    Leaderboards against another reference than the first are left out: their rates cannot be laid beside it.
    """
    boards = [board for board in leaderboards if any(row.rate is not None for row in board.rows)]
    if not boards:
        return None
    reference = boards[0].rows[0].reference
    boards = [board for board in boards if board.rows[0].reference == reference]
    systems = [row.system for row in boards[0].ranked()]
    systems += sorted({row.system for board in boards[1:] for row in board.rows} - set(systems))
    shown = systems[:_OVERVIEW_SYSTEMS]
    left_out = len(systems) - len(shown)
    panel = DotPanel(
        title=f"Win rate against {reference}",
        series=tuple(DotSeries(label=board.title, dots=_dots(board, shown)) for board in boards),
        guide=0.5,
        guide_label=reference,
        note=f"The first {len(shown)} of {len(systems)} systems; the tables hold all." if left_out else "",
    )
    return Figure(name="win-rates", title=panel.title, panels=(panel,))


def _dots(board: Leaderboard, systems: Sequence[str]) -> tuple[Dot, ...]:
    rows = [row for system in systems if (row := board.row(system)) is not None]
    return tuple(
        Dot(label=row.system, value=row.rate, low=row.interval_low, high=row.interval_high)
        for row in rows
        if row.rate is not None
    )


def all_figures(content: ReportContent) -> list[Figure]:
    """The figures that the page of `content` shows, in its order."""
    overview = win_rate_figure(content.leaderboards)
    return [*([overview] if overview else []), *content.figures]


def save(figure: Figure, folder: Path) -> list[Path]:
    """Write the figure's name with `.svg`, `.png` and `.csv` into `folder`; the paths come back in this order.

    Raises:
        RunFolderError: if a file cannot be written.
    """
    paths = [folder / f"{figure.name}{suffix}" for suffix in (".svg", ".png", ".csv")]
    with _settings():
        drawing = _draw_together(figure)
        with atomic_file(paths[0]) as draft:
            FigureCanvasSVG(drawing).print_svg(draft, metadata=_NO_METADATA)
        with atomic_file(paths[1]) as draft, draft.open("wb") as file:
            drawing.set_dpi(200)
            FigureCanvasAgg(drawing).print_png(file, metadata={"Software": None})
    write_text(paths[2], figure_csv(figure))
    return paths


def panel_svg(panel: AnyPanel, styles: Styles) -> str:
    """The panel alone as an SVG document, as matplotlib writes it."""
    with _settings():
        drawing = Drawing(figsize=_panel_size(panel), layout="constrained", facecolor="none")
        _draw(drawing.add_subplot(), panel, styles)
        file = io.StringIO()
        FigureCanvasSVG(drawing).print_svg(file, metadata=_NO_METADATA)
    return file.getvalue()


def figure_csv(figure: Figure) -> str:
    """Every number that the figure draws, one a line; text is made inert for spreadsheets."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for panel in figure.panels:
        title = _cell(panel.title)
        if isinstance(panel, PointsPanel):
            for kind, series, label, *values in points_rows(panel):
                writer.writerow([title, kind, _cell(str(series)), _cell(str(label or "")) or None, *values])
            continue
        if isinstance(panel, DotPanel):
            for group in panel.series:
                for dot in group.dots:
                    label, judge = _cell(dot.label), _cell(group.label)
                    writer.writerow([title, "dot", judge, label, dot.value, None, dot.low, dot.high, None, None])
            continue
        for series in panel.series:
            bands = (series.low or [None] * len(series.x), series.high or [None] * len(series.x))
            for x, y, low, high in zip(series.x, series.y, *bands, strict=True):
                writer.writerow([title, "point", _cell(series.label), None, x, y, low, high, None, None])
        for mark in panel.marks:
            writer.writerow([title, "mark", None, _cell(mark.label), mark.x, None, None, None, None, None])
    return file.getvalue()


def styles_of(figures: Sequence[Figure]) -> dict[str, int]:
    """A style for each label: those that share a panel in the order in which they come, all others the first."""
    panels = [panel for figure in figures for panel in figure.panels]
    together = [group.label for panel in panels if len(panel.series) > 1 for group in panel.series]
    alone = [group.label for panel in panels if len(panel.series) == 1 for group in panel.series]
    numbers = {label: number % len(SERIES) for number, label in enumerate(dict.fromkeys(together))}
    return dict.fromkeys(alone, 0) | numbers


_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Matplotlib's own defaults and ours on top, whatever the user has set; put back at the end."""
    with mpl.rc_context(), warnings.catch_warnings():
        # A label in a script that the drawing font lacks is laid out by guess; browsers have the glyphs.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Names of wide letters can still leave no room; then the axes keep matplotlib's usual place.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.fonttype": "none",
                "figure.constrained_layout.w_pad": 0.09,
                "svg.hashsalt": "pasture",
                "text.parse_math": False,
                "axes.formatter.use_mathtext": False,
                "axes.formatter.useoffset": False,
                "font.size": 9.5,
                "axes.titlesize": 10.5,
                "axes.edgecolor": LIGHT["rule"],
                "axes.facecolor": "none",
                "axes.labelcolor": LIGHT["soft"],
                "axes.spines.right": False,
                "axes.spines.top": False,
                "axes.titlecolor": LIGHT["ink"],
                "axes.titlelocation": "left",
                "figure.facecolor": LIGHT["paper"],
                "grid.color": LIGHT["rule"],
                "grid.linewidth": 0.6,
                "text.color": LIGHT["ink"],
                "xtick.color": LIGHT["rule"],
                "xtick.labelcolor": LIGHT["soft"],
                "ytick.color": LIGHT["rule"],
                "ytick.labelcolor": LIGHT["soft"],
            }
        )
        yield


def _panel_size(panel: AnyPanel) -> tuple[float, float]:
    """Inches, wide enough that names beside the axes leave the axes their room."""
    if isinstance(panel, PointsPanel):
        return points_size(panel)
    width, height = _PANEL_INCHES
    names = _longest([group.label for group in panel.series]) if len(panel.series) > 1 else 0
    if isinstance(panel, Panel):
        return width + max(0, names - _ROOMY_CHARACTERS) * _CHARACTER_INCHES, height
    labels = {dot.label for group in panel.series for dot in group.dots}
    lines = len(labels) * (len(panel.series) + 0.6)
    return 2.0 + (names + _longest(labels)) * _CHARACTER_INCHES, 0.95 + _DOT_LINE_INCHES * lines


def _longest(labels: Iterable[str]) -> int:
    return max((len(on_label(label)) for label in labels), default=0)


def _draw_together(figure: Figure) -> Drawing:
    styles = styles_of([figure])
    columns = 2 if len(figure.panels) == 4 else min(_COLUMNS, len(figure.panels)) or 1
    lines = [figure.panels[start : start + columns] for start in range(0, len(figure.panels), columns)]
    sizes = [[_panel_size(panel) for panel in line] for line in lines]
    width = max((sum(size[0] for size in line) for line in sizes), default=_PANEL_INCHES[0])
    heights = [max(size[1] for size in line) for line in sizes]
    drawing = Drawing(figsize=(width, sum(heights) + 0.4), layout="constrained")
    drawing.suptitle(on_label(figure.title, 90), x=0.01, ha="left", fontsize=12, fontweight="bold")
    if not lines:
        return drawing
    grid = drawing.add_gridspec(len(lines), columns, height_ratios=heights)
    for row, line in enumerate(lines):
        for column, panel in enumerate(line):
            axes = drawing.add_subplot(grid[row, column])
            if panel.title != figure.title:
                axes.set_title(on_label(panel.title, 60), pad=20.0 if isinstance(panel, DotPanel) else 6.0)
            _draw(axes, panel, styles)
    return drawing


def _draw(axes: Axes, panel: AnyPanel, styles: Styles) -> None:
    if isinstance(panel, PointsPanel):
        draw_points(axes, panel, styles)
    elif isinstance(panel, DotPanel):
        _draw_dots(axes, panel, styles)
    else:
        _draw_lines(axes, panel, styles)


def _draw_lines(axes: Axes, panel: Panel, styles: Styles) -> None:
    for order, series in enumerate(panel.series):
        color = LIGHT[SERIES[styles.get(series.label, 0)]]
        y = _with_gaps(series.y)
        # Colors come round again after the sixth line; the pattern then differs by one more.
        dashes = DASHES[(order + order // len(SERIES)) % len(DASHES)]
        axes.plot(series.x, y, color=color, linestyle=dashes, linewidth=1.6, solid_capstyle="round")
        if len(series.x) == 1:
            axes.plot(series.x, y, color=color, marker="o", markersize=4)
        if series.low is not None and series.high is not None:
            low, high = _with_gaps(series.low), _with_gaps(series.high)
            axes.fill_between(series.x, low, high, color=color, alpha=0.14, linewidth=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    axes.set_xlabel(on_label(panel.x_label, 60))
    if panel.log_x:
        draw_log_ticks(axes, {x for series in panel.series for x in series.x})
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=_ROUND, integer=_all_whole(panel.series)))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_ROUND))
    if panel.percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.10g}%"))
    _draw_marks(axes, panel)
    if len(panel.series) > 1:
        _label_lines(axes, panel.series, styles)


def _draw_marks(axes: Axes, panel: Panel) -> None:
    low, high = axes.get_xlim()
    for mark in panel.marks:
        axes.axvline(mark.x, color=LIGHT["soft"], linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        left_half = mark.x <= (low + high) / 2
        axes.annotate(
            on_label(mark.label),
            (mark.x, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(4 if left_half else -4, 0),
            textcoords="offset points",
            ha="left" if left_half else "right",
            va="bottom",
            color=LIGHT["soft"],
        )


def _label_lines(axes: Axes, series: Sequence[Series], styles: Styles) -> None:
    """Write each line's name at its right end, moved up or down where two would cover each other."""
    ends = [
        (next((y for y in reversed(line.y) if y is not None), None), styles.get(line.label, 0), line.label)
        for line in series
    ]
    low, high = axes.get_ylim()
    placed = [((y - low) / (high - low), y, style, label) for y, style, label in ends if y is not None]
    heights = spread_out([height for height, *_ in placed], gap=0.085)
    for height, (_, _, style, label) in zip(heights, placed, strict=True):
        axes.annotate(
            on_label(label),
            (1.0, height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            color=LIGHT[SERIES[style]],
            annotation_clip=False,
        )


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Heights in [0, 1] moved apart until neighbours are at least `gap` from one another; their order stays.

    Where they do not all fit below 1 they reach below 0.
    """
    order = sorted(range(len(heights)), key=lambda number: (heights[number], number))
    moved = list(heights)
    for below, above in itertools.pairwise(order):
        moved[above] = max(moved[above], moved[below] + gap)
    ceiling = 1.0
    for number in reversed(order):
        moved[number] = min(moved[number], ceiling)
        ceiling = moved[number] - gap
    return moved


def _draw_dots(axes: Axes, panel: DotPanel, styles: Styles) -> None:
    labels = list(dict.fromkeys(dot.label for group in panel.series for dot in group.dots))
    band = len(panel.series) + 0.6
    for order, group in enumerate(panel.series):
        style = styles.get(group.label, order % len(SERIES))
        color = LIGHT[SERIES[style]]
        for dot in group.dots:
            y = labels.index(dot.label) * band + order
            if dot.low is not None and dot.high is not None:
                axes.plot([dot.low, dot.high], [y, y], color=color, linewidth=2, solid_capstyle="round")
            face = color if order == 0 else LIGHT["paper"]
            axes.plot([dot.value], [y], marker="o", markersize=6, color=color, markerfacecolor=face, zorder=3)
        if group.dots and len(panel.series) > 1:
            first = group.dots[0]
            _name_beside(axes, group.label, first.high or first.value, labels.index(first.label) * band + order, color)
    axes.set_yticks([number * band + (len(panel.series) - 1) / 2 for number in range(len(labels))])
    axes.set_yticklabels([on_label(label) for label in labels], color=LIGHT["ink"])
    axes.set_ylim(len(labels) * band - 0.6, -0.9)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=_ROUND))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.10g}%"))
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    if panel.guide is not None:
        axes.axvline(panel.guide, color=LIGHT["soft"], linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        axes.annotate(
            on_label(panel.guide_label),
            (panel.guide, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=LIGHT["soft"],
        )


def _name_beside(axes: Axes, name: str, x: float, y: float, color: str) -> None:
    axes.annotate(
        on_label(name),
        (x, y),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        color=color,
        annotation_clip=False,
        bbox={"facecolor": LIGHT["paper"], "edgecolor": "none", "pad": 1.5},
    )


def _with_gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _all_whole(series: Sequence[Series]) -> bool:
    return all(value.is_integer() for line in series for value in line.x)


def _cell(text: str) -> str:
    return for_csv(shortened(text, _CELL_CHARACTERS))
