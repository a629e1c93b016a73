"""A study from end to end, at a size that takes a minute: its numbers, and what kills do to them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.flows.test_kill import results
from tests.flows.tiny import REPOSITORY, TINY, run

STUDY = REPOSITORY / "recipes" / "meadow" / "study.toml"
TINY_STUDY = (
    *(setting for setting in TINY if not setting.startswith("learn.ppo.checkpoint")),
    *("data.live=12", "data.evaluation=24", "evaluate.curve_n=4", "learn.best_of_4.n=3"),
    *(
        "learn.rloo.steps=2",
        "learn.rloo.rollout_batch_size=8",
        "learn.rloo.save_every=1",
        "learn.rloo.max_new_tokens=8",
    ),
    *("learn.dpo.batch_size=16", "learn.dpo.save_every=1"),
    *("learn.expert_iteration.n=2", "learn.expert_iteration.max_new_tokens=8"),
)
CREDIT = {"first": 0.0, "second": 1.0, "tie": 0.5}


def run_study(out: Path, workers: int) -> subprocess.CompletedProcess[str]:
    return run("run", str(STUDY), *TINY_STUDY, "--out", str(out), "-j", str(workers))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rates(out: Path, arm: str, split: str, judge: str) -> dict[str, float]:
    """Win rates of an arm's systems, straight from the preferences."""
    folder = out / "runs" / f"{arm}-0" / "3-annotate" / split
    return {
        system.name: float(np.mean([CREDIT[row["preferred"]] for row in rows(system / f"{judge}.jsonl")]))
        for system in folder.iterdir()
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "quiet"
    done = run_study(out, 2)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_figure_s_numbers_are_what_the_preferences_say(study: Path) -> None:
    shown = json.loads((study / "7-report" / "study.json").read_text())
    simulated, people = rates(study, "simulation", "evaluation", "pool"), rates(study, "people", "evaluation", "people")
    points = {point["system"]: point for point in shown["ranking"]["points"]}
    assert set(points) == set(simulated) == set(people)
    for system, point in points.items():
        assert point["simulated"]["value"] == pytest.approx(simulated[system], abs=1e-12)
        assert point["people"]["value"] == pytest.approx(people[system], abs=1e-12)
    x, y = ([world[system] for system in points] for world in (simulated, people))
    assert shown["ranking"]["spearman"]["value"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert shown["ranking"]["kendall"]["value"] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)
    assert shown["ranking"]["r_squared"]["value"] == pytest.approx(stats.pearsonr(x, y).statistic ** 2, abs=1e-9)

    made = [system for system in points if system not in ("careful", "hasty", "found")]
    x, y = ([world[system] for system in made] for world in (simulated, people))
    assert len(made) == len(points) - 3
    assert shown["learners"]["spearman"]["value"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert shown["labels"][0]["spearman"]["value"] == shown["learners"]["spearman"]["value"]
    assert {row[1] for row in shown["ablations"][0]["rows"]} == set(made) - {"base", "sft"}

    live = rates(study, "simulation", "live", "pool")
    for point in shown["validity"]["points"]:
        assert point["live"]["value"] == pytest.approx(live[point["system"]], abs=1e-12)
    crossed = rates(study, "simulation", "evaluation", "people")
    for row in shown["transfer"]:
        assert row["rate"]["value"] == pytest.approx(crossed[row["system"]], abs=1e-12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_curve_s_points_are_what_the_checkpoints_preferences_say(study: Path) -> None:
    shown = json.loads((study / "7-report" / "study.json").read_text())
    run_folder = study / "runs" / "people-0"
    [curve] = [one for one in shown["curves"] if one["family"] == "ppo" and one["judge"] == "people"]
    for point in curve["points"]:
        step = f"{int(point['progress']):04d}"
        judged = rows(run_folder / "3-annotate" / "curve" / "ppo" / f"{step}-people.jsonl")
        assert point["rate"]["value"] == pytest.approx(np.mean([CREDIT[row["preferred"]] for row in judged]), abs=1e-12)
        scores = rows(run_folder / "4-learn" / "curve" / "ppo" / f"{step}.jsonl")
        assert point["proxy"] == pytest.approx(np.mean([row["value"] for row in scores]), abs=1e-12)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_amid_a_study_with_four_workers_change_no_number(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    moments = random.Random(5)
    command = [sys.executable, "-m", "pasture", "run", str(STUDY), *TINY_STUDY, "--out", str(out), "-j", "4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills = 0
    for _ in range(6):
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + moments.uniform(12, 30)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    done = run_study(out, 4)
    assert done.returncode == 0, done.stderr
    quiet, survived = results(study), results(out)
    both = {name for name in quiet if not name.startswith((".locks", "7-report"))}
    assert both <= set(survived)
    assert [name for name in sorted(both) if survived[name] != quiet[name]] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_method_s_setting_reruns_its_branch_alone(study: Path) -> None:
    done = run("run", str(STUDY), *TINY_STUDY, "learn.best_of_4.n=2", "--update", "--out", str(study), "-j", "2")
    assert done.returncode == 0, done.stderr
    redone = {line.split()[1].rpartition("-")[0] for line in done.stdout.splitlines() if line.endswith("…")}
    assert redone == {
        "steps/2-generate/evaluation/best_of_4",
        "steps/2-generate/live/best_of_4",
        "steps/4-learn/best_of_4",
        "steps/4-learn/live/best_of_4",
        "steps/3-annotate/evaluation/best_of_4",
        "steps/3-annotate/live/best_of_4",
        "steps/5-evaluate/board",
        "steps/5-evaluate/live",
        "6",  # 6-validate/study
        "7",  # 7-report
    }
