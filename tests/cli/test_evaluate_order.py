"""The order of an evaluation: refusals before money, judgements on disk before corrections, data alone on stdout."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from pasture.cli import evaluate
from pasture.core.errors import DataError, PastureError
from pasture.world import meadow

app = typer.Typer()
evaluate.register(app)

COUNT = 40


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def answers(path: Path, outputs: list[str]) -> Path:
    instructions = meadow.evaluation_set(COUNT, 0)[: len(outputs)]
    rows = [
        {"instruction": item.instruction, "input": item.input, "dataset": item.source, "output": output}
        for item, output in zip(instructions, outputs, strict=True)
    ]
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Demonstrations of the meadow, and the same cut to half and to a third."""
    texts = [completion.text for completion in meadow.demonstrations(meadow.evaluation_set(COUNT, 0), 0)]
    return {
        "full": answers(tmp_path / "full.json", texts),
        "half": answers(tmp_path / "half.json", [text[: len(text) // 2] for text in texts]),
        "third": answers(tmp_path / "third.json", [text[: len(text) // 3] for text in texts]),
    }


@pytest.fixture
def labels(files: dict[str, Path], tmp_path: Path) -> Path:
    """People's labels of the first 25 pairs of "half" and the demonstrations."""
    pairs = zip(json.loads(files["full"].read_text()), json.loads(files["half"].read_text()), strict=True)
    rows = [
        {"instruction": old["instruction"], "input": old["input"], "output_1": old["output"], "output_2": new["output"],
         "generator_1": "full", "generator_2": "half", "annotator": "people", "preference": 1 + number % 2}
        for number, (old, new) in enumerate(pairs)
    ]  # fmt: skip
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(rows[:25]))
    return path


def spoiled(labels: Path, **changed: object) -> Path:
    labels.write_text(json.dumps([{**row, **changed} for row in json.loads(labels.read_text())]))
    return labels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda path: ["--difficulty", path / "no.csv", "--regularization", path / "no.csv"], "no such file"),
        (lambda path: ["--difficulty", path / "d.csv", "--regularization", path / "r.csv"], "40 instructions, but 3"),
        (lambda path: ["--difficulty", path / "d.csv", "--regularization", path / "r.csv", "--compat", "alpaca_eval"],
         "has 40 rows, the difficulties end at 3"),
        (lambda path: ["--people", path / "no.json"], "no such file"),
        (lambda path: ["--people", spoiled(path / "labels.json", generator_2="other")], "none in common"),
        (lambda path: ["--people", spoiled(path / "labels.json", input="x")], "at least 20 instructions"),
        (lambda path: ["--out", path / "d.csv" / "results"], "cannot write there"),
        (lambda path: [path / "again" / "half.json"], "several files answer under one name: .'half'"),
    ],
)  # fmt: skip
def test_files_and_options_are_refused_before_anything_is_asked(files, labels, tmp_path, monkeypatch, options, message):
    (tmp_path / "d.csv").write_text("instruction_difficulty\n1\n2\n3\n")
    (tmp_path / "r.csv").write_text("std_delta_len,instruction_difficulty,preference\n0,1,0.5\n")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "half.json").write_text(files["half"].read_text())
    monkeypatch.setattr(evaluate, "put_to_judge", lambda *_, **__: pytest.fail("money was spent"))
    assert labels.exists()
    with pytest.raises(DataError, match=message):
        invoke("evaluate", files["half"], "-r", files["full"], "-j", "meadow-people", *options(tmp_path))


@pytest.mark.parametrize(
    "failing",
    ["length_options.length_control", "evaluate.bradley_terry", "evaluate.corrected_rates"],
)
def test_a_correction_that_fails_loses_no_judgement_and_no_plain_table(files, labels, tmp_path, monkeypatch, failing):
    def fail(*_: object, **__: object) -> None:
        raise PastureError("no")

    monkeypatch.setattr(f"pasture.cli.{failing}", fail)
    out = tmp_path / "out"
    asked = ["evaluate", files["half"], "-r", files["full"], "-j", "meadow-people", "--audit", "--length-control",
             "--people", labels, "--out", out]  # fmt: skip
    result = CliRunner().invoke(app, [str(one) for one in asked])
    assert isinstance(result.exception, PastureError)
    assert "Leaderboard" in result.stdout
    assert len((out / "preferences.jsonl").read_text().splitlines()) == COUNT
    assert [row["win_rate"]["asked"] for row in json.loads((out / "leaderboard.json").read_text())["rows"]] == [COUNT]
    assert {path.name for path in out.iterdir()} >= {"audit.json", "judge.json", "leaderboard.csv", "alpaca_eval"}


def test_an_evaluation_leaves_its_differences_and_its_ranking(files, labels, tmp_path):
    out = tmp_path / "out"
    shown = invoke("evaluate", files["half"], files["third"], "-r", files["full"], "-j", "meadow-people",
                   "--people", labels, "--out", out).stdout  # fmt: skip
    assert "Corrected by people's labels" in shown
    assert "Corrected by people" in (out / "leaderboard.html").read_text()
    board = json.loads((out / "leaderboard.json").read_text())
    assert len(board["differences"]) == 1
    assert board["orders"] == {}
    assert {row["system"] for row in board["ranking"]["systems"]} == {"half", "third", "full"}


@pytest.mark.parametrize("form", ["csv", "json", "alpaca-eval"])
def test_with_a_form_for_machines_all_else_goes_to_the_other_stream(files, labels, tmp_path, form):
    out = tmp_path / "out"
    invoke("evaluate", files["half"], files["third"], "-r", files["full"], "-j", "meadow-people", "--out", out)
    shown = invoke("leaderboard", out, "--ranking", "--people", labels, "--format", form)
    assert "Bradley-Terry" in shown.stderr
    assert "Corrected by people's labels" in shown.stderr
    if form == "json":
        board = json.loads(shown.stdout)
        assert board["ranking"]["systems"][0]["system"] == "full"
        assert {row["system"] for row in board["corrected"]} == {"half"}
    else:
        rows = list(csv.reader(io.StringIO(shown.stdout)))
        assert [len(row) for row in rows] == [len(rows[0])] * 3


def test_compare_says_how_many_instructions_only_one_of_the_two_answered(files, tmp_path):
    rows = json.loads(files["half"].read_text())
    some = tmp_path / "some.json"
    some.write_text(json.dumps(rows[:30]))
    most = tmp_path / "most.json"
    most.write_text(json.dumps(json.loads(files["full"].read_text())[3:]))
    shown = " ".join(invoke("compare", some, most, "-j", "meadow-people").stdout.split())
    # By hand: of 0 to 29 and 3 to 39 both hold 3 to 29.
    assert re.search(r"Compared on 27 instructions; left out are 3 that only .* answers and 10 that only", shown)
    assert "left out" not in invoke("compare", files["half"], files["full"], "-j", "meadow-people").stdout


def test_the_screen_and_the_page_say_what_p_values_are_corrected_for(tmp_path):
    wins = {"a": 30, "b": 26, "c": 24}
    rows = [
        {"instruction": f"i{number}", "output_1": "x", "output_2": name, "generator_1": "old", "generator_2": name,
         "annotator": "judge", "preference": 2 if number * 7 % COUNT < count else 1}
        for name, count in wins.items()
        for number in range(COUNT)
    ]  # fmt: skip
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    page = tmp_path / "board.html"
    shown = " ".join(invoke("leaderboard", tmp_path, "--html", page).stdout.split())
    assert "p is corrected by Holm for the 2 comparisons with a, which the same judgements put first" in shown
    pairs = json.loads(invoke("leaderboard", tmp_path, "-f", "json").stdout)["differences"]
    larger, smaller = sorted((pair["p_value"] for pair in pairs), reverse=True)
    by_hand = {smaller: 2 * smaller, larger: max(2 * smaller, larger)}
    assert {pair["p_value"]: pair["p_value_corrected"] for pair in pairs} == pytest.approx(by_hand)
    said = " ".join(re.sub("<[^>]*>", " ", page.read_text()).split())
    assert "Only p is corrected, by Holm, for the 2 pairs of this table." in said
    assert "a was put first by these same judgements, which flatters it." in said
    assert "a difference that chance does not explain" not in said
    assert smaller == pytest.approx(0.5**6, rel=0.2)  # by hand: six differences of one sign, in the mid-p form
    assert f"{2 * smaller:.3f}" in said
    assert f"{smaller:.3f}" not in said
