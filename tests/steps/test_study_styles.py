"""Lengths by system and by step are those of the answers in the files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasture.core.files import write_records
from pasture.core.ports import silent
from pasture.core.records import Comparison, Completion, Instruction, Preference, Verdict
from pasture.core.sections import check_section
from pasture.recipe import Study
from pasture.steps import Task
from pasture.steps.study_styles import styles

STUDY = check_section(Study, {"arms": {"simulation": {}, "people": {"title": "folk", "judge": "people"}}}, "study.toml")
COUNT = 40


def _answers(system: str, words: int) -> list[Completion]:
    """Answers around so many words of two letters, some shorter and some longer."""
    return [
        Completion(instruction_id=f"i{number}", text="ab " * (words + number % 5), system=system, seed=0)
        for number in range(COUNT)
    ]


def _labels(path: Path, wins: int) -> None:
    verdicts: list[Verdict] = ["second" if number < wins else "first" for number in range(COUNT)]
    rows = [Preference(comparison_id=str(n), annotator="a", preferred=one) for n, one in enumerate(verdicts)]
    write_records(path, rows)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    inputs = {}
    for system, words, wins in (("base", 9, 10), ("sft", 8, 12), ("ppo", 16, 30)):
        folder = inputs[f"people-0/3-annotate/evaluation/{system}"] = tmp_path / "evaluation" / system
        comparisons = [
            Comparison.of(
                Instruction(id=f"i{number}", instruction="say", source="x", split="evaluation"),
                Completion(instruction_id=f"i{number}", text="reference", system="demonstrations", seed=0),
                answer,
            )
            for number, answer in enumerate(_answers(system, words))
        ]
        write_records(folder / "comparisons.jsonl", comparisons)
        _labels(folder / "people.jsonl", wins)
    drawn = inputs["people-0/2-generate/validation/ppo"] = tmp_path / "validation"
    judged = inputs["people-0/3-annotate/curve/ppo"] = tmp_path / "curve"
    for step, words, wins in ((0, 8, 12), (5, 12, 20), (10, 16, 24)):
        write_records(drawn / f"{step:04d}.jsonl", _answers("ppo", words))
        _labels(judged / f"{step:04d}-people.jsonl", wins)
    return Task(tmp_path, inputs, {"seed": 0}, silent)


def _mean_length(words: int) -> float:
    return float(np.mean([len("ab " * (words + number % 5)) for number in range(COUNT)]))


def test_systems_stand_beside_the_sft_model_and_checkpoints_beside_the_first_step(task: Task) -> None:
    at_the_end, on_the_way = styles(task, STUDY, "people")
    assert (at_the_end["title"], at_the_end["baseline"]) == ("trained on folk, judged by people", "sft")
    found = {row["system"]: row for row in at_the_end["styles"]}
    assert list(found) == ["base", "sft", "ppo"]
    assert found["sft"]["gain"]["value"] == 0
    assert found["sft"]["mean_length"]["value"] == pytest.approx(_mean_length(8))
    assert found["ppo"]["mean_length"]["value"] == pytest.approx(_mean_length(16))
    assert found["ppo"]["gain"]["value"] == pytest.approx((30 - 12) / COUNT)
    steps = {row["step"]: row for row in on_the_way["styles"]}
    assert [(step, row["mean_length"]["value"]) for step, row in steps.items()] == [
        (step, pytest.approx(_mean_length(words))) for step, words in ((0.0, 8), (5.0, 12), (10.0, 16))
    ]
    assert steps[10.0]["gain"]["value"] == pytest.approx((24 - 12) / COUNT)


def _checkpoint(task: Task, step: int, words: int, wins: int) -> None:
    write_records(task.inputs["people-0/2-generate/validation/ppo"] / f"{step:04d}.jsonl", _answers("ppo", words))
    _labels(task.inputs["people-0/3-annotate/curve/ppo"] / f"{step:04d}-people.jsonl", wins)


def test_checkpoints_stand_in_the_order_of_their_steps(task: Task) -> None:
    _checkpoint(task, 10000, 20, 24)
    _checkpoint(task, 2000, 18, 24)
    *_, on_the_way = styles(task, STUDY, "people")
    assert [row["step"] for row in on_the_way["styles"]] == [0.0, 5.0, 10.0, 2000.0, 10000.0]


def test_a_checkpoint_that_nobody_judged_is_left_out_and_counted(task: Task) -> None:
    rows = [Preference(comparison_id=str(n), annotator="a", preferred="unjudged", error="?") for n in range(COUNT)]
    write_records(task.inputs["people-0/3-annotate/curve/ppo"] / "0005-people.jsonl", rows)
    *_, on_the_way = styles(task, STUDY, "people")
    assert [row["step"] for row in on_the_way["styles"]] == [0.0, 10.0]
    assert on_the_way["title"] == (
        "trained on folk, judged by people, on the validation split (1 left out, judged on no instruction in common "
        "with step 0)"
    )


def test_systems_stand_beside_the_start_where_none_is_fine_tuned(task: Task) -> None:
    inputs = {role: path for role, path in task.inputs.items() if not role.endswith("/sft")}
    at_the_end, _ = styles(replace(task, inputs=inputs), STUDY, "people")
    gains = {row["system"]: row["gain"]["value"] for row in at_the_end["styles"]}
    assert at_the_end["baseline"] == "base"
    assert gains == {"base": 0.0, "ppo": pytest.approx((30 - 10) / COUNT)}
