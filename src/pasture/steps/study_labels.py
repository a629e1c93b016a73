"""What learning from an arm's labels comes to: how like people's they are, whether methods rank alike, what falls."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from pasture.core.files import read_records
from pasture.core.records import Preference
from pasture.core.seeds import stream
from pasture.core.statistics import Estimate, clustered_mean
from pasture.plan import run_name
from pasture.recipe import Study
from pasture.steps import Task
from pasture.validate.overoptimization import Overoptimization
from pasture.validate.plain import plain
from pasture.validate.rank_correlation import rank_correlation

FEWEST_TO_RANK = 5
"""Systems, the base and the SFT model among them: a correlation of fewer says little."""
_LABELS = "3-annotate/preference"


def what_labels_do(
    task: Task,
    study: Study,
    arm: str,
    outcomes: Mapping[str, Mapping[str, Any]],
    curves: Sequence[Overoptimization],
) -> dict[str, Any]:
    """A row of the noise ablation; `outcomes` are the judgements by arm and system, each by the arm's own judge."""
    title, seed = study.arms[arm].title or arm, task.settings["seed"]
    own, people = outcomes[arm], outcomes[study.people]
    common = [system for system in own if system in people]
    ranks = arm != study.people and len(common) >= FEWEST_TO_RANK
    found = rank_correlation(only(own, common), only(people, common), seed, sizes=()) if ranks else None
    return {
        "feedback": title,
        "judge": study.arms[arm].judge,
        "like_people": None if arm == study.people else plain(_like_people(task, study, arm)),
        "system_count": len(common),
        "spearman": plain(asdict(found.spearman)) if found else None,
        "falls": [
            {"family": curve.family, "downturn": plain(asdict(curve.downturn)), "turns_down": curve.turns_down}
            for curve in curves
            if curve.feedback == title
        ],
    }


def only(outcomes: Mapping[str, Any], systems: Sequence[str]) -> dict[str, Any]:
    """The outcomes of these systems, in their order."""
    return {system: outcomes[system] for system in systems}


def _like_people(task: Task, study: Study, arm: str) -> Estimate | None:
    """How often an arm's label of a pair is what the people's arm was told; None where they share no judged pair.

    An arm whose methods ask an annotator as they learn has no labels of pairs.
    """
    same = np.array([agreed for seed in study.seeds for agreed in _agreed(task, study, arm, seed)])
    if len(same) == 0:
        return None
    return clustered_mean(np.arange(len(same)), same, stream(task.settings["seed"], "study", "labels"))


def _agreed(task: Task, study: Study, arm: str, seed: int) -> Iterator[float]:
    """Of each pair that both arms were told of, the share of their labels that agree, each with each."""
    own, people = (_verdicts(task, run_name(who, seed)) for who in (arm, study.people))
    for pair, verdicts in own.items():
        if pair in people:
            yield fmean(one == other for one in verdicts for other in people[pair])


def _verdicts(task: Task, run: str) -> dict[str, list[str]]:
    """The labels of each pair that was judged: people may have given several."""
    folder = task.inputs.get(f"{run}/{_LABELS}")
    found: dict[str, list[str]] = {}
    for label in read_records(folder / "preferences.jsonl", Preference) if folder else []:
        if label.preferred != "unjudged":
            found.setdefault(label.comparison_id, []).append(label.preferred)
    return found
