"""The page of a study: each number on it is one that the statistics found, each part has the statistics' fields."""

import csv
import functools
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pasture.report import study_tables
from pasture.report.content import PointsPanel
from pasture.report.numbers import MINUS
from pasture.report.study import render_study, write_study
from pasture.report.study_content import StudyContent
from pasture.report.study_figures import study_figures, way_figures, world_title
from pasture.report.study_summary import study_sentences, summary_text
from tests.report.chromium import Browser
from tests.report.hostile_numbers import ATTACKS
from tests.report.study_numbers import study as made_up
from tests.report.test_page_in_browser import misdeeds

study = functools.cache(made_up)


@functools.cache
def page() -> str:
    return render_study(study())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_study(study(), folder)
    return folder


def changed(**parts: Any) -> StudyContent:
    return StudyContent.model_validate({**study().model_dump(), **parts})


def cells(name: str) -> list[list[str]]:
    """The rows of the table of this title on the page, as a reader sees them."""
    table = re.search(rf"<strong>{name}\.</strong>.*?</table>", page(), re.DOTALL)
    assert table is not None
    rows = re.findall(r"<tr>(.*?)</tr>", table[0], re.DOTALL)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in row] for row in found]


def test_the_content_survives_json() -> None:
    assert StudyContent.model_validate_json(study().model_dump_json()) == study()


def test_the_page_has_every_system_with_its_rates_in_both_worlds() -> None:
    ranking = study().ranking
    assert ranking is not None
    rows = {row[0]: row for row in cells("Methods in both worlds")}
    assert len(ranking.points) == 13
    for point in ranking.points:
        assert point.simulated.value is not None
        assert point.people.value is not None
        assert rows[point.system][1] == f"{100 * point.simulated.value:.1f}%"
        assert rows[point.system][3] == f"{100 * point.people.value:.1f}%"


def test_systems_that_are_not_made_here_are_told_apart() -> None:
    ranking = study().ranking
    assert ranking is not None
    least = ranking.points[-1].system
    learners = ranking.model_copy(
        update={"points": ranking.points[:-1], "spearman": ranking.spearman.model_copy(update={"value": 0.123})}
    )
    with_them = changed(learners=learners.model_dump())
    assert with_them.baselines() == {least}
    assert study().baselines() == frozenset()
    figure = next(one for one in study_figures(with_them) if one.name == "ranking")
    panel = figure.panels[0]
    assert isinstance(panel, PointsPanel)
    series = {one.label: [point.label for point in one.points] for one in panel.series}
    assert series["not made here"] == [least]
    assert len(series["made here"]) == len(ranking.points) - 1
    told = [line for line in study_sentences(with_them) if "made here alone" in line]
    assert len(told) == 1
    assert "Of the 12 systems made here alone the correlation is 0.12" in told[0]
    assert "of the 12 others: Spearman 0.12" in render_study(with_them)


def test_titles_that_begin_alike_are_told_apart_to_their_ends() -> None:
    first = study().styles[0]
    title = "simulated annotators with a quarter of flips, judged by the pool"
    titles = [title, f"{title}, on the validation split"]
    both = changed(styles=[first.model_copy(update={"title": one}).model_dump() for one in titles])
    text = html.unescape(render_study(both))
    assert all(f"<strong>Length and style, {one}.</strong>" in text for one in titles)


def test_the_paper_stands_beside_the_study() -> None:
    rows = {row[0]: row for row in cells("The paper&#39;s methods")}
    assert rows["PPO"][1:4] == ["46.8%", "1.8%", "55.1%"]  # Table 2
    assert rows["Quark"][3] == "–"  # noqa: RUF001  # people never judged it
    for words in ("Spearman 0.98 and R² 0.87", "Spearman 0.90, R² 0.97", "$300 per 1,000 labels", "258 characters"):
        assert words in html.unescape(page())


def test_curves_are_said_to_turn_down_where_the_test_says_so() -> None:
    verdicts = {(row[0], row[1]): row[2] for row in cells("Which curves turn down")[1:]}
    assert verdicts["people", "ppo"] == "yes"
    assert verdicts["one noiseless judge, judged by that judge", "ppo"] == "not shown"
    found = {(world_title(curve.feedback, curve.judge), curve.family): curve.turns_down for curve in study().curves}
    assert verdicts == {names: "yes" if turns else "not shown" for names, turns in found.items()}


def test_what_labels_do_stands_in_one_row_for_each_kind_of_labels() -> None:
    table = study_tables.label_table(study())
    assert table is not None
    titles = [column.title for column in table.columns]
    people, pool = (dict(zip(titles, row, strict=True)) for row in table.rows)
    assert (people["Labels like people's"], people["Spearman with people"]) == (None, None)
    assert pool["Labels like people's"] == 0.58
    assert pool["Spearman with people"] == "0.93 (0.82 to 0.98)"
    # The fall of PPO among people, as the record of that curve has it.
    [curve] = [one for one in study().curves if (one.feedback, one.family) == ("people", "ppo")]
    assert str(people["Fall of ppo"]).startswith(f"{100 * curve.downturn.difference:.1f} (")


def test_labels_of_which_nothing_was_measured_have_no_row_and_a_table_without_falls_does_not_speak_of_them() -> None:
    bare = [{**row, "falls": [], "spearman": None} for row in study().model_dump()["labels"]]
    table = study_tables.label_table(changed(labels=bare))
    assert table is not None
    assert [row[0] for row in table.rows] == ["noisy pool, judged by pool"]
    assert "Falls" not in table.caption
    assert "Spearman with people" not in [column.title for column in table.columns]
    assert study_tables.label_table(changed(labels=bare[:1])) is None


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.63, 0.4, 0.9, "63.0% (40.0% to 90.0%)"),
        (1.1, 0.7, 1.6, "more than all of it (70.0% to 160.0%)"),
        (1.472, 0.687, 8.968, "68.7% or more; how much cannot be told"),
        (0.5, -0.4, 2.0, "cannot be told"),
    ],
)
def test_a_share_that_is_no_share_is_said_in_words(value: float, low: float, high: float, said: str) -> None:
    share = {"value": value, "standard_error": 0.1, "interval": {"low": low, "high": high}}
    first = study().styles[0]
    styles = [{**first.styles[-1].model_dump(), "explained_by_length": share}]
    [world] = changed(styles=[{**first.model_dump(), "styles": styles}]).styles
    assert study_tables.style_table(world).rows[0][-1] == said


def test_lines_that_lie_together_are_one_line() -> None:
    (figure,) = (figure for figure in study_figures(study()) if figure.name == "noise")
    labels = {panel.title: [line.label for line in panel.series] for panel in figure.panels}
    # One label agrees with people as often whoever gives it: in expectation the number of annotators changes nothing.
    assert labels["Agreement with people"] == ["any number of annotators"]
    assert labels["Bias"] == ["1 annotator", "4 annotators", "13 annotators"]


PAIRS = [
    {"system": "ppo", "baseline": "dpo", "difference": 0.021, "interval_low": -0.012, "interval_high": 0.054}
    | {"p_value": 0.2},
    {"system": "ppo", "baseline": "sft", "difference": 0.15, "interval_low": 0.11, "interval_high": 0.19}
    | {"p_value": 0.00001},
]


def test_systems_are_set_against_one_another_by_each_judge() -> None:
    worlds = [
        {"feedback": "people", "judge": "people", "pairs": PAIRS},
        {"feedback": "noisy pool", "judge": "pool", "pairs": PAIRS * 6},
    ]
    told = changed(differences=worlds)
    first, second = study_tables.difference_tables(told)
    assert first.title == "Which system is better, trained on people, judged by people"
    assert first.rows == (
        ("ppo over dpo", "2.1", f"{MINUS}1.2 to 5.4", "0.200"),
        ("ppo over sft", "15.0", "11.0 to 19.0", "< 0.001"),
    )
    assert "The best with each other" in second.caption
    assert [len(table.rows) for table in study_tables.all_pairs_tables(told)] == [12]
    assert "All 12 pairs, trained on noisy pool, judged by pool" in render_study(told)


def test_the_terminal_shows_who_leads_by_people_and_whether_that_is_chance() -> None:
    ranking = study().ranking
    assert ranking is not None
    lines = summary_text(changed(differences=[{"feedback": "people", "judge": "people", "pairs": PAIRS}])).splitlines()
    assert lines[0] == "Leaderboard by people: percent won against demonstrations, 95% interval"
    assert [line.strip().split("  ")[0] for line in lines[2:15]] == [point.system for point in ranking.points]
    assert (
        "Trained on people and judged by people, ppo is the best that was made here, 2.1 points (95% interval "
        f"{MINUS}1.2 to 5.4) ahead of dpo: it may be chance."
    ) in lines


def test_no_two_headings_of_the_page_are_alike() -> None:
    headings = re.findall(r"<(?:h[234]|summary)[^>]*>(.*?)</(?:h[234]|summary)>", page(), re.DOTALL)
    titles = [text for text in headings if text != "The numbers" and 'class="of"' not in text]
    repeated = {text for text in titles if titles.count(text) > 1}
    assert "How many instructions it takes" in titles
    assert "How many instructions it takes" not in repeated


def test_the_opening_says_what_the_numbers_say() -> None:
    ranking = study().ranking
    assert ranking is not None
    lines = study_sentences(study())
    assert f"{ranking.spearman.value:.2f}" in lines[0]
    assert any("Trained on one noiseless judge and judged by that judge, no curve is shown" in line for line in lines)
    swapped = sum(pair.swapped for pair in ranking.pairs)
    assert any(line.startswith(f"{swapped} of 78 pairs swap") for line in lines)


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (0.97, 0.91, 1.0, "The whole interval lies at 0.9 or above."),
        (0.95, 0.8, 1.0, "The figure reaches 0.9; the interval says that less cannot be ruled out."),
        (0.85, 0.7, 0.95, "The figure stays below 0.9; the interval says that 0.9 cannot be ruled out."),
        (0.5, 0.2, 0.7, "The whole interval lies below 0.9"),
    ],
)
def test_the_opening_claims_no_more_than_the_interval_allows(value: float, low: float, high: float, words: str) -> None:
    ranking = study().model_dump()["ranking"]
    ranking["spearman"] = {"value": value, "interval": {"low": low, "high": high}}
    assert words in study_sentences(changed(ranking=ranking))[1]


def test_an_interval_that_begins_at_its_figure_is_explained_once() -> None:
    def told(low: float) -> str:
        ranking = study().model_dump()["ranking"]
        ranking["spearman"] = {"value": 0.8, "interval": {"low": low, "high": 1.0}}
        return " ".join(study_sentences(changed(ranking=ranking, learners=ranking)))

    assert told(0.8).count("with so few systems hardly any resample of the instructions ranked them less alike") == 1
    assert "no mistake" not in told(0.77)


def test_a_contradiction_is_named() -> None:
    ranking = study().model_dump()["ranking"]
    pair = {**ranking["pairs"][0], "swapped": True, "simulated_significant": True, "people_significant": True}
    text = " ".join(study_sentences(changed(ranking={**ranking, "pairs": [pair]})))
    assert f"both worlds are sure: {pair['first']} and {pair['second']}" in text
    table = study_tables.swap_table(changed(ranking={**ranking, "pairs": [pair]}))
    assert table is not None
    assert table.rows[0][-1] == "the worlds contradict each other"


def test_every_drawn_number_is_in_the_files(written: Path) -> None:
    rows = list(csv.DictReader((written / "figures" / "ranking.csv").read_text(encoding="utf-8").splitlines()))
    ranking = study().ranking
    assert ranking is not None
    drawn = {row["label"]: row for row in rows if row["panel"] == "This study" and row["kind"] == "point"}
    for point in ranking.points:
        assert float(drawn[point.system]["x"]) == point.simulated.value
        assert float(drawn[point.system]["y"]) == point.people.value
        assert float(drawn[point.system]["low"]) == point.people.interval.low
        assert float(drawn[point.system]["x_high"]) == point.simulated.interval.high
    for figure in study_figures(study()):
        for suffix in ("svg", "png", "csv"):
            assert (written / "figures" / f"{figure.name}.{suffix}").stat().st_size > 0
    assert json.loads((written / "study.json").read_text())["title"] == study().title


def test_over_optimization_stands_people_left_and_simulation_right_on_one_axis() -> None:
    (figure,) = (figure for figure in study_figures(study()) if figure.name == "overoptimization-proxy")
    assert [panel.title for panel in figure.panels] == [
        "people", "noisy pool, judged by pool", "one noiseless judge, judged by that judge",
    ]  # fmt: skip
    assert len({getattr(panel, "y_range", None) for panel in figure.panels}) == 1


def test_equal_content_gives_equal_bytes(written: Path) -> None:
    assert (written / "index.html").read_text(encoding="utf-8") == render_study(study())


def test_a_study_of_one_question_shows_that_one() -> None:
    only = StudyContent(title="Ranking", ranking=study().ranking)
    text = render_study(only)
    assert "Does it rank methods as people do?" in text
    for absent in ("Does it show over-optimization?", "Is it only length?", "What it costs", "How it was made"):
        assert absent not in text
    assert study_figures(StudyContent(title="Nothing")) == []


def test_a_field_that_the_statistics_do_not_know_is_refused() -> None:
    with pytest.raises(ValidationError, match="invented"):
        changed(ranking={**study().model_dump()["ranking"], "invented": 1})


def test_the_page_asks_for_nothing_and_fits_every_window(browser: Browser, written: Path) -> None:
    path = written / "index.html"
    for width in (320, 768, 1280):
        browser.show(path, width)
        assert misdeeds(browser, path) == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.show(path, 320)
    sizes = browser.evaluate(
        "[...document.querySelectorAll('figure svg text')].map("
        "text => [text.getScreenCTM(), parseFloat(getComputedStyle(text).fontSize)]).map("
        "([scale, size]) => size * Math.hypot(scale.a, scale.b))"
    )
    assert min(sizes) >= 8.0
    assert browser.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("attack", ["script", "breakout"])
def test_hostile_names_of_systems_stay_text(browser: Browser, attack: str, tmp_path: Path) -> None:
    def walk(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: walk(part, name) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [walk(part, key) for part in value]
        hostile = key in ("title", "system", "first", "second", "family", "feedback", "judge", "labels", "recipe")
        return ATTACKS[attack] + value if hostile and isinstance(value, str) else value

    kept = ("title", "ranking", "curves", "styles", "annotators", "recipe")
    parts = {name: walk(part, name) for name, part in study().model_dump().items() if name in kept}
    path = tmp_path / "index.html"
    path.write_text(render_study(StudyContent.model_validate(parts)), encoding="utf-8")
    browser.show(path, 320)
    assert misdeeds(browser, path) == []
    assert browser.evaluate("document.scripts.length + document.images.length") == 0
    assert browser.evaluate("document.documentElement.scrollWidth") <= 320


def test_methods_whose_names_differ_in_what_a_file_name_loses_have_a_figure_each():
    first, *_ = study().curves
    figures = way_figures([first.model_copy(update={"family": name}) for name in ("my_rl", "my-rl")])
    assert [figure.name for figure in figures] == ["overoptimization-my-rl", "overoptimization-my-rl-2"]
