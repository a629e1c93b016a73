import csv
import io
import itertools
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasture.core.errors import RunFolderError
from pasture.core.palette import LIGHT
from pasture.report import figures
from pasture.report.content import Dot, DotPanel, DotSeries, Figure, Leaderboard, Mark, Panel, Series
from tests.report.loop_numbers import curves, leaderboards, win_rate

SVG = "{http://www.w3.org/2000/svg}"


def lines(title: str = "Reward", label: str = "ppo", **more: object) -> Panel:
    series = Series(label=label, x=(0.0, 1.0, 2.0), y=(1.0, None, 3.0))
    return Panel.model_validate({"title": title, "series": (series,), **more})


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314  # ours


def test_saved_figures_have_the_same_bytes_every_time(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in figures.save(curves()[0], tmp_path / "a")]
    second = [path.read_bytes() for path in figures.save(curves()[0], tmp_path / "b")]
    assert first == second


def test_the_users_own_matplotlib_settings_change_nothing_and_are_left_alone(tmp_path: Path) -> None:
    panel = lines()
    plain = figures.panel_svg(panel, {})
    with mpl.rc_context({"font.size": 40, "axes.linewidth": 9, "xtick.direction": "in", "svg.hashsalt": None}):
        assert figures.panel_svg(panel, {}) == plain
        assert mpl.rcParams["axes.linewidth"] == 9


def test_a_saved_figure_is_three_files_of_its_name(tmp_path: Path) -> None:
    paths = figures.save(curves()[0], tmp_path)
    assert [path.name for path in paths] == ["ppo-selection.svg", "ppo-selection.png", "ppo-selection.csv"]
    assert ET.parse(paths[0]).getroot().tag == f"{SVG}svg"  # noqa: S314  # ours
    assert paths[1].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "<dc:date>" not in paths[0].read_text()


def test_a_figure_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot write"):
        figures.save(curves()[0], blocked / "figures")


def test_the_csv_holds_every_number_that_is_drawn() -> None:
    panel = lines(marks=(Mark(x=1.0, label="picked"),))
    dots = DotPanel(
        title="Rates", series=(DotSeries(label="people", dots=(Dot(label="sft", value=0.4, low=0.3, high=0.5),)),)
    )
    rows = list(csv.DictReader(io.StringIO(figures.figure_csv(Figure(name="f", title="t", panels=(panel, dots))))))
    points = [(row["series"], row["x"], row["y"]) for row in rows if row["kind"] == "point"]
    assert points == [("ppo", "0.0", "1.0"), ("ppo", "1.0", ""), ("ppo", "2.0", "3.0")]
    assert [(row["label"], row["x"]) for row in rows if row["kind"] == "mark"] == [("picked", "1.0")]
    dot = rows[-1]
    assert [dot[key] for key in ("panel", "series", "label", "x", "low", "high")] == [
        "Rates", "people", "sft", "0.4", "0.3", "0.5"
    ]  # fmt: skip


def test_bands_reach_the_csv_to_the_last_digit() -> None:
    figure = curves()[0]
    series = figure.panels[0].series[0]
    assert isinstance(series, Series)
    rows = [row for row in csv.DictReader(io.StringIO(figures.figure_csv(figure))) if row["kind"] == "point"]
    assert series.low is not None
    assert series.high is not None
    assert [float(row["y"]) for row in rows] == list(series.y)
    assert [float(row["low"]) for row in rows] == list(series.low)
    assert [float(row["high"]) for row in rows] == list(series.high)


HOSTILE = ["<script>alert(1)</script>", "$\\frac{1$", "=cmd|' /C calc'!A0", "\x1b[31m\u202e", "x" * 1_000_000]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
def test_hostile_labels_are_drawn_as_text(text: str, tmp_path: Path) -> None:
    two = (Series(label=text, x=(0.0, 1.0), y=(0.1, 0.2)), Series(label="b", x=(0.0, 1.0), y=(0.1, 0.2)))
    panel = Panel(title=text, x_label=text, series=two, marks=(Mark(x=0.5, label=text),))
    dots = DotPanel(
        title=text, series=(DotSeries(label=text, dots=(Dot(label=text, value=0.5),)),) * 2, guide=0.5, guide_label=text
    )
    figure = Figure(name="hostile", title=text, panels=(panel, dots))
    svg, _, table = (path.read_bytes() for path in figures.save(figure, tmp_path))
    assert len(svg) < 200_000
    assert b"<script" not in svg
    assert b"\x1b" not in svg + table
    assert "\u202e".encode() not in svg + table
    assert not any(
        cell.startswith(("=", "+", "-", "@")) for row in csv.reader(io.StringIO(table.decode())) for cell in row
    )


def test_labels_in_any_script_raise_no_warning() -> None:
    assert "報酬" in texts(figures.panel_svg(lines(x_label="報酬"), {}))


def test_lines_are_named_where_they_end_only_if_there_are_several() -> None:
    several = Panel(title="p", series=tuple(Series(label=name, x=(0.0, 1.0), y=(0.0, 1.0)) for name in ("ppo", "dpo")))
    assert {"ppo", "dpo"} <= set(texts(figures.panel_svg(several, {})))
    assert "ppo" not in texts(figures.panel_svg(lines(), {}))


def test_no_two_of_many_lines_look_alike() -> None:
    series = tuple(Series(label=f"m{number}", x=(0.0, 1.0), y=(0.0, float(number))) for number in range(20))
    panel = Panel(title="p", series=series)
    svg = figures.panel_svg(panel, figures.styles_of([Figure(name="f", title="t", panels=(panel,))]))
    colors = "|".join(color for role, color in LIGHT.items() if role.startswith("series-"))
    looks = re.findall(rf'style="fill: none; ((?:stroke-dasharray: [^;]+; )?[^"]*stroke: (?:{colors})[^"]*)"', svg)
    assert len(looks) == len(set(looks)) == 20


def test_a_panel_without_any_finite_value_is_drawn_empty() -> None:
    nothing = Panel(title="p", series=(Series(label="a", x=(0.0, 1.0), y=(None, None)), Series(label="b", x=(), y=())))
    assert "<svg" in figures.panel_svg(nothing, {})
    assert "<svg" in figures.panel_svg(Panel(title="p", series=()), {})


@given(st.lists(st.floats(-0.2, 1.2), max_size=9))
def test_names_at_line_ends_never_cover_one_another(heights: list[float]) -> None:
    gap = 0.085
    moved = figures.spread_out(heights, gap)
    ordered = sorted(moved)
    assert all(above - below >= gap - 1e-9 for below, above in itertools.pairwise(ordered))
    assert all(height <= 1.0 + 1e-9 for height in moved)
    assert [moved[i] for i in sorted(range(len(heights)), key=lambda i: (heights[i], i))] == ordered


def test_names_that_are_far_apart_stay_at_their_lines() -> None:
    assert figures.spread_out([0.5, 0.1, 0.9], 0.085) == [0.5, 0.1, 0.9]


def test_one_label_has_one_style_and_color_tells_apart_only_what_stands_together() -> None:
    both = Panel(title="p", series=tuple(Series(label=name, x=(0.0,), y=(0.0,)) for name in ("dpo", "ppo")))
    drawn = Figure(name="f", title="t", panels=(lines(label="ppo"), both, lines(label="kl"), lines(label="dpo")))
    assert figures.styles_of([drawn]) == {"dpo": 0, "ppo": 1, "kl": 0}


def test_the_overview_draws_every_judge_in_the_order_of_the_first() -> None:
    figure = figures.win_rate_figure(leaderboards())
    assert figure is not None
    panel = figure.panels[0]
    assert isinstance(panel, DotPanel)
    assert [group.label for group in panel.series] == ["people (hidden)", "simulated annotators"]
    for group in panel.series:
        assert [dot.label for dot in group.dots] == ["ppo", "best-of-16", "sft", "base"]
    assert panel.guide == 0.5


def test_the_overview_leaves_out_what_was_compared_with_another_reference() -> None:
    other = win_rate("ppo", 0.9, "pool").model_copy(update={"reference": "another"})
    figure = figures.win_rate_figure((leaderboards()[0], Leaderboard(title="raters", rows=(other,))))
    assert figure is not None
    assert [group.label for group in figure.panels[0].series] == ["people (hidden)"]


def test_the_overview_of_many_systems_says_how_many_it_leaves_out() -> None:
    rows = tuple(win_rate(f"system {number:03}", 0.4, "people") for number in range(200))
    figure = figures.win_rate_figure((Leaderboard(title="people", rows=rows),))
    assert figure is not None
    assert figure.panels[0].note == "The first 30 of 200 systems; the tables hold all."


def test_without_a_rate_there_is_no_overview() -> None:
    unjudged = win_rate("sft", 0.4, "people").model_copy(update={"rate": None})
    assert figures.win_rate_figure((Leaderboard(title="people", rows=(unjudged,)),)) is None
    assert figures.win_rate_figure(()) is None
