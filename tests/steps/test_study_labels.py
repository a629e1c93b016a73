"""The row of the noise ablation says what the labels and the judgements say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pasture.core.files import write_records
from pasture.core.ports import silent
from pasture.core.records import Preference, Verdict
from pasture.core.sections import check_section
from pasture.recipe import Study
from pasture.steps import Task
from pasture.steps.study_labels import what_labels_do

STUDY = check_section(
    Study, {"arms": {"simulation": {"title": "noisy"}, "people": {"judge": "people"}}, "seeds": [0, 1]}, "study.toml"
)
RATES = {"base": 0.2, "sft": 0.3, "dpo": 0.5, "rloo": 0.6, "ppo": 0.8}


Labels = Mapping[str, Verdict | Sequence[Verdict]]
"""One label, or those of several people, by pair."""


def _labels(folder: Path, verdicts: Labels) -> Path:
    folder.mkdir(parents=True)
    rows = [
        Preference(comparison_id=pair, annotator="a", preferred=verdict, error="?" if verdict == "unjudged" else None)
        for pair, said in verdicts.items()
        for verdict in ((said,) if isinstance(said, str) else said)
    ]
    write_records(folder / "preferences.jsonl", rows)
    return folder


def _task(tmp_path: Path, own: Sequence[Labels], people: Sequence[Labels]) -> Task:
    inputs = {
        f"{arm}-{seed}/3-annotate/preference": _labels(tmp_path / f"{arm}-{seed}", labels)
        for arm, runs in (("simulation", own), ("people", people))
        for seed, labels in enumerate(runs)
    }
    return Task(tmp_path, inputs, {"seed": 0}, silent)


def _outcomes(seed: int, systems: dict[str, float]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: (rng.random((2, 200)) < rate).astype(np.float64) for name, rate in systems.items()}


def test_labels_are_compared_pair_by_pair_where_both_judged(tmp_path: Path) -> None:
    own: list[dict[str, Verdict]] = [{"a": "first", "b": "second", "c": "unjudged", "d": "tie"}, {"a": "first"}]
    people: list[dict[str, Verdict]] = [
        {"a": "first", "b": "first", "c": "first", "d": "tie"},
        {"a": "second", "z": "tie"},
    ]
    world = _outcomes(0, RATES)
    row = what_labels_do(_task(tmp_path, own, people), STUDY, "simulation", {"simulation": world, "people": world}, [])
    # By hand: a and d of seed 0 alike, b not; a of seed 1 not; c was not judged, z was asked of people alone.
    assert row["like_people"]["value"] == pytest.approx(2 / 4)
    assert row["feedback"] == "noisy"


def test_of_several_people_s_labels_of_a_pair_each_counts(tmp_path: Path) -> None:
    own: list[Labels] = [{"a": "first", "b": "second"}, {"a": "first"}]
    people: list[Labels] = [{"a": ["first", "second"], "b": ["second", "second"]}, {"a": ["unjudged", "unjudged"]}]
    world = _outcomes(0, RATES)
    row = what_labels_do(_task(tmp_path, own, people), STUDY, "simulation", {"simulation": world, "people": world}, [])
    # By hand: half of a's labels and all of b's agree; of seed 1 nobody's do.
    assert row["like_people"]["value"] == pytest.approx(3 / 4)


def test_the_ranking_is_that_of_the_systems_both_have(tmp_path: Path) -> None:
    own, people = _outcomes(1, {**RATES, "quark": 0.1}), _outcomes(2, RATES)
    both: list[dict[str, Verdict]] = [{"a": "first"}] * 2
    row = what_labels_do(_task(tmp_path, both, both), STUDY, "simulation", {"simulation": own, "people": people}, [])
    x, y = ([float(world[name].mean()) for name in RATES] for world in (own, people))
    assert row["system_count"] == 5
    assert row["spearman"]["value"] == pytest.approx(stats.spearmanr(x, y).statistic)


def test_people_are_not_compared_with_themselves_and_few_systems_are_not_ranked(tmp_path: Path) -> None:
    few = _outcomes(3, {"base": 0.2, "sft": 0.3, "ppo": 0.5})
    both: list[dict[str, Verdict]] = [{"a": "first"}] * 2
    task, worlds = _task(tmp_path, both, both), {"simulation": few, "people": few}
    assert what_labels_do(task, STUDY, "simulation", worlds, [])["spearman"] is None
    row = what_labels_do(task, STUDY, "people", worlds, [])
    assert (row["like_people"], row["spearman"]) == (None, None)


def test_an_arm_without_labels_of_pairs_is_like_nobody_s(tmp_path: Path) -> None:
    both: list[dict[str, Verdict]] = [{"a": "first"}] * 2
    task, world = _task(tmp_path, both, both), _outcomes(4, RATES)
    told = {role: folder for role, folder in task.inputs.items() if not role.startswith("simulation")}
    row = what_labels_do(replace(task, inputs=told), STUDY, "simulation", {"simulation": world, "people": world}, [])
    assert row["like_people"] is None
    assert row["system_count"] == len(RATES)
