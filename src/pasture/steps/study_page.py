"""The step that puts a study on one page, and sums it up for the terminal."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from pasture.core.files import write_text
from pasture.core.run_folder import STEP_FILE
from pasture.plan import BOARD, run_name
from pasture.recipe import Study
from pasture.report.content import Column, Figure, StepCost, Table
from pasture.report.study import write_study
from pasture.report.study_content import StudyContent
from pasture.report.study_summary import summary_text
from pasture.steps import Outcome, Task
from pasture.steps.judge_titles import judge_title, judges_in, selecting_judge
from pasture.steps.judged import credit_of, judged_systems
from pasture.steps.report import annotator_tables, board_warnings, facts, own_words, progress_names, samples, testbed
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
    unjudged_systems,
    ways,
)
from pasture.steps.study_differences import differences
from pasture.steps.training_curves import study_figure, trainings
from pasture.steps.ways import unjudged_places
from pasture.validate.cost import LedgerEntry, study_cost

SUMMARY = "summary.txt"
_LABELLING, _LEARNING = "/3-annotate/", "/4-learn/"


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
            "warnings": _warnings(task, study),
            "reference": recipe["evaluate"]["reference"],
            **{name: _found(task, "study", file) for name, file in _FILES.items()},
            "differences": differences(task, study),
            "training": _training(task, study),
            "noise": _found(task, "noise", NOISE) if "noise" in task.inputs else (),
            "annotators": annotator_tables(first),
            "labels": _found(task, "study", FEEDBACK),
            "ablations": _ablations(task, study),
            "selection": _selection(task, study),
            "cost": study_cost([part for entry in ledger.values() for part in _labels_apart(entry)]).to_dict(),
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
    return Outcome(details={"runs": len({role.partition("/")[0] for role in task.inputs if "/" in role})})


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
            labels = _asked(record["details"]) if any(room in role for room in (_LABELLING, _LEARNING)) else 0
            entries[folder] = LedgerEntry(role, record["seconds"], record["cost_usd"], labels)
    return entries


def _asked(details: Mapping[str, Any]) -> int:
    """Labels that a step asked for: its own count, or one for each of several judges."""
    if "asked" in details:
        return int(details["asked"])
    return sum(int(judge["asked"]) for judge in details.values() if isinstance(judge, Mapping) and "asked" in judge)


def _labels_apart(entry: LedgerEntry) -> list[LedgerEntry]:
    """A training that asks an annotator as two entries: its labels with their price, and its time, which holds theirs.

    With people in the annotator's place there would still be all of the training.
    """
    if _LEARNING not in entry.step or entry.label_count == 0:
        return [entry]
    return [replace(entry, seconds=0.0), replace(entry, cost_usd=0.0, label_count=0)]


def _warnings(task: Task, study: Study) -> list[str]:
    """What is missing since none of it was judged, systems and places on curves; what the boards of the runs say."""
    systems = [
        f"{system}, trained on {arm.title or name}: {arm.judge} judged none of its answers to the {split} set, so it "
        "is left out of what compares systems there."
        for name, arm in study.arms.items()
        for split in ("evaluation", "live")
        for system in unjudged_systems(task, study, name, split)
    ]
    places = [
        f"{way.family}, trained on {way.feedback}, judged by {way.judge}: {unjudged_places(way)}"
        for way in ways(task, study)
        if way.unjudged
    ]
    runs = [run_name(arm, seed) for arm in study.arms for seed in study.seeds]
    boards = [
        f"{run}: {warning}"
        for run in runs
        if f"{run}/{BOARD}" in task.inputs
        for warning in board_warnings(alone(task, run))
    ]
    return systems + places + boards


def _ablations(task: Task, study: Study) -> tuple[Table, ...]:
    """Every arm's systems by every judge: what becomes of a method under other labels."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    unlabeled = {"base", "sft", *task.settings["recipe"]["baselines"]}
    for arm in study.arms:
        for system, folder in judged_systems(task, run_name(arm, study.seeds[0]), "evaluation").items():
            if system not in unlabeled:
                credit = {judge: credit_of(folder, judge) for judge in judges_in(folder)}
                found.append((study.arms[arm].title or arm, system, credit))
    if not found:
        return ()
    judges = list(dict.fromkeys(judge for _, _, credit in found for judge in credit))
    partly = [judge for judge in judges if any(np.isnan(credit.get(judge, 0.0)).any() for _, _, credit in found)]
    told = " Rates are means over what was judged." if partly else ""
    return (
        Table(
            title="The same methods under other labels",
            caption=f"Win rates on the evaluation set; the first run of each arm. Judges carry no added noise.{told}",
            columns=(
                Column(title="Learned from"),
                Column(title="System"),
                *(Column(title=f"Judged by {judge_title(judge)}", format="percent") for judge in judges),
                *(Column(title=f"Unjudged by {judge_title(judge)}", format="count") for judge in partly),
            ),
            rows=tuple(
                (
                    title,
                    system,
                    *(_rate(credit[judge]) if judge in credit else None for judge in judges),
                    *(float(np.isnan(credit[judge]).sum()) if judge in credit else None for judge in partly),
                )
                for title, system, credit in found
            ),
        ),
    )


def _rate(credit: Any) -> float | None:
    """The mean over what was judged; None where nothing was."""
    judged = credit[np.isfinite(credit)]
    return float(judged.mean()) if len(judged) else None


def _selection(task: Task, study: Study) -> tuple[Table, ...]:
    """Which step of each training was picked, where, and by whom."""
    rows: list[tuple[str | float | None, ...]] = []
    pickers = []
    for role, folder in task.inputs.items():
        run, _, step = role.partition("/")
        if step.startswith("5-evaluate/selection/"):
            system = step.rsplit("/", 1)[1]
            picked = json.loads((folder / "selection.json").read_text(encoding="utf-8"))
            answered = float(f"{run}/2-generate/evaluation/{system}" in task.inputs)
            rows.append((run, system, picked["step"], picked["split"], picked["win_rate"], answered))
            pickers.append(selecting_judge(task.settings["recipe"], study.arms[run.rpartition("-")[0]].change))
    if not rows:
        return ()
    alike = len(set(pickers)) == 1
    return (
        Table(
            title="Steps that were picked",
            caption=f"On the validation split{f', by {pickers[0]}' if alike else ''}. The evaluation set is answered "
            "once by each system that is reported.",
            columns=(
                Column(title="Run"),
                Column(title="System"),
                Column(title="Step", format="count"),
                Column(title="Picked on"),
                Column(title="Win rate there", format="percent"),
                Column(title="Answers to the evaluation set", format="count"),
                *([] if alike else [Column(title="Picked by")]),
            ),
            rows=tuple(rows if alike else ((*row, who) for row, who in zip(rows, pickers, strict=True))),
        ),
    )
