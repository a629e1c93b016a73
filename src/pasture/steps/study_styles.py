"""How long the answers of a study are, how many hold lists, what of a gain goes with length: at the end, on the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pasture.core.files import read_records
from pasture.core.records import Comparison, Completion
from pasture.plan import run_name
from pasture.recipe import Study
from pasture.steps import Task
from pasture.steps.judged import credit_of, judged_systems
from pasture.validate.style import Answers, style

BASELINE = "sft"


def styles(task: Task, study: Study, arm: str) -> Iterator[dict[str, Any]]:
    """Of an arm's first run: its systems on the evaluation set, and its checkpoints on the validation split."""
    judge, seed = study.arms[arm].judge, task.settings["seed"]
    run, title = run_name(arm, study.seeds[0]), f"trained on {study.arms[arm].title or arm}, judged by {judge}"
    answers = {
        system: _systems_answers(system, folder, judge)
        for system, folder in judged_systems(task, run, "evaluation").items()
    }
    found = style(list(answers.values()), answers[BASELINE], seed)
    yield {"title": title, "baseline": BASELINE, "styles": [one.to_dict() for one in found]}
    on_the_way = [style(way, way[0], seed) for way in _ways(task, run, judge)]
    if on_the_way:
        rows = [one.to_dict() for way in on_the_way for one in way]
        yield {"title": f"{title}, on the validation split", "baseline": "step 0", "styles": rows}


def _systems_answers(system: str, folder: Path, judge: str) -> Answers:
    texts = [comparison.second.text for comparison in read_records(folder / "comparisons.jsonl", Comparison)]
    return Answers.of(system, texts, credit_of(folder, judge))


def _ways(task: Task, run: str, judge: str) -> Iterator[list[Answers]]:
    """The answers of each method's checkpoints, the model that it began with first."""
    for system, judged in judged_systems(task, run, "curve").items():
        files = sorted(task.inputs[f"{run}/2-generate/validation/{system}"].glob("[0-9]*.jsonl"))
        way = []
        for file in files:
            texts = [completion.text for completion in read_records(file, Completion)]
            way.append(Answers.of(system, texts, credit_of(judged, f"{file.stem}-{judge}"), float(file.stem)))
        if way:
            yield way
