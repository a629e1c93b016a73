"""Hostile text in every field of an evaluation's files is inert in the page, the terminal and the tables it makes."""

import csv
import io
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pasture.cli import evaluate
from pasture.world import meadow
from tests.report.chromium import Browser
from tests.report.hostile_numbers import ATTACKS

app = typer.Typer()
evaluate.register(app)

ACTING = "\x1b\x07\x9b\u202e\u2066\u200f"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def is_inert(browser: Browser, page: Path) -> None:
    browser.show(page)
    browser.evaluate("new Promise(done => setTimeout(done, 100))")
    requests = [event for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    assert [event["params"]["request"]["url"] for event in requests] == [page.as_uri()]
    assert not [event for event in browser.events if event["method"] == "Page.javascriptDialogOpening"]
    assert (
        browser.evaluate("document.querySelectorAll('script, iframe, img, link, [onmouseover], [onload]').length") == 0
    )


def tables_are_inert(shown: str, sheet: str) -> None:
    assert not any(character in shown + sheet for character in ACTING)
    for row in csv.reader(io.StringIO(sheet)):
        assert not any(cell.lstrip().startswith(("=", "@")) for cell in row)
    assert len(shown) < 50_000


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_annotations_of_others_stay_text(browser: Browser, tmp_path: Path, attack: str) -> None:
    text = ATTACKS[attack]
    rows = [
        {"instruction": f"{text}{number}", "input": text, "output_1": text, "output_2": f"{text} more",
         "generator_1": text, "generator_2": f"{text}{number % 2}", "annotator": text, "dataset": text,
         "preference": 1 + number % 3 / 2}
        for number in range(12)
    ]  # fmt: skip
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    options = ("leaderboard", tmp_path, "--allow-mixed")
    page = tmp_path / "board.html"
    shown = run(*options, "--details", "--ranking", "--html", page)
    tables_are_inert(shown, run(*options, "--format", "csv"))
    tables_are_inert(shown, run(*options, "--format", "alpaca-eval"))
    is_inert(browser, page)


@pytest.mark.parametrize("attack", ["script", "breakout", "terminal", "formula", "megabyte"])
def test_answers_of_systems_stay_text(browser: Browser, tmp_path: Path, attack: str) -> None:
    text = ATTACKS[attack]
    instructions = meadow.evaluation_set(4, 0)
    paths = []
    for name, output in (("a", text), ("b", f"x {text}")):
        rows = [
            {"instruction": one.instruction, "input": one.input, "output": output, "generator": f"{text}{name}",
             "dataset": text}
            for one in instructions
        ]  # fmt: skip
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(rows))
    out = tmp_path / "out"
    shown = run("evaluate", paths[0], "-r", paths[1], "-j", "meadow-people", "--audit", "--details", "--out", out)
    tables_are_inert(shown, (out / "leaderboard.csv").read_text())
    is_inert(browser, out / "leaderboard.html")
    assert (out / "leaderboard.html").stat().st_size < 3_000_000
