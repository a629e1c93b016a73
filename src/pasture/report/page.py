"""The report as one HTML file that needs nothing else: no script, no font, no request, nothing hidden."""

import base64
import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pasture.core.files import write_text
from pasture.core.hostile import for_terminal, on_one_line, shortened
from pasture.core.palette import DARK, LIGHT
from pasture.report import figures, inline, numbers, summary, tables
from pasture.report.content import AnyPanel, DotPanel, Figure, Panel, PointsPanel, ReportContent
from pasture.report.glossary import words_of
from pasture.report.study_content import StudyContent

NAME_CHARACTERS = 60
HEADING_CHARACTERS = 120
ANSWER_CHARACTERS = 3_000
LINE_CHARACTERS = 2_000
RECIPE_CHARACTERS = 60_000
_TABLE_LINES = 50
_DATE = re.compile(r"(\b\d{4}-\d{2}-\d{2}\b)", re.ASCII)
_TEMPLATES = Path(__file__).parent / "templates"


def write_report(content: ReportContent, path: str | Path) -> None:
    """Write the page to the file `path`, whole or not at all. Equal content gives equal bytes.

    Raises:
        RunFolderError: if the file cannot be written.
    """
    write_text(Path(path), render(content))


def render(content: ReportContent) -> str:
    """The page of `content` as HTML."""
    style = style_sheet()
    return with_words(
        "page.html",
        content=content,
        systems={row.system for board in content.leaderboards for row in board.rows},
        style=Markup(style),  # noqa: S704  # our own file, with colors from the palette
        policy=content_policy(style),
        summary=summary.sentences(content.leaderboards, content.baseline),
        overview=_overview(content),
        figures=_drawn(content),
        scale=tables.Scale(content.leaderboards),
        references={row.reference for board in content.leaderboards for row in board.rows},
        total_seconds=sum(step.seconds for step in content.costs),
        total_usd=known_sum([step.cost_usd for step in content.costs]),
        slowest=max((step.seconds for step in content.costs), default=0.0),
    )


def with_words(template: str, *, content: ReportContent | StudyContent, systems: Collection[str], **parts: Any) -> str:
    """The page of the template, which ends with those words that it uses; `systems` are names that may be explained."""
    page = environment().get_template(template)
    html = page.render(content=content, words={}, **parts)
    own = {word.name: word.value for word in content.words}
    words = words_of(html, own, {*systems, *parts["references"]}, meadow=content.testbed == summary.MEADOW)
    return page.render(content=content, words=words, **parts) if words else html


def content_policy(style: str) -> str:
    """What the browser may do: apply this style sheet, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def style_sheet() -> str:
    """The page's CSS with the colors of both themes."""
    light, dark = (" ".join(f"--{role}: {color};" for role, color in colors.items()) for colors in (LIGHT, DARK))
    themes = f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    return themes + (_TEMPLATES / "page.css").read_text(encoding="utf-8")


def environment() -> Environment:
    """The templates, with the filters and functions that they use."""
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_spelled_out,
    )
    of_numbers = ("percent", "points", "number", "count", "usd", "seconds", "p_value")
    templates.filters.update({name: getattr(numbers, name) for name in of_numbers})
    templates.filters.update(name=_name, heading=_heading, line=_line, cut=_cut)
    templates.globals.update(
        cell=tables.cell, share_bar=tables.share_bar, across=tables.across, hint=_hint, dash=numbers.DASH
    )
    templates.globals.update(answer_characters=ANSWER_CHARACTERS, recipe_characters=RECIPE_CHARACTERS)
    return templates


def _spelled_out(value: Any) -> Any:
    """What every expression of the templates passes through: no character acts, whatever the field."""
    return for_terminal(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _name(text: str) -> str:
    return on_one_line(shortened(text, NAME_CHARACTERS))


def _heading(text: str) -> str:
    return on_one_line(shortened(text, HEADING_CHARACTERS))


def _line(text: str) -> Markup:
    """One statement; a date in it stays on one line, as a browser would break it at its hyphens."""
    parts = _DATE.split(for_terminal(shortened(text, LINE_CHARACTERS)))
    whole = Markup('<span class="whole">{}</span>')
    return Markup("").join(whole.format(part) if number % 2 else part for number, part in enumerate(parts))


def _hint(words: Mapping[str, str], word: object) -> Markup:
    """What a word means as the attribute that a mouse resting on it shows; nothing for a word that is not explained."""
    meaning = words.get(word) if isinstance(word, str) else None
    return Markup(' title="{}"').format(on_one_line(shortened(meaning, LINE_CHARACTERS))) if meaning else Markup("")


def _cut(text: str, limit: int) -> Markup:
    """The beginning of a long text, and how much of it is not shown."""
    if len(text) <= limit:
        return Markup("{}").format(for_terminal(text))
    return Markup('{}<span class="cut">… the first {} of {} characters</span>').format(
        for_terminal(text[:limit]), f"{limit:,}", f"{len(text):,}"
    )


def known_sum(costs: list[float | None]) -> float | None:
    """The sum, None where a cost is unknown."""
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _overview(content: ReportContent) -> Mapping[str, object] | None:
    figure = figures.win_rate_figure(content.leaderboards)
    # One judge's rates are drawn in their table already.
    if figure is None or len(figure.panels[0].series) < 2:
        return None
    return drawn_figure("overview", figure, figures.styles_of([figure]))


def _drawn(content: ReportContent) -> list[Mapping[str, object]]:
    styles = figures.styles_of(content.figures)
    return [drawn_figure(f"figure-{number}", figure, styles) for number, figure in enumerate(content.figures, start=1)]


def drawn_figure(name: str, figure: Figure, styles: figures.Styles) -> Mapping[str, object]:
    """What the template of a figure needs; `name` is its own on the page."""
    panels = [
        {
            "panel": panel,
            "svg": inline.inline_svg(figures.panel_svg(panel, styles), f"{name}-{number}", _alternative(panel)),
            "table": _numbers_of(panel),
        }
        for number, panel in enumerate(figure.panels, start=1)
    ]
    return {"figure": figure, "panels": panels}


def _alternative(panel: Any) -> str:
    """What the drawing says, in words."""
    names = ", ".join(shortened(group.label, NAME_CHARACTERS) for group in panel.series[:12])
    if isinstance(panel, PointsPanel):
        places = [f"{point.label} at {point.x:.3g}, {point.y:.3g}" for one in panel.series for point in one.points]
        return f"Points: {panel.y_label} over {panel.x_label}. {'; '.join(places[:40])}."
    if not isinstance(panel, Panel):
        return f"Dots with intervals. {panel.title}, by {names}. The tables below hold the numbers."
    ends = []
    for series in panel.series[:12]:
        known = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
        if known:
            (x1, y1), (x2, y2) = known[0], known[-1]
            first, last = (numbers.percent(y) if panel.percent else f"{y:.4g}" for y in (y1, y2))
            label = shortened(series.label, NAME_CHARACTERS)
            ends.append(f"{label} goes from {first} at {panel.x_label} {x1:g} to {last} at {x2:g}")
    marks = [f"{mark.label} at {mark.x:g}" for mark in panel.marks]
    return f"Line chart of {panel.title}. {'; '.join([*ends, *marks])}."


def _numbers_of(panel: AnyPanel) -> Mapping[str, object] | None:
    """The panel's lines as a table, thinned to a length that can be read; the saved CSV holds all.

    None where the tables of the page hold the numbers already.
    """
    if isinstance(panel, DotPanel) or (isinstance(panel, PointsPanel) and panel.named):
        return None
    if isinstance(panel, PointsPanel):
        values: list[dict[float, float | None]] = [{one.x: one.y for one in way.points} for way in panel.series]
        percent = panel.percent_y
    else:
        values = [dict(zip(line.x, line.y, strict=True)) for line in panel.series]
        percent = panel.percent
    xs = sorted({x for line in values for x in line})
    step = -(-len(xs) // _TABLE_LINES) or 1
    kept = sorted({*xs[::step], *xs[-1:]})
    shown = numbers.percent if percent else _significant
    rows = [(_significant(x), [shown(line.get(x)) for line in values]) for x in kept]
    return {"rows": rows, "thinned": len(kept) < len(xs)}


def _significant(value: float | None) -> str:
    return numbers.DASH if value is None else f"{value:.4g}".replace("-", numbers.MINUS)
