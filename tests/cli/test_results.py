"""Folders of results: who judged a run, which steps count, and what stands in the data files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pasture.cli import evaluate
from pasture.cli.judged import Judged, p_in_words
from pasture.cli.results import Beside, board_json, corrected_p_values, found_systems, results_page, write_results
from pasture.core.errors import DataError
from pasture.core.files import write_records
from pasture.core.records import Comparison, Preference
from pasture.evaluate.board import build_board
from pasture.evaluate.ranking import bradley_terry
from pasture.report.content import Difference
from pasture.report.summary import MEADOW
from pasture.steps.board_page import differences_from
from tests.evaluate.pairs import compare, prefer

app = typer.Typer()
evaluate.register(app)

JURY = {"annotator": "pool", "models": ["small"]}


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def step(folder: Path, system: str, identity: Mapping[str, object], verdicts: Sequence[str], judge: str) -> Path:
    """A system's answers as a run leaves them judged."""
    place = folder / "3-annotate/evaluation" / system
    comparisons = [compare(number, system=system, reference="demonstrations") for number in range(len(verdicts))]
    write_records(place / "comparisons.jsonl", comparisons)
    rows = [prefer(row, verdict) for row, verdict in zip(comparisons, verdicts, strict=True)]
    write_records(place / f"{judge}.jsonl", rows)
    (place / "step.json").write_text(json.dumps({"details": {judge: {"judge": identity, "asked": len(rows)}}}))
    return place


def test_two_models_under_one_name_in_two_runs_are_two_judges(tmp_path):
    step(tmp_path / "one", "ppo", JURY, ["first", "second"], "judge")
    step(tmp_path / "two", "dpo", {**JURY, "models": ["large"]}, ["first", "second"], "judge")
    with pytest.raises(DataError, match=r"different judges: judge #[0-9a-f]{8}, judge #[0-9a-f]{8}"):
        run("leaderboard", tmp_path)
    step(tmp_path / "two", "dpo", JURY, ["first", "second"], "judge")
    board = json.loads(run("leaderboard", tmp_path, "--judge", "judge", "-f", "json"))
    assert len({row["win_rate"]["judge"] for row in board["rows"]}) == 1
    assert board["judge_identity"] == JURY


def test_a_step_that_was_killed_before_it_was_finished_counts_nowhere(tmp_path):
    step(tmp_path, "ppo", JURY, ["first", "second"], "judge")
    # A killed update leaves its workspace, with or without the record of the step.
    half = step(tmp_path, "ppo.partial", JURY, ["second"], "judge")
    assert [len(outcomes) for outcomes in found_systems(tmp_path).systems] == [2]
    half.rename(half.with_name("dpo"))
    (half.with_name("dpo") / "step.json").unlink()
    assert [len(outcomes) for outcomes in found_systems(tmp_path).systems] == [2]


def listed(root: Path, steps: Mapping[str, Path]) -> None:
    """A manifest that lists these finished steps, each with a key of its own."""
    keys = {name: f"key of {name}" for name in steps}
    for name, place in steps.items():
        record = json.loads((place / "step.json").read_text())
        (place / "step.json").write_text(json.dumps({**record, "key": keys[name]}))
    (root / "manifest.json").write_text(json.dumps({"steps": {name: {"key": key} for name, key in keys.items()}}))


def test_a_system_that_the_recipe_no_longer_has_counts_nowhere(tmp_path):
    steps = {f"3-annotate/evaluation/{name}": step(tmp_path, name, JURY, ["first"], "judge") for name in ("ppo", "dpo")}
    listed(tmp_path, steps)
    step(tmp_path, "gone", JURY, ["second"], "judge")
    assert {outcomes.system for outcomes in found_systems(tmp_path).systems} == {"ppo", "dpo"}
    # Nor does one that was judged again under other settings, which no finished run has taken up.
    record = steps["3-annotate/evaluation/dpo"] / "step.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "key": "another"}))
    assert {outcomes.system for outcomes in found_systems(tmp_path).systems} == {"ppo"}
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json or .*step\.json is damaged"):
        found_systems(tmp_path)


def test_a_path_inside_a_run_finds_what_it_holds_from_wherever_it_is_named(tmp_path, monkeypatch):
    place = step(tmp_path / "run", "ppo", JURY, ["first"], "judge")
    for here, named in ((tmp_path / "run", "."), (place, "."), (place, ".."), (place.parent, "ppo"), (tmp_path, "run")):
        monkeypatch.chdir(here)
        assert [outcomes.system for outcomes in found_systems(Path(named)).systems] == ["ppo"], (here, named)


def test_of_a_study_whose_runs_share_names_a_single_run_is_asked_for(tmp_path):
    steps = {}
    for arm in ("people-0", "pool-0"):
        name = f"steps/3-annotate/evaluation/ppo-{arm}"
        steps[name] = step(tmp_path / "steps", f"ppo-{arm}", JURY, ["first"], "judge")
        rows = [compare(0, system="ppo", reference="demonstrations")]
        write_records(steps[name] / "comparisons.jsonl", rows)
        write_records(steps[name] / "judge.jsonl", [prefer(rows[0], "first")])
        shown = tmp_path / "runs" / arm / "3-annotate/evaluation/ppo"
        shown.parent.mkdir(parents=True)
        shown.symlink_to(steps[name], target_is_directory=True)
    listed(tmp_path, steps)
    with pytest.raises(DataError, match=r"Name a single run, such as .*runs/people-0\. Runs: people-0, pool-0\."):
        found_systems(tmp_path)
    assert [outcomes.system for outcomes in found_systems(tmp_path / "runs/people-0").systems] == ["ppo"]


def test_a_damaged_record_of_a_step_is_named(tmp_path):
    record = step(tmp_path, "ppo", JURY, ["first"], "judge") / "step.json"
    for text in ("{", "{}", "[]", '{"details": {"judge": 3}}'):
        record.write_text(text)
        with pytest.raises(DataError, match=r"step\.json is damaged .* run the recipe again"):
            found_systems(tmp_path)


@pytest.mark.parametrize(("annotator", "meadow"), [("meadow-people", True), ("people", False)])
def test_the_page_of_a_run_says_that_its_people_are_the_meadows_and_only_then(tmp_path, annotator, meadow):
    step(tmp_path / "run", "ppo", {"annotator": annotator}, ["first", "second"], "people")
    run("leaderboard", tmp_path / "run", "--html", tmp_path / "board.html")
    assert ("a miniature world built into Pasture" in (tmp_path / "board.html").read_text()) == meadow
    assert "a miniature world built into Pasture" in MEADOW


def judged(verdicts: Mapping[str, Sequence[str]], orders: Sequence[tuple[str, str]] = ()) -> Judged:
    """What a judge said of systems; `orders` are its verdicts in both orders, of the last rows."""
    comparisons: list[Comparison] = []
    preferences: list[Preference] = []
    for system, said in verdicts.items():
        rows = [compare(number, system=system) for number in range(len(said))]
        comparisons += rows
        preferences += [prefer(row, verdict) for row, verdict in zip(rows, said, strict=True)]
    for place, both in enumerate(orders):
        asked = [
            {"preferred": verdict, "probability_first": None, "shown_first": shown}
            for verdict, shown in zip(both, ("first", "second"), strict=True)
        ]
        number = len(preferences) - len(orders) + place
        preferences[number] = preferences[number].model_copy(update={"evidence": {"orders": asked}})
    return Judged(
        judge="j #00000000",
        identity={"annotator": "j"},
        date="2026-01-02",
        credit="verdict",
        reference="old",
        comparisons=comparisons,
        preferences=preferences,
    )


def test_differences_orders_and_ranking_stand_in_the_data_file_of_an_evaluation(tmp_path):
    said = judged(
        {"good": ["second"] * 6 + ["first"] * 2, "bad": ["first"] * 6 + ["second"] * 2},
        orders=[("first", "first")] * 6 + [("second", "first"), ("second", "second")],
    )
    systems = said.systems()
    board = build_board(systems, seed=0)
    behind = differences_from(systems, "good", seed=0)
    ranking = bradley_terry(systems, seed=0, draws=20)
    write_results(tmp_path, said, board, results_page("t", board, behind), ranking)
    written = json.loads((tmp_path / "leaderboard.json").read_text())
    [pair] = written["differences"]
    # By hand: 2 of 8 less 6 of 8.
    assert (pair["system"], pair["baseline"], pair["difference"]) == ("bad", "good", -0.5)
    assert pair["p_value_corrected"] == pair["p_value"]
    # Of eight verdicts one turned with the order.
    assert written["orders"]["bad"]["flip_rate"]["value"] == 1 / 8
    assert written["orders"]["bad"]["both"] == 8
    assert [row["system"] for row in written["ranking"]["systems"]] == ["good", "old", "bad"]


def test_a_system_without_a_pair_judged_in_both_orders_is_left_out_of_the_orders(tmp_path):
    said = judged(
        {"bad": ["unjudged"] * 3 + ["second"], "good": ["second"] * 4},
        orders=[("first", "unjudged")] * 3 + [("second", "second")] + [("second", "second")] * 4,
    )
    assert {name: both.both for name, both in said.orders().items()} == {"bad": 1, "good": 4}
    said = judged(
        {"bad": ["unjudged"] * 4, "good": ["second"] * 4},
        orders=[("first", "unjudged")] * 4 + [("second", "second")] * 4,
    )
    assert list(said.orders()) == ["good"]
    board = build_board(said.systems(), seed=0)
    write_results(tmp_path, said, board, results_page("t", board, []), None)
    assert list(json.loads((tmp_path / "leaderboard.json").read_text())["orders"]) == ["good"]


def test_an_open_bound_of_a_strength_is_null_in_the_data_file():
    said = judged({"good": ["second"] * 3})
    board = build_board(said.systems(), seed=0)
    ranking = bradley_terry(said.systems(), seed=0, draws=20)
    [first, last] = json.loads(board_json(board, Beside(ranking=ranking)))["ranking"]["systems"]
    assert first["interval"][1] is None
    assert last["interval"][0] is None
    assert first["standard_error"] is None


def test_p_values_are_corrected_for_all_comparisons_with_the_first():
    # Holm by hand: 3 x 0.01, 2 x 0.03, 1 x 0.04 and never less than the one before.
    raw = {"a": 0.04, "b": 0.01, "c": 0.03}
    differences = [
        Difference(system=name, baseline="x", difference=0.1, interval_low=0, interval_high=0.2, p_value=value)
        for name, value in raw.items()
    ]
    assert corrected_p_values(differences) == pytest.approx([0.06, 0.03, 0.06])


def test_a_p_value_too_small_to_be_drawn_has_a_bound_in_place_of_a_figure():
    # Ten thousand draws of signs, none as extreme: the mid-p estimate is 0.5 / 10,001, which is no measured value.
    assert p_in_words(0.5 / 10_001) == "p < 0.001"
    assert p_in_words(0.001) == "p = 0.001"
    assert p_in_words(0.0412) == "p = 0.041"
