import csv
import io
import itertools
import math
from xml.etree import ElementTree as ET

from pasture.report import figures
from pasture.report.content import Figure, LinePoint, NamedPoint, PointSeries, PointsPanel
from pasture.report.published import METHODS

SVG = "{http://www.w3.org/2000/svg}"


def papers_table() -> PointsPanel:
    points = tuple(
        NamedPoint(
            label=row.name, x=row.simulated, y=row.people, x_low=row.simulated - 0.03, x_high=row.simulated + 0.03
        )
        for row in METHODS
        if row.people is not None
    )
    return PointsPanel(
        title="The paper",
        x_label="in simulation",
        y_label="among people",
        percent_x=True,
        percent_y=True,
        named=True,
        diagonal=True,
        series=(PointSeries(label="systems", points=points),),
    )


def way(label: str, line: bool = False) -> PointSeries:
    points = tuple(NamedPoint(label=f"step {x}", x=float(x), y=x / 10, y_low=x / 11, y_high=x / 9) for x in range(4))
    fitted = tuple(LinePoint(x=float(x), y=x / 10, low=0.0, high=1.0) for x in range(4)) if line else ()
    return PointSeries(label=label, points=points, joined=True, line=fitted)


def texts(svg: str) -> dict[str, ET.Element]:
    return {"".join(one.itertext()).strip(): one for one in ET.fromstring(svg).iter(f"{SVG}text")}  # noqa: S314  # ours


def test_every_named_point_has_its_name_in_the_drawing() -> None:
    panel = papers_table()
    assert {point.label for point in panel.series[0].points} <= set(texts(figures.panel_svg(panel, {})))


def test_names_of_the_papers_ten_systems_do_not_lie_on_one_another() -> None:
    found = texts(figures.panel_svg(papers_table(), {}))
    boxes = []
    for point in papers_table().series[0].points:
        wide = 4.6 * len(point.label)
        x, y = (float(found[point.label].get(axis, "nan")) for axis in "xy")  # of the middle of the name
        boxes.append((point.label, x - wide / 2, y, wide))
    for (a, ax, ay, aw), (b, bx, by, bw) in itertools.combinations(boxes, 2):
        apart = abs(ay - by) >= 8 or ax + aw <= bx or bx + bw <= ax
        assert apart, f"{a} and {b} cover each other"


def test_the_csv_holds_points_errors_and_fitted_lines() -> None:
    panel = PointsPanel(title="Way", x_label="KL", y_label="rate", series=(way("ppo", line=True),))
    rows = list(csv.DictReader(io.StringIO(figures.figure_csv(Figure(name="f", title="t", panels=(panel,))))))
    points = [row for row in rows if row["kind"] == "point"]
    assert [(row["label"], row["x"], row["y"]) for row in points][1] == ("step 1", "1.0", "0.1")
    assert math.isclose(float(points[3]["low"]), 3 / 11)
    assert [row["kind"] for row in rows].count("line") == 4
    named = Figure(name="f", title="t", panels=(papers_table(),))
    first = next(csv.DictReader(io.StringIO(figures.figure_csv(named))))
    assert first["label"] == "GPT-4"
    assert math.isclose(float(first["x_low"]), 0.76)
    assert math.isclose(float(first["x_high"]), 0.82)


def test_several_ways_share_a_key_that_names_each() -> None:
    panel = PointsPanel(title="Way", x_label="KL", y_label="rate", series=(way("ppo"), way("best of n")))
    assert {"ppo", "best of n"} <= set(texts(figures.panel_svg(panel, {"ppo": 0, "best of n": 1})))


def test_panels_of_one_range_have_the_same_axes() -> None:
    low, high = (
        PointsPanel(
            title="Way", x_label="KL", y_label="rate", y_range=(0.0, 1.0), percent_y=True,
            series=(PointSeries(label="ppo", points=(NamedPoint(label="a", x=1.0, y=y),)),),
        )
        for y in (0.1, 0.9)
    )  # fmt: skip
    marks = [{name for name in texts(figures.panel_svg(panel, {})) if name.endswith("%")} for panel in (low, high)]
    assert marks[0] == marks[1]


def test_samples_are_drawn_by_powers_with_a_tick_at_each() -> None:
    counts = (1.0, 2.0, 4.0, 64.0)
    points = tuple(NamedPoint(label=f"n {count:g}", x=count, y=0.5) for count in counts)
    panel = PointsPanel(
        title="t", x_label="n", y_label="rate", log_x=True, series=(PointSeries(label="people", points=points),)
    )
    ticks = texts(figures.panel_svg(panel, {}))
    places = [float(str(ticks[f"{count:g}"].get("x"))) for count in counts]
    # By hand: from 4 to 64 is four times as far as from 2 to 4, and from 1 to 2 as far as from 2 to 4.
    steps = [after - before for before, after in itertools.pairwise(places)]
    assert math.isclose(steps[0], steps[1], rel_tol=0.01)
    assert math.isclose(steps[2], 4 * steps[1], rel_tol=0.01)
