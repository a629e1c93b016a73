"""No step leaves its annotators open: what they hold, a store and perhaps a model, is free for the next step."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pasture.core.errors import EngineError
from pasture.core.files import write_records
from pasture.core.ports import silent
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.steps import Outcome, Task, annotate, learn
from pasture.steps.annotate import judge_checkpoints, judge_curve, judge_system, label

INSTRUCTIONS = [
    Instruction(id=f"i{number}", instruction=f"say {number}", source="x", split="validation") for number in range(2)
]
FILES = ("0001.jsonl", "0002.jsonl", "completions.jsonl")
"""Two checkpoints' answers, and a system's, which the steps of checkpoints take for a third."""


class RecordingPool:
    """Prefers the first, and records when it was asked and closed."""

    def __init__(self, name: str, events: list[str], breaks: bool) -> None:
        self._name, self._events, self._breaks = name, events, breaks

    @property
    def identity(self) -> Mapping[str, object]:
        return {"annotator": self._name}

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        self._events.append(f"{self._name} asked")
        if self._breaks:
            raise EngineError("nobody answers")
        return [Preference(comparison_id=one.id, annotator=self._name, preferred="first") for one in comparisons]

    def close(self) -> None:
        self._events.append(f"{self._name} closed")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Put recording pools in the place of all annotators, and hear what becomes of them."""

    def put(*, breaks: bool = False) -> list[str]:
        events: list[str] = []
        monkeypatch.setattr(annotate, "named_annotator", lambda name, own, **_: RecordingPool(name, events, breaks))
        return events

    return put


def _answers(system: str) -> list[Completion]:
    return [Completion(instruction_id=one.id, text=f"{system} {one.id}", system=system, seed=0) for one in INSTRUCTIONS]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    folders = {role: tmp_path / role for role in ("data", "answers", "pairs", "model", "out")}
    for folder in folders.values():
        folder.mkdir()
    for split in ("validation", "unlabeled"):
        write_records(folders["data"] / f"{split}.jsonl", INSTRUCTIONS)
        write_records(folders["data"] / f"{split}-demonstrations.jsonl", _answers("reference"))
    for name in FILES:
        write_records(folders["answers"] / name, _answers(name))
    pairs = [Comparison.of(one, *sides) for one, *sides in zip(INSTRUCTIONS, _answers("a"), _answers("b"), strict=True)]
    write_records(folders["pairs"] / "comparisons.jsonl", pairs)
    settings: dict[str, Any] = {"annotator": "one", "seed": 0, "label_flip_probability": 0.0, "split": "validation"}
    settings |= {"judges": ["one", "two"], "people_votes": 1, "own": {"one": {}, "two": {}}}
    return Task(folders.pop("out"), folders, settings, silent)


def _labelling(task: Task) -> Task:
    return Task(task.folder, task.inputs, {**task.settings, "own": {}}, silent)


def test_a_step_that_labels_closes_its_annotator(task: Task, use: Callable[..., list[str]]) -> None:
    events = use()
    label(_labelling(task))
    assert events == ["one asked", "one closed"]


def test_one_annotator_judges_all_checkpoints_and_is_closed(task: Task, use: Callable[..., list[str]]) -> None:
    events = use()
    judge_checkpoints(_labelling(task))
    assert events == ["one asked"] * len(FILES) + ["one closed"]


def test_the_judges_of_a_curve_stay_open_until_its_end(task: Task, use: Callable[..., list[str]]) -> None:
    events = use()
    judge_curve(task)
    assert events[: 2 * len(FILES)] == ["one asked", "two asked"] * len(FILES)
    assert sorted(events[2 * len(FILES) :]) == ["one closed", "two closed"]


def test_a_judge_of_a_system_is_closed_before_the_next_is_asked(task: Task, use: Callable[..., list[str]]) -> None:
    events = use()
    judge_system(task)
    # Two judges with a model each would not fit on one card together.
    assert events == ["one asked", "one closed", "two asked", "two closed"]


@pytest.mark.parametrize("step", [label, judge_checkpoints, judge_curve, judge_system])
def test_a_step_that_raises_closes_its_annotators_all_the_same(
    task: Task, use: Callable[..., list[str]], step: Callable[[Task], Outcome]
) -> None:
    events = use(breaks=True)
    with pytest.raises(EngineError, match="nobody answers"):
        step(_labelling(task) if step in (label, judge_checkpoints) else task)
    assert events[:2] == ["one asked", "two closed" if step is judge_curve else "one closed"]
    assert "one closed" in events


@pytest.mark.parametrize("breaks", [False, True])
def test_a_training_that_asks_an_annotator_closes_it(
    task: Task, use: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    events = use(breaks=breaks)
    pairs = [Comparison.of(one, *sides) for one, *sides in zip(INSTRUCTIONS, _answers("a"), _answers("b"), strict=True)]

    def train(task: Task, *, environment: Any) -> Outcome:
        environment.annotator.annotate(pairs)
        return Outcome()

    monkeypatch.setattr(learn, "_train", train)
    told = {**task.settings, "own": {}, "method": "online_dpo", "template": "plain", "leave_out_long": False}
    learning = Task(task.folder, task.inputs, told, silent)
    if breaks:
        with pytest.raises(EngineError, match="nobody answers"):
            learn.from_judgements(learning)
    else:
        assert learn.from_judgements(learning).details["asked"] == len(pairs)
    assert events == ["one asked", "one closed"]


@pytest.mark.parametrize("step", [label, judge_checkpoints, judge_curve, judge_system])
def test_every_step_hands_its_run_s_ledgers_to_its_annotators(
    task: Task, monkeypatch: pytest.MonkeyPatch, step: Callable[[Task], Outcome], tmp_path: Path
) -> None:
    handed: list[Path | None] = []

    def named(name: str, own: Any, *, ledgers: Path | None, **_: Any) -> RecordingPool:
        handed.append(ledgers)
        return RecordingPool(name, [], breaks=False)

    monkeypatch.setattr(annotate, "named_annotator", named)
    asked = _labelling(task) if step in (label, judge_checkpoints) else task
    step(Task(asked.folder, asked.inputs, asked.settings, silent, ledgers=tmp_path / "spent"))
    assert handed
    assert set(handed) == {tmp_path / "spent"}
