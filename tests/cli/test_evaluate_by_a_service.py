"""An evaluation whose judge is a service that fails for a while: what is said of it, and how it is made good."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pasture.cli import evaluate, judges
from pasture.core.errors import RecipeError
from tests.engines.fake_server import KEY, FakeServer

COUNT = 12
KEY_ENV = "KEY_OF_THE_TEST"

app = typer.Typer()
evaluate.register(app)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setenv(KEY_ENV, KEY)
    with FakeServer(tmp_path / "ledger.jsonl") as running:
        yield running


@pytest.fixture
def asked(server: FakeServer, tmp_path: Path) -> list[str]:
    """An evaluation of COUNT answers by a judge that reads log-probabilities."""
    for name in ("new", "old"):
        rows = [{"instruction": f"say {number}", "output": f"{name} {number}"} for number in range(COUNT)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    settings = ("models=m", f"base_url={server.base_url}", f"api_key_env={KEY_ENV}", f"store={tmp_path / 'a.sqlite'}")
    options = [part for value in ("alpaca-eval-2", *settings) for part in ("--judge", value)]
    return ["evaluate", str(tmp_path / "new.json"), "-r", str(tmp_path / "old.json"), *options]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_what_has_no_verdict_is_told_with_its_reason_and_asked_about_again_on_request(
    server: FakeServer, asked: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    server.behave(silently_lacks=("logprobs",))
    said = run(*asked, "--audit", "--out", str(out))
    # By hand: the system and the audit's four, of which the copy is settled without asking.
    told = rf"{4 * COUNT} of {5 * COUNT} judgements are no verdict, \d+ of them for this reason: expected log-prob"
    assert re.search(told, said)
    assert "Ask about these alone with --judge retry_unjudged=true." in said
    page = " ".join(re.sub("<[^>]*>", " ", (out / "leaderboard.html").read_text()).split())
    assert re.search(told, page[page.index("Before you believe") :])
    assert (out / "audit.json").exists()

    server.behave()
    assert f"0/{COUNT}" in run(*asked)
    assert server.counts()["requests"] == 0
    again = run(*asked, "--judge", "retry_unjudged=true", "--out", str(out))
    assert f"{COUNT}/{COUNT}" in again
    assert "no verdict" not in again
    assert server.counts()["requests"] == COUNT
    # Of the evaluation that this one took the place of, which had an audit.
    assert not (out / "audit.json").exists()


def test_a_price_that_is_told_lets_a_judge_of_ones_own_be_limited(asked: list[str]) -> None:
    assert f"{COUNT}/{COUNT}" in run(*asked, "--judge", "price=2.5,10", "--judge", "budget_usd=5")


@pytest.mark.parametrize(
    ("setting", "message"),
    [("retry_unjudged=yes", "retry_unjudged must be true or false, got 'yes'"), ("price=2", "expected two amounts")],
)
def test_settings_of_no_meaning_are_refused(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message), judges.open_judge(["greedy", "models=m", setting]):
        pass


def test_in_both_orders_the_share_that_turned_is_told_in_percent(asked: list[str]) -> None:
    assert re.search(
        rf"new: \S+ over both orders, \d+\.\d% of {COUNT} verdicts turned", run(*asked, "-j", "order=both")
    )
