"""Curves of over-optimization say what the files they are made from say."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from pasture.core.files import write_json_lines, write_records
from pasture.core.ports import silent
from pasture.core.records import Completion, Instruction, Preference, Score, Verdict
from pasture.steps import Task
from pasture.steps.curves import of_best_of_n, of_checkpoints

INSTRUCTIONS = [
    Instruction(id=f"i{number}", instruction=f"say {number}", source="x", split="validation") for number in range(3)
]


def _answers(path: Path, count: int) -> list[Completion]:
    answers = [
        Completion(instruction_id=one.id, text=f"answer {seed}", system="s", seed=seed)
        for one in INSTRUCTIONS
        for seed in range(count)
    ]
    write_records(path, answers)
    return answers


def _labels(path: Path, verdicts: list[Verdict], *, each: int = 1) -> None:
    """Labels of comparisons in their order, `each` of one after the other."""
    labels = [
        Preference(
            comparison_id=str(number // each),
            annotator="a",
            preferred=verdict,
            cost_usd=0.0,
            error="no reply" if verdict == "unjudged" else None,
        )
        for number, verdict in enumerate(verdicts)
    ]
    write_records(path, labels)


def _scores(path: Path, answers: list[Completion], values: list[float]) -> None:
    write_records(
        path,
        [
            Score(instruction_id=one.instruction_id, system="s", seed=one.seed, scorer="rm", value=value)
            for one, value in zip(answers, values, strict=True)
        ],
    )


@pytest.fixture
def task(tmp_path: Path) -> Task:
    roles = ("data", "answers", "judged", "scored", "drift", "out")
    folders = {role: tmp_path / role for role in roles}
    for folder in folders.values():
        folder.mkdir()
    write_records(folders["data"] / "validation.jsonl", INSTRUCTIONS)
    settings = {"system": "s", "progress": "step", "judges": ["people"]}
    return Task(folders.pop("out"), folders, settings, silent)


def _rows(task: Task, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (task.folder / name).read_text().splitlines()]


def test_best_of_n_is_the_mean_over_all_subsets(task: Task) -> None:
    answers = _answers(task.inputs["answers"] / "completions.jsonl", 4)
    rng = np.random.default_rng(3)
    scores = rng.normal(size=12).tolist()
    wins = rng.integers(0, 2, size=12).tolist()
    _scores(task.inputs["scored"] / "completions.jsonl", answers, scores)
    _labels(task.inputs["judged"] / "completions-people.jsonl", ["second" if win else "first" for win in wins])
    of_best_of_n(task)
    found = {row["progress"]: row for row in _rows(task, "points.jsonl")}
    assert list(found) == [1, 2, 4]
    for n, row in found.items():
        # By brute force: every subset of n answers, its best by score, what that one earned.
        rates, proxies = [], []
        for start in range(0, 12, 4):
            subsets = list(combinations(range(start, start + 4), int(str(n))))
            best = [max(subset, key=lambda at: scores[at]) for subset in subsets]
            rates.append(np.mean([wins[at] for at in best]))
            proxies.append(np.mean([scores[at] for at in best]))
        assert row["rate"] == pytest.approx(np.mean(rates), abs=1e-12)
        assert row["proxy"] == pytest.approx(np.mean(proxies), abs=1e-12)
        assert row["kl"] == pytest.approx(np.log(float(str(n))) - (float(str(n)) - 1) / float(str(n)), abs=1e-12)


def test_an_unjudged_candidate_is_left_out_as_if_it_had_never_been_drawn(task: Task) -> None:
    answers = _answers(task.inputs["answers"] / "completions.jsonl", 3)
    _scores(task.inputs["scored"] / "completions.jsonl", answers, [1.0, 2.0, 3.0] * 3)
    _labels(
        task.inputs["judged"] / "completions-people.jsonl",
        ["second", "first", "second", "second", "first", "unjudged", "unjudged", "unjudged", "unjudged"],
    )
    outcome = of_best_of_n(task)
    # By hand. One of the first three wins two times in three, one of the second's two judged ones every other time;
    # of two, the first's best is its third candidate in two of three subsets and the lost second in the other.
    assert [row["credit"] for row in _rows(task, "outcomes.jsonl")] == [
        [pytest.approx(2 / 3), 0.5, None],
        [pytest.approx(2 / 3), 0.0, None],
    ]
    assert [(row["judged"], row["asked"]) for row in _rows(task, "points.jsonl")] == [(2, 3), (2, 3)]
    assert outcome.details["unjudged"] == 4


def test_an_instruction_has_no_best_of_more_than_were_judged(task: Task) -> None:
    answers = _answers(task.inputs["answers"] / "completions.jsonl", 2)
    _scores(task.inputs["scored"] / "completions.jsonl", answers, [1.0, 2.0] * 3)
    _labels(
        task.inputs["judged"] / "completions-people.jsonl",
        ["second", "second", "unjudged", "first", "first", "first"],
    )
    of_best_of_n(task)
    assert [row["credit"] for row in _rows(task, "outcomes.jsonl")] == [[1.0, 0.0, 0.0], [1.0, None, 0.0]]


def test_two_people_s_labels_of_a_candidate_count_by_their_mean(task: Task) -> None:
    answers = _answers(task.inputs["answers"] / "completions.jsonl", 2)
    _scores(task.inputs["scored"] / "completions.jsonl", answers, [1.0, 2.0] * 3)
    said: list[Verdict] = ["second", "first", "second", "tie", "first", "first"]
    _labels(task.inputs["judged"] / "completions-people.jsonl", said * 2, each=2)
    of_best_of_n(task)
    # By hand: the six candidates earn 1/2, 3/4, 0 and again; of two, each instruction's second is the best by score.
    first, second = ([row["credit"] for row in _rows(task, "outcomes.jsonl")][at] for at in (0, 1))
    assert first == [0.625, 0.25, 0.375]
    assert second == [0.75, 0.5, 0.0]


def _way(task: Task, verdicts: dict[int, list[Verdict]], *, each: int = 1) -> list[dict[str, object]]:
    """The points of a method that was judged so at these steps."""
    for step, said in verdicts.items():
        answers = _answers(task.inputs["answers"] / f"{step:04d}.jsonl", 1)
        _scores(task.inputs["scored"] / f"{step:04d}.jsonl", answers, [1.0] * 3)
        _labels(task.inputs["judged"] / f"{step:04d}-people.jsonl", said, each=each)
    drifts: list[dict[str, object]] = [{"progress": step, "kl": 0.1 * step} for step in verdicts]
    write_json_lines(task.inputs["drift"] / "drift.jsonl", drifts)
    of_checkpoints(task)
    return _rows(task, "points.jsonl")


def test_steps_of_five_digits_come_after_those_of_four(task: Task) -> None:
    points = _way(task, {step: ["second", "tie", "first"] for step in (0, 2000, 10000)})
    assert [row["progress"] for row in points] == [0, 2000, 10000]


def test_a_place_has_no_rate_without_a_judgement_and_no_error_with_one_alone(task: Task) -> None:
    points = _way(task, {0: ["unjudged"] * 3, 2: ["second", "unjudged", "unjudged"], 4: ["second", "tie", "unjudged"]})
    # Of 1 and 1/2 the standard deviation with n - 1 is 1 / (2 sqrt 2), over sqrt 2 it is 1/4.
    assert [(row["rate"], row["standard_error"], row["judged"]) for row in points] == [
        (None, None, 0),
        (1.0, None, 1),
        (0.75, pytest.approx(0.25), 2),
    ]


def test_all_labels_of_a_checkpoint_s_answers_count_not_the_first_alone(task: Task) -> None:
    said: list[Verdict] = ["first", "second", "first", "tie", "unjudged", "second"]
    [point] = _way(task, {2: said}, each=2)
    # By hand: 1/2, 1/4, and 1 where one of two gave no verdict.
    assert _rows(task, "outcomes.jsonl")[0]["credit"] == [0.5, 0.25, 1.0]
    assert (point["rate"], point["judged"], point["asked"]) == (pytest.approx(1.75 / 3), 3, 3)


def test_a_checkpoint_stands_beside_its_own_drift(task: Task) -> None:
    for step, score in ((0, -1.0), (2, 0.5), (4, 1.5)):
        answers = _answers(task.inputs["answers"] / f"{step:04d}.jsonl", 1)
        _scores(task.inputs["scored"] / f"{step:04d}.jsonl", answers, [score] * 3)
        _labels(task.inputs["judged"] / f"{step:04d}-people.jsonl", ["second", "tie", "first"])
    drifts: list[dict[str, object]] = [{"progress": step, "kl": 0.1 * step} for step in (0, 2, 4)]
    write_json_lines(task.inputs["drift"] / "drift.jsonl", drifts)
    of_checkpoints(task)
    found = _rows(task, "points.jsonl")
    assert [(row["progress"], row["proxy"], row["rate"]) for row in found] == [
        (0, -1.0, 0.5),
        (2, 0.5, 0.5),
        (4, 1.5, 0.5),
    ]
    assert [row["kl"] for row in found] == [0.0, pytest.approx(0.2), pytest.approx(0.4)]
    assert {row["progress_name"] for row in found} == {"step"}


def test_answers_out_of_order_are_a_defect_and_no_curve(task: Task) -> None:
    answers = _answers(task.inputs["answers"] / "completions.jsonl", 1)[::-1]
    write_records(task.inputs["answers"] / "completions.jsonl", answers)
    _scores(task.inputs["scored"] / "completions.jsonl", answers, [1.0] * 3)
    _labels(task.inputs["judged"] / "completions-people.jsonl", ["first"] * 3)
    with pytest.raises(ValueError, match="order"):
        of_best_of_n(task)
