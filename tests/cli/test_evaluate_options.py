"""The options of the evaluation verbs: completions of a run, length control, people's labels, leaks, identities."""

import contextlib
import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from pasture.cli import evaluate, evaluation_set, judges
from pasture.core.errors import DataError, LeakError, RecipeError
from pasture.core.files import read_records, write_records
from pasture.core.records import Comparison, Completion
from pasture.core.tables import read_rows
from pasture.world import meadow
from tests.evaluate import published
from tests.evaluate.pairs import prefer

app = typer.Typer()
evaluate.register(app)

COUNT = 40
STEPS = ("2-generate", "3-annotate")


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def table(text: str) -> dict[str, dict[str, str]]:
    return {row["system"]: row for row in csv.DictReader(io.StringIO(text))}


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What a run leaves that the evaluation verbs read: instructions, completions, judged comparisons."""
    folder = tmp_path / "run"
    instructions = meadow.evaluation_set(COUNT, 0)
    demonstrations = meadow.demonstrations(instructions, 0)
    write_records(folder / "1-data/evaluation.jsonl", instructions)
    write_records(folder / "1-data/evaluation-demonstrations.jsonl", demonstrations)
    for system, share in (("long", 1.0), ("cut", 0.5)):
        answers = [
            Completion(
                instruction_id=one.instruction_id,
                text=one.text[: int(share * len(one.text))],
                system=system,
                seed=0,
                finish_reason="stop",
            )
            for one in demonstrations
        ]
        write_records(folder / f"2-generate/evaluation/{system}/completions.jsonl", answers)
        place = folder / f"3-annotate/evaluation/{system}"
        comparisons = [Comparison.of(*row) for row in zip(instructions, demonstrations, answers, strict=True)]
        write_records(place / "comparisons.jsonl", comparisons)
        for judge, verdict in (("people", "first"), ("pool", "second")):
            write_records(place / f"{judge}.jsonl", [prefer(row, verdict) for row in comparisons])
        identities = {judge: {"judge": {"annotator": f"meadow-{judge}", "seed": 0}} for judge in ("people", "pool")}
        (place / "step.json").write_text(json.dumps({"details": identities}))
    return folder


@pytest.fixture
def arm(ran: Path, tmp_path: Path) -> Path:
    """The same run as an arm of a study, whose steps lie elsewhere and are linked."""
    folder = tmp_path / "study" / "runs" / "simulation-0"
    for step in ("1-data", *(f"{kind}/evaluation/{name}" for kind in STEPS for name in ("long", "cut"))):
        place = folder / step
        place.parent.mkdir(parents=True, exist_ok=True)
        target = tmp_path / "study" / "steps" / f"{step}-0c"
        target.parent.mkdir(parents=True, exist_ok=True)
        (ran / step).rename(target)
        place.symlink_to(os.path.relpath(target, place.parent), target_is_directory=True)
    (folder / "3-annotate" / "again").symlink_to(folder)  # a link to what holds it leads nowhere new
    return folder


def test_an_arm_of_a_study_is_read_through_its_links_as_a_run_is(arm):
    shown = table(run("leaderboard", arm, "--judge", "people", "--format", "csv"))
    assert shown.keys() == {"long", "cut"}
    # From the whole study each step counts once, however many links lead to it.
    assert table(run("leaderboard", arm.parent.parent, "--judge", "people", "--format", "csv")) == shown
    compared = run(
        "compare", arm / "2-generate/evaluation/cut/completions.jsonl",
        arm / "2-generate/evaluation/long/completions.jsonl", "--judge", "meadow-people",
    )  # fmt: skip
    assert "cut against long" in compared


def test_completions_of_a_run_find_their_instructions_in_its_folder(ran):
    shown = run(
        "compare", ran / "2-generate/evaluation/cut/completions.jsonl",
        ran / "1-data/evaluation-demonstrations.jsonl", "--judge", "meadow-people",
    )  # fmt: skip
    assert "cut against demonstrations" in shown
    assert f"{COUNT}/{COUNT}" in shown


def test_votes_of_the_meadows_judges_count_whole(ran, tmp_path):
    run("evaluate", ran / "2-generate/evaluation/cut/completions.jsonl", "-r",
        ran / "1-data/evaluation-demonstrations.jsonl", "-j", "meadow-people", "--out", tmp_path / "out")  # fmt: skip
    [row] = json.loads((tmp_path / "out/leaderboard.json").read_text())["rows"]
    rate = row["win_rate"]
    # Probabilities would give any fraction; votes are wins and half wins.
    assert rate["rate"] == (rate["wins"] + rate["ties"] / 2) / COUNT
    assert json.loads((tmp_path / "out/judge.json").read_text())["credit"] == "verdict"


def test_completions_elsewhere_need_the_file_of_their_instructions(ran, tmp_path):
    lone = tmp_path / "elsewhere.jsonl"
    lone.write_bytes((ran / "2-generate/evaluation/cut/completions.jsonl").read_bytes())
    reference = ran / "1-data/evaluation-demonstrations.jsonl"
    with pytest.raises(DataError, match=r"lies in no run folder\. Say with --instructions"):
        run("evaluate", lone, "-r", reference, "-j", "meadow-people")
    shown = run(
        "evaluate", lone, "-r", reference, "-j", "meadow-people", "--instructions", ran / "1-data/evaluation.jsonl"
    )
    assert f"{COUNT}/{COUNT}" in shown
    other = tmp_path / "other.jsonl"
    write_records(other, meadow.evaluation_set(5, 1)[:1])
    with pytest.raises(DataError, match=rf"{COUNT} of {COUNT} answers are to instructions that .*other\.jsonl does"):
        run("evaluate", lone, "-r", reference, "-j", "meadow-people", "--instructions", other)


def test_several_samples_of_one_instruction_are_refused_with_the_way_out(ran):
    path = ran / "2-generate/evaluation/long/completions.jsonl"
    path.write_text(path.read_text() * 2)
    with pytest.raises(DataError, match=r"answer the same instruction.*4-learn/best_of_n/completions\.jsonl"):
        run("compare", path, ran / "1-data/evaluation-demonstrations.jsonl", "-j", "meadow-people")


def test_a_leaderboard_of_a_run_folder_takes_one_judge_at_a_time(ran):
    with pytest.raises(DataError, match=r"different judges: people #[0-9a-f]{8}, pool #[0-9a-f]{8}"):
        run("leaderboard", ran)
    assert {row["win_rate"] for row in table(run("leaderboard", ran, "-j", "people", "-f", "csv")).values()} == {"0.0"}
    assert {row["win_rate"] for row in table(run("leaderboard", ran, "-j", "pool", "-f", "csv")).values()} == {"1.0"}
    with pytest.raises(DataError, match=r"no judgements by 'cat'. Judges there: people #[0-9a-f]{8}, pool #"):
        run("leaderboard", ran, "-j", "cat")


def test_one_name_over_two_settings_is_two_judges(ran, tmp_path):
    answers, reference = ran / "2-generate/evaluation/cut/completions.jsonl", ran / "1-data"
    for seed in (0, 1):
        run("evaluate", answers, "-r", reference / "evaluation-demonstrations.jsonl", "-j", "meadow-people",
            "-j", f"seed={seed}", "--out", tmp_path / f"results/{seed}")  # fmt: skip
    with pytest.raises(DataError, match=r"different judges: meadow-people #[0-9a-f]{8}, meadow-people #[0-9a-f]{8}"):
        run("leaderboard", tmp_path / "results")
    mixed = run("leaderboard", tmp_path / "results", "--allow-mixed", "-f", "csv")
    judges = {row["judge"] for row in csv.DictReader(io.StringIO(mixed))}
    assert len(judges) == 2
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"]) for row in csv.DictReader(io.StringIO(mixed)))


def test_a_damaged_judge_file_is_named(ran):
    place = ran / "3-annotate/evaluation/cut"
    for text in ("{", "{}", "[]"):
        (place / "judge.json").write_text(text)
        with pytest.raises(DataError, match=r"judge\.json: expected what pasture evaluate --out writes"):
            run("leaderboard", place)


def test_systems_are_compared_in_pairs_on_the_same_instructions(ran):
    # By the pool both win every time; by the people's file neither does: no difference, and no chance of one.
    shown = run("leaderboard", ran, "-j", "people")
    assert "long less cut: +0.0 points (" in shown
    assert "p = 1" in shown
    comparisons = read_records(ran / "3-annotate/evaluation/cut/comparisons.jsonl", Comparison)
    verdicts = ["second"] * 30 + ["first"] * (COUNT - 30)
    rows = [prefer(row, verdict) for row, verdict in zip(comparisons, verdicts, strict=True)]
    write_records(ran / "3-annotate/evaluation/cut/people.jsonl", rows)
    # 30 of 40 for one, none for the other.
    assert "long less cut: -75.0 points (-8" in run("leaderboard", ran, "-j", "people")


def test_details_show_sources_lengths_and_shares(ran, tmp_path):
    shown = run(
        "evaluate", ran / "2-generate/evaluation/cut/completions.jsonl", "-r",
        ran / "1-data/evaluation-demonstrations.jsonl", "-j", "meadow-people", "--details", "--out", tmp_path / "out",
    )  # fmt: skip
    assert "By source: percent" in shown
    assert "Answers: characters, and shares" in shown
    page = (tmp_path / "out/leaderboard.html").read_text()
    assert "By source, judged by meadow-people #" in page
    assert "Length and place" in page
    assert "What the answers look like" in page


def annotations(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.mkdir(parents=True)
    (path / "annotations.json").write_text(json.dumps(rows))
    return path


def test_peoples_labels_correct_a_judge_that_flatters(tmp_path):
    # The judge sees a win wherever people do, and in every other case where they see a loss.
    rng = np.random.default_rng(0)
    truth = rng.random(1000) < 0.4
    verdict = truth | (rng.random(1000) < 0.5)
    rows = [
        {"instruction": f"i{number}", "output_1": "a", "output_2": "b", "generator_1": "old", "generator_2": "new",
         "annotator": "judge", "preference": 2 if won else 1}
        for number, won in enumerate(verdict.tolist())
    ]  # fmt: skip
    judged = annotations(tmp_path / "judged", rows)
    labels = [{**row, "preference": 2 if won else 1} for row, won in zip(rows, truth.tolist(), strict=True)][:200]
    people = tmp_path / "people.json"
    people.write_text(json.dumps(labels))
    shown = run("leaderboard", judged, "--people", people)
    assert f"{100 * verdict.mean():.1f}" in shown
    for method in ("prediction-powered", "Rogan-Gladen"):
        corrected = float(re.search(rf"{method} +([\d.]+)", shown)[1])  # type: ignore[index]
        assert corrected == pytest.approx(100 * truth.mean(), abs=7)  # two standard errors of 200 labels
    people.write_text(json.dumps([{**row, "generator_2": "other"} for row in labels]))
    with pytest.raises(DataError, match="none in common"):
        run("leaderboard", judged, "--people", people)


def test_instructions_that_were_trained_on_are_refused_unless_allowed(ran):
    base = ["evaluate", ran / "2-generate/evaluation/cut/completions.jsonl", "-r",
            ran / "1-data/evaluation-demonstrations.jsonl", "-j", "meadow-people", "--training",
            ran / "1-data/evaluation.jsonl"]  # fmt: skip
    with pytest.raises(LeakError, match=rf"{COUNT} of {COUNT} .* pass --allow-overlap"):
        run(*base)
    assert f"{COUNT} instructions were also trained on, the first 100% the same" in run(*base, "--allow-overlap")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--difficulty", "d.csv"], "needs both --difficulty and --regularization"),
        (["--difficulty", "d", "--regularization", "r", "--length-control"], "choose one"),
        (["--compat", "trl"], "expected alpaca_eval"),
        (["--difficulty", "d", "--regularization", "r"], "with --instructions, or join by row"),
        (["--compat", "alpaca_eval"], "--compat says how difficulties are joined: name their file with --difficulty"),
        (["--instructions", "set.json"], "--instructions gives the order of the difficulties: name --difficulty too"),
        (["--details", "--format", "csv"], "--details is shown under the table alone: leave it or --format csv out"),
    ],
)
def test_options_of_a_board_that_do_not_go_together_are_refused(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        run("leaderboard", tmp_path, *options)


def test_an_unknown_order_is_refused():
    with pytest.raises(RecipeError, match="order 'sideways' is none of random, both, as-given"):
        contextlib.ExitStack().enter_context(judges.open_judge(["greedy", "models=m", "order=sideways"]))


@published.needs_published
def test_alpaca_evals_length_control_is_the_published_one_and_a_shuffle_spoils_it_only_by_row(tmp_path):
    rows = read_rows(published.FOLDER / "ae2/annotations/claude-2.parquet")
    texts = {row["instruction_sha16"]: row["instruction"] for row in published.instructions()}
    kept = [
        {
            **{name: row[name] for name in ("dataset", "generator_1", "generator_2", "annotator", "preference")},
            "instruction": texts[str(row["instruction_sha16"])],
            "output_1": "x" * int(str(row["len_1"])),
            "output_2": "x" * int(str(row["len_2"])),
        }
        for row in rows
    ]
    order = np.random.default_rng(0).permutation(len(kept))
    straight = annotations(tmp_path / "straight", kept)
    shuffled = annotations(tmp_path / "shuffled", [kept[number] for number in order])
    files = ["--difficulty", published.FOLDER / "lc/instruction_difficulty.csv",
             "--regularization", published.FOLDER / "lc/df_gamed_surrogate.csv"]  # fmt: skip

    def rate(folder: Path, *options: object) -> float:
        shown = run("leaderboard", folder, *files, *options, "--format", "alpaca-eval")
        return float(next(csv.DictReader(io.StringIO(shown)))["length_controlled_winrate"])

    by_instruction = ("--instructions", published.FOLDER / "instructions.jsonl.gz")
    assert rate(straight, *by_instruction) == pytest.approx(28.155, abs=0.15)  # published for claude-2
    assert rate(straight, "--compat", "alpaca_eval") == pytest.approx(28.155, abs=0.15)
    assert rate(shuffled, *by_instruction) == pytest.approx(28.155, abs=0.3)  # folds differ
    assert rate(shuffled, "--compat", "alpaca_eval") > 32


def test_an_evaluation_set_is_counted_and_refused_where_it_was_trained_on(ran, tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps([{"prompt": f"Name {n} birds, please.", "kind": "ab"[n % 2]} for n in range(5)]))
    sets = typer.Typer()
    evaluation_set.register(sets)
    options = [str(path), "--instruction", "prompt", "--source", "kind"]
    shown = CliRunner().invoke(sets, options, catch_exceptions=False).output
    assert re.search(r"a +3 *\n.*b +2 *\n", shown)
    assert re.search(r"SHA-256 of the texts: [0-9a-f]{64}", shown)
    trained = tmp_path / "sft.json"
    trained.write_text(json.dumps([{"instruction": "name 3 birds please"}, {"instruction": "name 3 birds please"}]))
    with pytest.raises(LeakError, match=r"1 of 5 .* in split 'sft\.json' .* pass --allow-overlap"):
        CliRunner().invoke(sets, [*options, "--training", str(trained)], catch_exceptions=False)
    allowed = CliRunner().invoke(
        sets, [*options, "--training", str(trained), "--allow-overlap"], catch_exceptions=False
    )
    assert "1 of them lie in 2 trained on, at most 100.0% the same" in allowed.output


@published.needs_published
def test_alpaca_evals_set_is_recognized():
    sets = typer.Typer()
    evaluation_set.register(sets)
    shown = CliRunner().invoke(sets, [str(published.FOLDER / "instructions.jsonl.gz")], catch_exceptions=False).output
    assert "These are AlpacaEval's 805." in shown
    for source, count in {"selfinstruct": 252, "oasst": 188, "koala": 156, "helpful_base": 129, "vicuna": 80}.items():
        assert re.search(rf"{source} +{count} *\n", shown)
