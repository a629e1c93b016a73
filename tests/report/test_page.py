import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pasture.core import palette
from pasture.report import page
from pasture.report.content import Leaderboard, ReportContent, StepCost
from tests.report.hostile_numbers import ATTACKS, attacked_page
from tests.report.loop_numbers import content, win_rate

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What the page is made of, by Python's own parser."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


@pytest.fixture(scope="module")
def loop() -> Page:
    return Page(page.render(content()))


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    page.write_report(content(), tmp_path / "index.html")
    page.write_report(content(), str(tmp_path / "again.html"))
    for name in ("index.html", "again.html"):
        assert (tmp_path / name).read_bytes() == page.render(content()).encode()


def test_every_rate_stands_beside_its_interval_and_its_counts() -> None:
    row = win_rate("ppo", 0.5, "people", unjudged=5).model_copy(update={"interval_low": 0.432, "interval_high": 0.568})
    html = page.render(ReportContent(title="t", leaderboards=(Leaderboard(title="people", rows=(row,)),)))
    cells = [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?>(.*?)</td>", html, re.DOTALL)]
    # By hand: 800 judged, 32 ties, so 384 wins and 384 losses; the error is sqrt(0.25 / 800) = 0.01768.
    assert cells == ["50.0%", "1.8%", "43.2% to 56.8%", "", "384 / 32 / 384", "805", "800", "5", "60"]


def test_the_page_needs_nothing_from_outside(loop: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in loop.tags}
    for _, attributes in loop.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            assert name not in {"href", "src"} or (value or "").startswith("#")
    assert "url(" not in loop.style
    assert "@import" not in loop.style


def test_the_policy_forbids_all_but_the_one_style_sheet(loop: Page) -> None:
    policy = next(meta["content"] for meta in loop.all("meta") if "http-equiv" in meta)
    digest = base64.b64encode(hashlib.sha256(loop.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_identifiers_are_unique_and_every_link_has_its_target(loop: Page) -> None:
    identifiers = [value for _, attributes in loop.tags if (value := attributes.get("id")) is not None]
    assert len(set(identifiers)) == len(identifiers)
    pointed = {
        target
        for _, attributes in loop.tags
        for name in ("aria-labelledby", "href", "clip-path")
        for target in re.findall(r"[\w.-]+", (attributes.get(name) or "").replace("url(", ""))
    }
    assert pointed
    assert pointed <= set(identifiers)


def test_the_page_can_be_read_without_seeing_it(loop: Page) -> None:
    assert loop.all("html")[0]["lang"] == "en"
    tables = len(loop.all("table"))
    levels = [int(tag[1]) for tag, _ in loop.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(loop.all("caption")) + len([one for one in loop.all("table") if one.get("aria-label")]) == tables > 0
    assert all(heading["scope"] in {"col", "row"} for heading in loop.all("th"))
    assert all(svg.get("aria-hidden") == "true" or svg.get("aria-label") for svg in loop.all("svg"))


def test_a_charts_alternative_says_where_its_lines_begin_and_end(loop: Page) -> None:
    said = [svg["aria-label"] or "" for svg in loop.all("svg") if "aria-label" in svg]
    assert "Line chart of Validation win rate. ppo goes from 35.2% at PPO step 0 to 46.2% at 40; picked at 15." in said


def luminance(color: str) -> float:
    """Relative luminance by WCAG 2.2."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colors", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "wash"])
def test_every_text_color_has_enough_contrast(colors: dict[str, str], ground: str) -> None:
    for role, color in colors.items():
        if role in {"paper", "wash", "rule"}:
            continue
        light, dark = sorted((luminance(color), luminance(colors[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, role


def test_every_role_has_its_own_color_in_both_themes() -> None:
    assert palette.LIGHT.keys() == palette.DARK.keys()
    assert len(set(palette.LIGHT.values())) == len(palette.LIGHT)


def test_figures_take_their_colors_from_the_theme(loop: Page) -> None:
    drawn = {attributes.get(name) or "" for _, attributes in loop.tags for name in ("fill", "stroke")}
    assert not [color for color in drawn if color.lower() in palette.LIGHT.values()]
    assert "var(--series-1)" in drawn


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_text_in_every_field_adds_no_element_and_no_attribute(attack: str, loop: Page) -> None:
    html = attacked_page(attack)
    found = Page(html)
    plain_tags = {tag for tag, _ in loop.tags}
    # A longer text may lose a word to shortening or gain the note that says so, but no kind of element.
    assert {tag for tag, _ in found.tags} <= plain_tags | {"span"}
    assert {name for _, attributes in found.tags for name in attributes} <= {
        name for _, attributes in loop.tags for name in attributes
    }
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200f\u202a-\u202e\u2066-\u2069]", html)
    assert len(html) < 2_000_000


def test_text_that_looks_like_a_template_is_shown_as_it_is() -> None:
    shown = Page(page.render(ReportContent(title=ATTACKS["template"]))).text
    assert ATTACKS["template"] in shown


def test_an_answer_of_a_megabyte_says_how_much_is_shown() -> None:
    base = content().samples[0]
    long = base.answers[0].completion.model_copy(update={"text": "y" * 1_000_000})
    sample = base.model_copy(update={"answers": (base.answers[0].model_copy(update={"completion": long}),)})
    html = page.render(ReportContent(title="t", samples=(sample,)))
    assert "the first 3,000 of 1,000,000 characters" in html
    assert html.count("y" * 3_000) == 1
    assert "y" * 3_001 not in html


def test_an_unknown_price_is_not_added_up() -> None:
    costs = (StepCost(step="a", seconds=1.0, cost_usd=2.0), StepCost(step="b", seconds=2.0, cost_usd=None))
    text = Page(page.render(ReportContent(title="t", costs=costs))).text
    assert text.count("unknown") == 3  # the step's, the sum's, and the sentence that says why
    assert "3.0 s" in text


def test_parts_without_content_leave_no_heading() -> None:
    html = Page(page.render(ReportContent(title="Only a title")))
    assert [tag for tag, _ in html.tags if re.fullmatch("h[1-6]|table|svg|nav|section", tag)] == ["h1"]


def test_one_judge_alone_is_drawn_in_the_table_only() -> None:
    one = ReportContent(title="t", leaderboards=content().leaderboards[:1])
    assert "overview" not in {attributes.get("class") for attributes in Page(page.render(one)).all("figure")}


def test_a_date_is_never_broken_at_its_hyphens() -> None:
    board = Leaderboard(title="people", rows=(win_rate("ppo", 0.5, "people"),), note="pool #40df39f0, 2026-11-28 <b>")
    html = page.render(ReportContent(title="t", leaderboards=(board,)))
    assert 'pool #40df39f0, <span class="whole">2026-11-28</span> &lt;b&gt;' in html


def test_a_figure_of_one_panel_has_its_text_beside_it() -> None:
    kinds = [attributes.get("class") for attributes in Page(page.render(content())).all("figure")]
    # By hand: the overview, then one panel of the selection, those of PPO, one of losses.
    counts = [len(figure.panels) for figure in content().figures]
    assert [kind for kind in kinds if kind != "overview"] == [
        {1: "panels lone", 2: "panels paired", 4: "panels paired"}.get(count, "panels") for count in counts
    ]
