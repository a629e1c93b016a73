"""The page in a real browser; skipped, with the reason, where none is installed."""

from pathlib import Path
from typing import Any

import pytest

from pasture.report.page import write_report
from tests.report.chromium import Browser
from tests.report.hostile_numbers import ATTACKS, attacked_page
from tests.report.loop_numbers import content

MISDEEDS = (
    "Page.javascriptDialogOpening",
    "Log.entryAdded",
    "Runtime.consoleAPICalled",
    "Runtime.exceptionThrown",
    "Page.frameRequestedNavigation",
    "Page.frameAttached",
)


def misdeeds(browser: Browser, path: Path) -> list[Any]:
    """Dialogs, requests other than for the file itself, and messages to the console."""
    browser.evaluate("new Promise(done => setTimeout(done, 50))")
    requests = [event["params"]["request"]["url"] for event in browser.events if "request" in event["params"]]
    return [
        *(url for url in requests if url != path.as_uri()),
        *(event for event in browser.events if event["method"] in MISDEEDS),
    ]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "index.html"
    write_report(content(), path)
    return path


def test_the_browser_would_notice_a_request_and_a_broken_policy(browser: Browser, tmp_path: Path) -> None:
    # The control for the tests below: the same eyes on a page that misbehaves.
    path = tmp_path / "bad.html"
    path.write_text("<img src='http://192.0.2.1/a.png'>")
    browser.show(path)
    assert "http://192.0.2.1/a.png" in misdeeds(browser, path)
    path.write_text(
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\"><script>alert(1)</script>"
    )
    browser.show(path)
    assert any("Content Security Policy" in str(found) for found in misdeeds(browser, path))


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser: Browser, loop: Path) -> None:
    browser.show(loop)
    assert misdeeds(browser, loop) == []


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name not in {"formula", "template"}])
def test_hostile_text_opens_no_dialog_and_asks_for_nothing(browser: Browser, attack: str, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text(attacked_page(attack), encoding="utf-8")
    browser.show(path, 320)
    assert misdeeds(browser, path) == []
    assert browser.evaluate("document.scripts.length + document.images.length + document.links.length") == 7
    assert browser.evaluate("document.documentElement.scrollWidth") <= 320


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_the_page_is_never_wider_than_the_window(browser: Browser, loop: Path, width: int) -> None:
    browser.show(loop, width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_figures_follow_the_dark_theme(browser: Browser, loop: Path) -> None:
    line = "getComputedStyle([...document.querySelectorAll('[stroke=\"var(--series-1)\"]')][0]).stroke"
    browser.show(loop)
    assert browser.evaluate(line) == "rgb(11, 107, 76)"  # #0b6b4c
    browser.show(loop, theme="dark")
    assert browser.evaluate(line) == "rgb(99, 201, 161)"  # #63c9a1
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 26, 23)"  # #141a17


def test_dark_readers_print_on_white(browser: Browser, loop: Path) -> None:
    browser.show(loop, theme="dark", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 251)"  # #fdfdfb
    assert browser.pdf().startswith(b"%PDF")


def test_text_in_figures_is_legible_on_a_phone(browser: Browser, loop: Path) -> None:
    browser.show(loop, 320)
    sizes = browser.evaluate(
        "[...document.querySelectorAll('figure svg text')].map("
        "text => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"
    )
    assert min(sizes) >= 8.0


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_captions_of_wide_tables_stay_where_they_can_be_read(browser: Browser, loop: Path, width: int) -> None:
    browser.show(loop, width)
    ends = browser.evaluate(
        "[...document.querySelectorAll('.scroll')].forEach(box => box.scrollLeft = 1e4);"
        "[...document.querySelectorAll('caption, .caption')].flatMap(one => [...one.getClientRects()])"
        ".map(line => [line.left, line.right]).filter(([left, right]) => right > left)"
    )
    assert len(ends) > 3
    assert all(left >= 0 and right <= width for left, right in ends)
    assert browser.evaluate("document.querySelectorAll('.scroll caption').length") == 0


@pytest.mark.parametrize("width", [390, 1000, 1280])
def test_letters_of_a_panel_alone_are_as_large_as_those_of_panels_in_a_row(
    browser: Browser, loop: Path, width: int
) -> None:
    browser.show(loop, width)
    alone, together = (
        browser.evaluate(f"document.querySelector('{figure} .panel svg text').getScreenCTM().a")
        for figure in (".panels.lone", ".panels.paired")
    )
    # One panel is drawn at the width of each of a pair or four, give or take what a window of odd width leaves over.
    assert alone == pytest.approx(together, rel=0.1)


def test_a_leaderboard_keeps_its_meaning_on_a_phone(browser: Browser, loop: Path) -> None:
    browser.show(loop, 320)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert roles.count("columnheader") >= 20
    assert roles.count("rowheader") >= 8


def test_the_last_row_of_answers_is_not_left_to_one_card(browser: Browser, tmp_path: Path) -> None:
    shown = content().samples[0]
    more = [
        shown.answers[-1].model_copy(
            update={"completion": shown.answers[-1].completion.model_copy(update={"system": name})}
        )
        for name in ("dpo", "rloo")
    ]
    for extra, wide, narrow in ((more[:1], [5], [3, 2]), (more, [3, 3], [3, 3])):
        sample = shown.model_copy(update={"answers": (*shown.answers, *extra)})
        path = tmp_path / "index.html"
        write_report(content().model_copy(update={"samples": (sample,)}), path)
        for width, expected in ((1280, wide), (768, narrow), (360, [1] * (4 + len(extra)))):
            browser.show(path, width)
            tops = browser.evaluate(
                "[...document.querySelectorAll('.answer')].map(card => Math.round(card.getBoundingClientRect().top))"
            )
            assert [tops.count(top) for top in sorted(set(tops))] == expected
