"""How long the answers of a study are, how many hold lists, what of a gain goes with length: at the end, on the way."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pasture.core.files import read_records
from pasture.core.records import Comparison, Completion
from pasture.plan import run_name
from pasture.recipe import Study
from pasture.steps import Task
from pasture.steps.judged import credit_of, judged_systems
from pasture.validate.style import Answers, style

BASELINES = ("sft", "base")
"""What systems are set beside: the SFT model, or the model to start from where none is fine-tuned."""


def styles(task: Task, study: Study, arm: str) -> Iterator[dict[str, Any]]:
    """Of an arm's first run: its systems on the evaluation set, and its checkpoints on the validation split."""
    judge, seed = study.arms[arm].judge, task.settings["seed"]
    run, title = run_name(arm, study.seeds[0]), f"trained on {study.arms[arm].title or arm}, judged by {judge}"
    answers = {
        system: _systems_answers(system, folder, judge)
        for system, folder in judged_systems(task, run, "evaluation").items()
    }
    baseline = next(system for system in BASELINES if system in answers)
    yield _world(title, baseline, [(list(answers.values()), answers[baseline])], seed)
    ways = [(way, way[0]) for way in _ways(task, run, judge)]
    if ways:
        yield _world(f"{title}, on the validation split", "step 0", ways, seed)


def _world(title: str, baseline: str, groups: Sequence[tuple[Sequence[Answers], Answers]], seed: int) -> dict[str, Any]:
    """Each group of answers beside those of its baseline; what has no judged instruction in common is counted."""
    rows, left_out = [], 0
    for answers, first in groups:
        beside = [one for one in answers if np.isfinite(one.credit - first.credit).any()]
        left_out += len(answers) - len(beside)
        rows += [found.to_dict() for found in style(beside, first, seed)]
    told = f"{title} ({left_out} left out, judged on no instruction in common with {baseline})" if left_out else title
    return {"title": told, "baseline": baseline, "styles": rows}


def _systems_answers(system: str, folder: Path, judge: str) -> Answers:
    texts = [comparison.second.text for comparison in read_records(folder / "comparisons.jsonl", Comparison)]
    return Answers.of(system, texts, credit_of(folder, judge))


def _ways(task: Task, run: str, judge: str) -> Iterator[list[Answers]]:
    """The answers of each method's checkpoints, the model that it began with first."""
    for system, judged in judged_systems(task, run, "curve").items():
        folder = task.inputs[f"{run}/2-generate/validation/{system}"]
        files = sorted(folder.glob("[0-9]*.jsonl"), key=lambda file: int(file.stem))
        way = []
        for file in files:
            texts = [completion.text for completion in read_records(file, Completion)]
            way.append(Answers.of(system, texts, credit_of(judged, f"{file.stem}-{judge}"), float(file.stem)))
        if way:
            yield way
