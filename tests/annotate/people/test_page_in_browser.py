"""The page in a real browser, driven as people do: by mouse, by keys, by keyboard alone, without script, on a phone."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, sync_playwright

from pasture.annotate.campaign.events import OWNER, Settings
from pasture.annotate.campaign.export import preferences
from pasture.annotate.campaign.making import opening
from tests.annotate.people.campaigns import comparison, opening_events
from tests.annotate.people.hostile import HOSTILE
from tests.annotate.people.served import Served, served, votes_of
from tests.report.chromium import CHROMIUM

MARKDOWN = """## First

1. **Preheat** the oven.
2. Mix `flour` and *salt*.

| Step | Minutes |
|---|---|
| bake | 25 |

```
a line of code that is far too long for any phone and has to scroll sideways in its own box, not the page
```
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium is installed (Debian's package chromium)")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"])
        yield made
        made.close()


class Seat:
    """Somebody at a browser of their own."""

    def __init__(self, browser: Browser, server: Served, name: str, **settings: Any) -> None:
        self.server, self.name = server, name
        self.context: BrowserContext = browser.new_context(**settings)
        self.page: Page = self.context.new_page()
        self.misdeeds: list[str] = []
        self.page.on("console", lambda message: self.misdeeds.append(message.text))
        self.page.on("dialog", self._asked)
        self.page.on("request", self._seen)
        self.page.goto(f"{server.origin}/enter/{server.tokens[name]}")

    def _asked(self, dialog: Dialog) -> None:
        self.misdeeds.append(dialog.message)
        dialog.dismiss()

    def _seen(self, request: Any) -> None:
        if not request.url.startswith(f"{self.server.origin}/"):
            self.misdeeds.append(request.url)

    def pair(self) -> Page:
        self.page.goto(f"{self.server.origin}/pair")
        return self.page

    def press(self, key: str) -> None:
        """Press a key that sends a form, and wait for the next page."""
        with self.page.expect_navigation():
            self.page.keyboard.press(key)

    def follow(self, name: str) -> None:
        """Follow a link, and wait for its page and the script of it."""
        with self.page.expect_navigation():
            self.page.get_by_role("link", name=name).click()

    def click(self, name: str) -> None:
        with self.page.expect_navigation():
            self.page.get_by_role("button", name=name).click()

    def __enter__(self) -> "Seat":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()


def said_of(server: Served, name: str) -> list[str]:
    return [vote.said for vote in votes_of(server, name)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(
        tmp_path, opening_events(6, ["ann", "ben"], overlap=2, guidelines="# Be fair", strength=True)
    ) as running:
        yield running


@pytest.mark.slow
def test_two_people_label_at_once_and_one_closes_and_comes_back(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, opening_events(40, ["ann", "ben"], overlap=1)) as server:
        ann, ben = Seat(browser, server, "ann"), Seat(browser, server, "ben")
        ann.follow("Begin")
        ben.pair()
        for number in range(10):
            ann.press("1")
            ben.click("2 is better" if number % 2 else "Tie")
        ann.context.close()
        for _ in range(10):
            ben.press("b")
        with Seat(browser, server, "ann") as again:
            assert "10 of 20 done" in again.page.inner_text("h1")
            again.follow("Go on")
            for _ in range(10):
                again.press("2")
            assert "Your share is done" in again.page.inner_text("main")
            assert again.misdeeds == []
        assert "Your share is done" in ben.page.inner_text("main")
        assert ben.misdeeds == []
        ben.context.close()
        said = server.desk.look(preferences).result()
        pairs = server.desk.look(lambda campaign: set(campaign.labels())).result()
    assert Counter(each.comparison_id for each in said) == dict.fromkeys(pairs, 1)
    assert Counter(each.annotator for each in said) == {"ann": 20, "ben": 20}
    assert all(each.seconds is not None for each in said)
    assert sum(each.evidence == {"both_bad": True} for each in said) == 10


def test_keys_vote_undo_and_skip_and_leave_what_is_typed_alone(browser: Browser, server: Served) -> None:
    with Seat(browser, server, "ann") as ann:
        ann.pair()
        ann.press("t")
        ann.press("b")
        ann.press("u")
        assert said_of(server, "ann") == ["tie"]
        ann.page.keyboard.press("s")
        ann.page.keyboard.type("1 2 t b u: these are words")
        assert said_of(server, "ann") == ["tie"]
        ann.click("Skip this pair")
        assert [vote.reason for vote in votes_of(server, "ann")] == ["", "1 2 t b u: these are words"]
        ann.page.keyboard.press("Control+1")
        ann.page.get_by_role("button", name="Keys are on").click()
        ann.page.keyboard.press("1")
        ann.page.wait_for_timeout(150)
        assert said_of(server, "ann") == ["tie", "skip"]
        assert ann.misdeeds == []


def test_the_keyboard_alone_is_enough_and_enter_in_a_field_votes_for_nobody(browser: Browser, server: Served) -> None:
    with Seat(browser, server, "ann") as ann:
        page = ann.pair()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")  # the first strength
        assert page.get_by_label("slightly").is_checked()
        page.keyboard.press("Enter")  # would press the form's first button, did the script not keep it from that
        page.wait_for_timeout(150)
        assert said_of(server, "ann") == []
        page.keyboard.press("Tab")
        assert "1 is better" in page.evaluate("document.activeElement.textContent")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        ann.press("Enter")
        (vote,) = votes_of(server, "ann")
        assert (vote.strength, vote.said) == (1, vote.shown_first)


def test_without_script_everything_works_by_buttons(browser: Browser, server: Served) -> None:
    with Seat(browser, server, "ann", java_script_enabled=False) as ann:
        ann.pair().get_by_label("clearly").check()
        ann.press("Enter")
        assert "choose one of the buttons" in ann.page.inner_text("h1")
        assert said_of(server, "ann") == []
        ann.pair()
        ann.click("2 is better")
        ann.click("Tie")
        ann.click("Undo the last")
        ann.page.locator("summary", has_text="Skip").click()
        ann.page.get_by_label("Why can you not judge this pair?").fill("No idea.")
        ann.click("Skip this pair")
        assert [vote.said for vote in votes_of(server, "ann")][1:] == ["skip"]
        assert votes_of(server, "ann")[0].said != votes_of(server, "ann")[0].shown_first


@pytest.mark.parametrize(("width", "theme"), [(320, "light"), (1280, "dark")])
def test_every_page_is_accessible_and_fits(browser: Browser, tmp_path: Path, width: int, theme: str) -> None:
    pair = comparison(1, "Bake **bread**.", MARKDOWN, "Buy it. " * 60)
    opened, added = opening(
        "A campaign with a rather long name, such as people give",
        [pair, comparison(2)],
        ["ann"],
        Settings(guidelines=MARKDOWN, strength=True, wage_usd_per_hour=15.0),
    )
    found = {}
    with (
        served(tmp_path, [opened, *added]) as server,
        Seat(browser, server, "ann", viewport={"width": width, "height": 640}, color_scheme=theme) as ann,
    ):
        for path in ("/", "/pair", "/pair?view=plain", "/nothing", "done", "owner"):
            if path == "done":
                ann.pair()
                ann.click("Tie")
                ann.click("Tie")
            elif path == "owner":
                ann.context.clear_cookies()
                ann.page.goto(f"{server.origin}/enter/{server.tokens[OWNER]}")
            else:
                ann.page.goto(server.origin + path)
            found[path] = [
                (each["id"], each["nodes"][0]["html"])
                for each in Axe().run(ann.page).response["violations"]
                if each["impact"] in ("serious", "critical")
            ]
            assert ann.page.evaluate("document.documentElement.scrollWidth") <= width, path
            if path == "/pair":
                assert ann.page.locator(".verdict").bounding_box()["height"] < 320  # type: ignore[index]
        assert [text for text in ann.misdeeds if "404" not in text] == []
    assert {path: faults for path, faults in found.items() if faults} == {}


def test_the_reader_of_a_screen_is_told_places_roles_and_progress(browser: Browser, server: Served) -> None:
    with Seat(browser, server, "ann") as ann:
        page = ann.pair()
        assert page.title() == "Pair 1 of 6: which answer is better?"
        for name in ("Instruction", "Answer 1", "Answer 2", "Your verdict"):
            assert page.get_by_role("region", name=name).count() == 1
        assert page.get_by_role("progressbar", name="Pairs done").count() == 1
        assert page.get_by_role("group", name="By how much, if you prefer one").count() == 1
        page.get_by_text("Guidelines").click()
        assert page.get_by_role("heading", name="Be fair").is_visible()


def test_hostile_answers_open_nothing_and_ask_for_nothing(browser: Browser, tmp_path: Path) -> None:
    pairs = [comparison(n, text, text + " one", text + " two") for n, text in enumerate(HOSTILE)]
    opened, added = opening("<script>alert(1)</script>", pairs, ["ann"], Settings())
    with served(tmp_path, [opened, *added]) as server, Seat(browser, server, "ann") as ann:
        ann.pair()
        for _ in HOSTILE:
            assert ann.page.evaluate("document.scripts.length + document.images.length + document.links.length") == 4
            assert ann.page.locator(".answer").count() == 2
            ann.press("t")
        assert ann.misdeeds == []


def test_no_link_leaks_by_a_referrer_and_no_page_comes_back_after_signing_out(browser: Browser, server: Served) -> None:
    with Seat(browser, server, "ann") as ann:
        sent: list[str] = []
        ann.page.on("request", lambda request: sent.append(str(request.all_headers())))
        ann.page.goto(f"{server.origin}/enter/{server.tokens['ann']}")
        ann.follow("Begin")
        assert ann.page.url == f"{server.origin}/pair"
        assert sent
        assert not [headers for headers in sent if server.tokens["ann"] in headers]
        ann.page.goto(server.origin)
        ann.click("Sign out on this device")
        assert "Open the link that you were given" in ann.page.inner_text("h1")
        ann.page.go_back()
        ann.page.go_back()
        assert ann.page.locator(".answer").count() == 0


def test_the_owner_drops_someone_and_makes_a_link_without_script(browser: Browser, server: Served) -> None:
    with Seat(browser, server, OWNER, java_script_enabled=False) as owner:
        assert not owner.page.get_by_role("button", name="Drop for good").first.is_visible()
        owner.page.get_by_text("Change ben").click()
        with owner.page.expect_navigation():
            owner.page.locator("details[open]").get_by_role("button", name="Drop for good").click()
        assert "dropped" in owner.page.get_by_role("row", name="ben").inner_text()
        owner.page.get_by_label("One more annotator").fill("dora")
        owner.click("Add, and make a link")
        link = owner.page.locator("code").inner_text()
        assert "A new link for dora" in owner.page.inner_text("h1")
        owner.context.clear_cookies()
        owner.page.goto(link)
        assert "Welcome, dora" in owner.page.inner_text("h1")


FORM = """<form method=post action={origin}/vote><input name=said value=first></form>
<script>document.forms[0].submit()</script>"""
FETCH = """<script>fetch('{origin}/pair', {{credentials: 'include'}}).then(reply => reply.text())
.then(text => document.title = 'read', error => document.title = 'refused')</script>"""
FRAME = """<iframe src={origin}/pair onload="document.title = 'framed'"></iframe>"""


@pytest.mark.parametrize(
    ("body", "seen"), [(FORM, "not sent from one of our own pages"), (FETCH, "refused"), (FRAME, "framed")]
)
def test_another_site_can_neither_write_read_nor_frame(browser: Browser, server: Served, body: str, seen: str) -> None:
    with Seat(browser, server, "ann") as ann:
        evil = ann.context.new_page()
        html = f"<!doctype html><title>-</title>{body.format(origin=server.origin)}"
        evil.route("http://evil.test/", lambda route: route.fulfill(body=html, content_type="text/html"))
        evil.goto("http://evil.test/")
        evil.wait_for_timeout(400)
        assert seen in evil.title() + evil.inner_text("body")
        for frame in evil.frames[1:]:  # what is shown in the frame is the browser's own refusal
            assert "Which answer is better" not in frame.content()
    assert said_of(server, "ann") == []
