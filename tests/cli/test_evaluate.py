"""The verbs from answers to numbers: tables, files, gates, and refusals before anything is spent."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pasture.annotate.stored import StoredPool
from pasture.cli import analyze, evaluate, judges
from pasture.core.errors import DataError, RecipeError
from pasture.world import meadow

app = typer.Typer()
evaluate.register(app)
analyze.register(app)


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Demonstrations of the meadow, and two systems: one that repeats them cut short, one that says nothing."""
    instructions = meadow.evaluation_set(60, 0)
    texts = [completion.text for completion in meadow.demonstrations(instructions, 0)]
    answers = {"full": texts, "cut": [text[: len(text) // 2] for text in texts], "mute": [""] * 60}
    paths = {}
    for name, outputs in answers.items():
        rows = [
            {"instruction": item.instruction, "input": item.input, "dataset": item.source, "output": output}
            for item, output in zip(instructions, outputs, strict=True)
        ]
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(rows))
    return paths


def test_evaluate_prints_writes_and_leaderboard_reads_it_back(files, tmp_path):
    out = tmp_path / "results"
    shown = run(
        "evaluate", files["cut"], files["mute"], "-r", files["full"], "-j", "meadow-people",
        "--audit", "--length-control", "--out", out,
    )  # fmt: skip
    assert re.search(r"Judge: meadow-people #[0-9a-f]{8} on 20\d\d-\d\d-\d\d", shown)
    assert "audit: empty" in shown
    assert "judgements, $0.0000" in shown
    table = {row["system"]: row for row in csv.DictReader(io.StringIO((out / "leaderboard.csv").read_text()))}
    assert table.keys() == {"cut", "mute"}
    assert float(table["cut"]["win_rate"]) < 0.5
    assert (table["cut"]["asked"], table["cut"]["unjudged"]) == ("60", "0")
    assert json.loads((out / "leaderboard.json").read_text())["judge_identity"]["annotator"] == "meadow-people"
    assert len(json.loads((out / "alpaca_eval/annotations.json").read_text())) == 120
    assert {row["system"] for row in json.loads((out / "audit.json").read_text())} >= {"audit: copy"}

    again = {row["system"]: row for row in csv.DictReader(io.StringIO(run("leaderboard", out, "--format", "csv")))}
    assert {name: row["win_rate"] for name, row in again.items()} == {
        name: row["win_rate"] for name, row in table.items()
    }
    # The export in AlpacaEval's layout alone gives the same rates.
    exported = run("leaderboard", out / "alpaca_eval", "--format", "alpaca-eval", "--ranking")
    assert float(next(csv.DictReader(io.StringIO(exported)))["win_rate"]) == pytest.approx(
        100 * max(float(row["win_rate"]) for row in table.values())
    )
    assert "Bradley-Terry" in exported
    file = run("leaderboard", out / "alpaca_eval/annotations.json", "--format", "alpaca-eval", "--ranking")
    assert file.splitlines()[:2] == exported.splitlines()[:2]


def test_the_gate_leaves_with_one_and_names_who_fell_short(files):
    shown = run("evaluate", files["mute"], "-r", files["full"], "-j", "meadow-people", "--fail-under", 40, code=1)
    assert "Below 40%: mute" in shown
    run("evaluate", files["mute"], "-r", files["full"], "-j", "meadow-people", "--fail-under", 0)


def test_compare_says_who_wins_and_whether_it_is_chance(files):
    shown = run("compare", files["full"], files["mute"], "--judge", "meadow-people")
    assert "full wins more often, more often than chance explains (p < 0.001)" in shown
    assert "60 judgements" in shown


def test_systems_with_different_instructions_are_refused_before_judging(files, tmp_path):
    short = tmp_path / "short.json"
    short.write_text(json.dumps(json.loads(files["cut"].read_text())[:30]))
    with pytest.raises(DataError, match=r"different instructions of the reference \(30, 60\)"):
        run("evaluate", short, files["mute"], "-r", files["full"], "-j", "meadow-people")
    assert "30 missing" in run("evaluate", short, "-r", files["full"], "-j", "meadow-people")


def test_annotators_are_analyzed_from_one_file(tmp_path):
    rows = [
        {"instruction": f"i{number}", "output_1": "x" * 50, "output_2": "y", "h1": 1, "h2": 1 + number % 2, "bot": 1}
        for number in range(20)
    ]
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(rows))
    [bot, people] = json.loads(run("analyze-annotators", path, "--people", "h1,h2", "--labels", "bot", "--json"))
    assert (bot["annotator"], people["annotator"]) == ("bot", "people")
    assert bot["prefer_longer"]["value"] == 1.0
    # Even votes (half of the pairs) fall to "second", as AlpacaEval draws them.
    assert bot["agreement"]["value"] == 0.5
    assert people["pairwise_agreement"]["value"] == 0.5
    assert "agrees with the majority" in run("analyze-annotators", path, "--people", "h1,h2", "--labels", "bot")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["seed=1"], "expected one judge's name, got 0"),
        (["meadow-people", "meadow-pool"], "got 2"),
        (["meadow-people", "sead=1"], "no setting 'sead'"),
        (["meadow-people", "seed=x"], "seed must be a number, got 'x'"),
        (["meadow-people", "seed=1.7"], "seed must be a whole number, got '1.7'"),
        (["meadow-pool", "votes=inf"], "votes must be a whole number, got 'inf'"),
        (
            ["meadow-people", "label_flip_probability=0.4"],
            "no setting 'label_flip_probability'. Settings: seed, votes.",
        ),
        (["meadow-people", "engine.device=cuda"], "no setting 'engine.device'"),
        (["greedy", "models=m", "engine.speed=9"], "engine 'api': speed: no such key"),
        (["greedy", "models=m", "engine=magic"], "engine"),
        (["nobody"], "nobody"),
    ],
)
def test_a_judge_that_does_not_exist_is_named(values, message):
    with pytest.raises(RecipeError, match=message), judges.open_judge(values):
        pass


def test_a_judge_on_this_machine_is_set_up_by_its_engines_settings(tmp_path):
    values = ["greedy", f"models={tmp_path}", "engine=local", "engine.dtype=bfloat16", "budget_usd=2", "order=both"]
    with judges.open_judge(values) as (name, pool):
        assert name == "greedy"
        assert isinstance(pool, StoredPool)
        assert pool.access.engine_settings == {"dtype": "bfloat16"}
        assert pool.access.max_usd == 2.0
        assert pool.panel.order == "both"


@pytest.mark.parametrize("verb", ["evaluate", "leaderboard", "compare", "analyze-annotators"])
def test_every_verb_shows_an_example(verb):
    assert f"Example: pasture {verb}" in run(verb, "--help")
