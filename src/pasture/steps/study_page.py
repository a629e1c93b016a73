"""The step that puts a study on one page, and sums it up for the terminal."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from pasture.core.files import write_text
from pasture.core.run_folder import STEP_FILE
from pasture.plan import run_name
from pasture.recipe import Study
from pasture.report.content import Column, Figure, StepCost, Table
from pasture.report.study import write_study
from pasture.report.study_content import StudyContent
from pasture.report.study_summary import summary_text
from pasture.steps import Outcome, Task
from pasture.steps.evaluate import judge_title, judges_in
from pasture.steps.judged import credit_of, judged_systems
from pasture.steps.report import annotator_tables, facts, own_words, progress_names, samples, testbed
from pasture.steps.study import (
    CURVES,
    FEEDBACK,
    LEARNERS,
    NOISE,
    RANKING,
    STYLES,
    TRANSFER,
    VALIDITY,
    alone,
)
from pasture.steps.study_differences import differences
from pasture.steps.training_curves import study_figure, trainings
from pasture.validate.cost import LedgerEntry, study_cost

SUMMARY = "summary.txt"


def page(task: Task) -> Outcome:
    """Write `index.html`, its content as JSON, every figure as SVG, PNG and CSV, and `summary.txt`."""
    recipe = task.settings["recipe"]
    study = Study.model_validate(recipe["study"])
    first = alone(task, run_name(study.simulation, study.seeds[0]))
    ledger = _ledger(task)
    content = StudyContent.model_validate(
        {
            "title": recipe.get("title") or recipe["name"],
            "testbed": testbed(recipe),
            "reference": recipe["evaluate"]["reference"],
            **{name: _found(task, "study", file) for name, file in _FILES.items()},
            "differences": differences(task, study),
            "training": _training(task, study),
            "noise": _found(task, "noise", NOISE),
            "annotators": annotator_tables(first),
            "labels": _found(task, "study", FEEDBACK),
            "ablations": _ablations(task, study),
            "selection": _selection(task),
            "cost": study_cost(list(ledger.values())).to_dict(),
            "costs": [
                StepCost(step=entry.step, seconds=entry.seconds, cost_usd=entry.cost_usd) for entry in ledger.values()
            ],
            "samples": samples(first),
            "facts": facts(recipe),
            "words": own_words(recipe),
            "recipe": tomli_w.dumps(recipe),
        }
    )
    write_study(content, task.folder)
    write_text(task.folder / SUMMARY, summary_text(content))
    return Outcome(details={"runs": len({role.partition("/")[0] for role in task.inputs}) - 2})


_FILES = {
    "ranking": RANKING,
    "learners": LEARNERS,
    "curves": CURVES,
    "styles": STYLES,
    "validity": VALIDITY,
    "transfer": TRANSFER,
}
"""Files of the analyses by the part of the page that shows them."""


def _found(task: Task, role: str, file: str) -> Any:
    return json.loads((task.inputs[role] / file).read_text(encoding="utf-8"))


def _training(task: Task, study: Study) -> Figure | None:
    """How the trainings of each arm's first run went."""
    by_arm = {arm: trainings(alone(task, run_name(arm, study.seeds[0])).inputs) for arm in study.arms}
    return study_figure(by_arm, progress_names(task.settings["recipe"]))


def _ledger(task: Task) -> Mapping[Path, LedgerEntry]:
    """Each step once, however many runs share it."""
    entries = {}
    for role, folder in task.inputs.items():
        if folder not in entries:
            record = json.loads((folder / STEP_FILE).read_text(encoding="utf-8"))
            labels = _asked(record["details"]) if "/3-annotate/" in role else 0
            entries[folder] = LedgerEntry(role, record["seconds"], record["cost_usd"], labels)
    return entries


def _asked(details: Mapping[str, Any]) -> int:
    """Labels that a step asked for: its own count, or one for each of several judges."""
    if "asked" in details:
        return int(details["asked"])
    return sum(int(judge["asked"]) for judge in details.values() if isinstance(judge, Mapping) and "asked" in judge)


def _ablations(task: Task, study: Study) -> tuple[Table, ...]:
    """Every arm's systems by every judge: what becomes of a method under other labels."""
    rows: list[tuple[str | float | None, ...]] = []
    judges: list[str] = []
    unlabeled = {"base", "sft", *task.settings["recipe"]["baselines"]}
    for arm in study.arms:
        for system, folder in judged_systems(task, run_name(arm, study.seeds[0]), "evaluation").items():
            judges = judges or judges_in(folder)
            if system not in unlabeled:
                rates = [float(credit_of(folder, judge).mean()) for judge in judges]
                rows.append((study.arms[arm].title or arm, system, *rates))
    return (
        Table(
            title="The same methods under other labels",
            caption="Win rates on the evaluation set; the first run of each arm. Judges carry no added noise.",
            columns=(
                Column(title="Learned from"),
                Column(title="System"),
                *(Column(title=f"Judged by {judge_title(judge)}", format="percent") for judge in judges),
            ),
            rows=tuple(rows),
        ),
    )


def _selection(task: Task) -> tuple[Table, ...]:
    """Which step of each training was picked, and where."""
    rows: list[tuple[str | float | None, ...]] = []
    for role, folder in task.inputs.items():
        run, _, step = role.partition("/")
        if step.startswith("5-evaluate/selection/"):
            picked = json.loads((folder / "selection.json").read_text(encoding="utf-8"))
            answered = sum(
                other.startswith(f"{run}/2-generate/evaluation/{step.rsplit('/', 1)[1]}") for other in task.inputs
            )
            rows.append((run, step.rsplit("/", 1)[1], picked["step"], picked["split"], picked["win_rate"], answered))
    return (
        Table(
            title="Steps that were picked",
            caption="On the validation split, by the simulated annotators without noise. The evaluation set is "
            "answered once by each system that is reported.",
            columns=(
                Column(title="Run"),
                Column(title="System"),
                Column(title="Step", format="count"),
                Column(title="Picked on"),
                Column(title="Win rate there", format="percent"),
                Column(title="Answers to the evaluation set", format="count"),
            ),
            rows=tuple(rows),
        ),
    )
