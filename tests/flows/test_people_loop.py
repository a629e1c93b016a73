"""From pairs to a reward model by way of the real page: the meadow's people, in browsers, clicking as they prefer."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from pasture.core.files import read_records, write_records
from pasture.core.records import Comparison, Preference
from pasture.core.seeds import uniform
from pasture.core.templates import PLAIN
from pasture.learn import reward_model
from pasture.recipe import BUILT_IN, start_folder
from pasture.world.meadow import instructions
from pasture.world.people import PEOPLE, Person
from pasture.world.reading import read
from pasture.world.writing import MODEL_LIKE, write
from tests.flows.tiny import run
from tests.report.chromium import CHROMIUM

PAIRS, OVERLAP = 60, 3


@pytest.fixture(scope="module")
def pairs() -> list[Comparison]:
    asked = instructions("preference", PAIRS, seed=7)
    return [Comparison.of(one, *(write(one, MODEL_LIKE, "model", 7, sample) for sample in (0, 1))) for one in asked]


@pytest.fixture(scope="module")
def campaign(pairs: list[Comparison], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign after everyone has clicked through it."""
    if not CHROMIUM:
        pytest.skip("no Chromium is installed (Debian's package chromium)")
    folder = tmp_path_factory.mktemp("people")
    write_records(folder / "comparisons.jsonl", pairs)
    names = ",".join(person.name for person in PEOPLE)
    made = run(
        "people", "new", str(folder / "comparisons.jsonl"), "-c", str(folder / "meadow.campaign"),
        "--annotators", names, "--overlap", str(OVERLAP), "--wage", "15", "--plain",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with serving(folder / "meadow.campaign") as links, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"])
        for person in PEOPLE:
            label(browser, links[person.name], person, {one.instruction.instruction: one for one in pairs})
        browser.close()
    return folder / "meadow.campaign"


class serving:  # noqa: N801 - used as a function
    """`pasture people serve` as a process; the links that it prints."""

    def __init__(self, campaign: Path) -> None:
        command = [sys.executable, "-m", "pasture", "people", "serve", str(campaign), "--port", "0"]
        environment = {**os.environ, "COLUMNS": "300", "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    def __enter__(self) -> dict[str, str]:
        assert self._process.stdout is not None
        links = {}
        while "Ctrl-C" not in (line := self._process.stdout.readline()):
            if found := re.match(r"  (\S+) +(http\S+/enter/\S+)", line):
                links[found[1]] = found[2]
        return links

    def __exit__(self, *error: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


def label(browser: Browser, link: str, person: Person, asked: dict[str, Comparison]) -> None:
    """Have a person go by what stands on the page and nothing else, the end of an answer excepted."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(link)
    with page.expect_navigation():
        page.get_by_role("link", name="Begin").click()
    while page.locator(".answer").count():
        with page.expect_navigation():
            page.keyboard.press(choice(page, person, asked))
    assert "Your share is done" in page.inner_text("main")
    context.close()


def choice(page: Page, person: Person, asked: dict[str, Comparison]) -> str:
    instruction, *rest = (text.strip() for text in page.locator(".asked .plain").all_inner_texts())
    comparison = asked[instruction]
    assert rest == ([comparison.instruction.input] if comparison.instruction.input else [])
    ends = {" ".join(each.text.split()): each.finish_reason for each in (comparison.first, comparison.second)}
    shown = [" ".join(text.partition("\n")[2].split()) for text in page.locator(".answer").all_inner_texts()]
    readings = (read(instruction, comparison.instruction.input, text, ends[text]) for text in shown)
    chance = person.probability_first(*readings)
    return "1" if uniform(0, "click", person.name, comparison.id) < chance else "2"


@pytest.fixture(scope="module")
def labels(campaign: Path) -> Path:
    done = run("people", "export", str(campaign), "--out", str(campaign.parent / "labels"))
    assert done.returncode == 0, done.stderr
    return campaign.parent / "labels"


@pytest.mark.slow
def test_every_label_arrives_once(labels: Path, pairs: list[Comparison]) -> None:
    said = read_records(labels / "preferences.jsonl", Preference)
    assert len({(each.comparison_id, each.annotator) for each in said}) == len(said) == PAIRS * OVERLAP
    assert read_records(labels / "comparisons.jsonl", Comparison) == pairs
    assert {each.shown_first for each in said} == {"first", "second"}


@pytest.mark.slow
def test_people_agree_as_people_of_the_meadow_do(campaign: Path) -> None:
    done = run("people", "status", str(campaign), "--json")
    agreement = json.loads(done.stdout)["agreement"]["pairwise"]
    # docs/meadow.md: one of the people agrees with another in about two thirds; 180 couples of labels.
    assert 0.52 < agreement["value"] < 0.82


@pytest.mark.slow
def test_a_reward_model_learns_what_people_said(labels: Path, tmp_path: Path) -> None:
    pairs = {each.id: each for each in read_records(labels / "comparisons.jsonl", Comparison)}
    said = read_records(labels / "preferences.jsonl", Preference)
    reward_model.train(
        reward_model.Config(epochs=6, learning_rate=1e-3, batch_size=16, max_tokens=96),
        start=start_folder(BUILT_IN),
        feedback=[(pairs[each.comparison_id], each) for each in said],
        template=PLAIN,
        folder=tmp_path,
        seed=0,
        progress=lambda done, total, **figures: None,
    )
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in metrics if "loss" in row]
    # A sixth of the steps at either end: the labels are learned, though not what is chance in them.
    sixth = len(losses) // 6
    assert sum(losses[-sixth:]) < 0.9 * sum(losses[:sixth])
    assert (tmp_path / "model" / "config.json").exists()


@pytest.mark.slow
def test_the_report_shows_people_beside_the_pool(campaign: Path, tmp_path: Path) -> None:
    page = tmp_path / "people.html"
    done = run("people", "status", str(campaign), "--judge", "meadow-pool", "--report", str(page))
    assert done.returncode == 0, done.stderr
    assert "meadow-pool agrees with the majority of people in" in done.stdout
    text = re.sub(r"<[^>]+>", " ", page.read_text())
    assert "180 labels of 60 pairs by 16 annotators" in text
    for name in ("people", "meadow-pool", "person-01", "person-16"):
        assert name in text
