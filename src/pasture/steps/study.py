"""The last steps of a study: what all its runs say together, and the page that shows it.

Inputs are called `RUN/STEP`, where a run is an arm with a seed: `simulation-0/5-evaluate/board`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.core.files import read_records, write_text
from pasture.core.records import Comparison
from pasture.core.statistics import NO_ESTIMATE
from pasture.plan import run_name
from pasture.recipe import Study
from pasture.steps import SECOND_WINS, Outcome, Task
from pasture.steps.judged import credit_of, judged_systems
from pasture.steps.study_labels import FEWEST_TO_RANK, only, what_labels_do
from pasture.steps.study_styles import styles
from pasture.steps.ways import Way, way_of
from pasture.validate.evaluation_validity import evaluation_validity
from pasture.validate.noise import noise_ablation
from pasture.validate.overoptimization import overoptimization
from pasture.validate.plain import plain
from pasture.validate.rank_correlation import rank_correlation
from pasture.validate.resampling import resampled_rates
from pasture.world.pool import POOL

RANKING, LEARNERS, CURVES, STYLES, VALIDITY, TRANSFER, NOISE, FEEDBACK = (
    f"{name}.json"
    for name in ("ranking", "ranking-learners", "curves", "styles", "validity", "transfer", "noise", "feedback")
)
NOISE_FLIPS = (0.0, 0.125, 0.25, 0.375)
NOISE_COUNTS = (1, 3, 7, 13)
PEOPLE_PER_PAIR = 4
_FEWEST_SYSTEMS = 3
"""Systems that two sets of instructions are compared by."""


def results(task: Task) -> Outcome:
    """Every analysis of the study, each a JSON file: ranking, over-optimization, style, validity, transfer."""
    study, seed = Study.model_validate(task.settings["study"]), task.settings["seed"]
    simulation, people = study.simulation, study.people
    by_arm = {arm: judged_alone(arm_outcomes(task, study, arm, "evaluation")) for arm in study.arms}
    simulated, by_people = by_arm[simulation], by_arm[people]
    common = [system for system in simulated if system in by_people]
    ranking = rank_correlation(only(simulated, common), only(by_people, common), seed)
    _write(task, RANKING, ranking.to_dict())
    _write(task, LEARNERS, _of_learners(task, simulated, by_people, common))
    curves = [overoptimization(way.curve, seed) for way in ways(task, study) if way.curve is not None]
    _write(task, CURVES, [curve.to_dict() for curve in curves])
    learned = {arm: only(outcomes, _learners(task, outcomes)) for arm, outcomes in by_arm.items()}
    _write(task, FEEDBACK, [what_labels_do(task, study, arm, learned, curves) for arm in study.arms])
    _write(task, STYLES, [style for arm in (people, simulation) for style in styles(task, study, arm)])
    live = judged_alone(arm_outcomes(task, study, simulation, "live"))
    on_both = [system for system in simulated if system in live]
    ranks = len(on_both) >= _FEWEST_SYSTEMS
    valid = evaluation_validity(only(simulated, on_both), only(live, on_both), seed) if ranks else None
    _write(task, VALIDITY, valid.to_dict() if valid else None)
    crossed = arm_outcomes(task, study, simulation, "evaluation", judge=study.arms[people].judge)
    _write(task, TRANSFER, _transfers(only(crossed, common), seed))
    return Outcome(details={"spearman": plain(ranking.spearman.value), "systems": len(common)})


def _of_learners(
    task: Task, simulated: Mapping[str, Any], people: Mapping[str, Any], systems: Sequence[str]
) -> dict[str, object] | None:
    """The ranking without the baselines, which lie further apart; None where all are made here."""
    learners = _learners(task, systems)
    if learners == list(systems) or len(learners) < FEWEST_TO_RANK:
        return None
    seed = task.settings["seed"]
    return rank_correlation(only(simulated, learners), only(people, learners), seed, sizes=()).to_dict()


def _learners(task: Task, systems: Iterable[str]) -> list[str]:
    """Those of the systems that are made here, which alone depend on anybody's labels."""
    return [system for system in systems if system not in task.settings["baselines"]]


def noise(task: Task) -> Outcome:
    """What flips and the number of annotators do to agreement with people, variance and bias of the pool."""
    seed = task.settings["seed"]
    pairs = read_records(task.inputs["pairs"] / "comparisons.jsonl", Comparison)[: task.settings["pairs"]]
    raters = [MeadowPool(seed=seed, label_flip_probability=0.0, raters=(rater,)) for rater in POOL]
    people = [MeadowPeople(seed=seed + number) for number in range(PEOPLE_PER_PAIR)]
    labels_AN = np.array([[SECOND_WINS[one.preferred] for one in rater.annotate(pairs)] for rater in raters])
    people_NH = np.array([[SECOND_WINS[one.preferred] for one in person.annotate(pairs)] for person in people]).T
    points = noise_ablation(labels_AN, people_NH, NOISE_FLIPS, NOISE_COUNTS, seed)
    _write(task, NOISE, [point.to_dict() for point in points])
    return Outcome(details={"pairs": len(pairs)})


def arm_outcomes(task: Task, study: Study, arm: str, split: str, judge: str | None = None) -> dict[str, Any]:
    """By system an array "seeds instructions", by the arm's own judge unless another is named."""
    runs = [judged_systems(task, run_name(arm, seed), split) for seed in study.seeds]
    who = judge or study.arms[arm].judge
    return {system: np.stack([credit_of(run[system], who) for run in runs]) for system in runs[0]}


def unjudged_systems(task: Task, study: Study, arm: str, split: str) -> list[str]:
    """Those of which the arm's own judge judged nothing, in any seed."""
    outcomes = arm_outcomes(task, study, arm, split)
    return [system for system in outcomes if system not in judged_alone(outcomes)]


def judged_alone(outcomes: Mapping[str, Any]) -> dict[str, Any]:
    """The outcomes of those systems of which anything was judged; the others have no place in a ranking."""
    return {system: credit for system, credit in outcomes.items() if np.isfinite(credit).any()}


def ways(task: Task, study: Study) -> Iterator[Way]:
    """The ways of each arm by its own judge: people's first, then the simulation's, then the others'."""
    first = [study.people, study.simulation]
    for arm in [*first, *(name for name in study.arms if name not in first)]:
        prefix = f"{run_name(arm, study.seeds[0])}/5-evaluate/curve/"
        for role in task.inputs:
            if role.startswith(prefix):
                yield _way(task, study, arm, role.removeprefix(prefix))


def _way(task: Task, study: Study, arm: str, system: str) -> Way:
    folders = [task.inputs[f"{run_name(arm, seed)}/5-evaluate/curve/{system}"] for seed in study.seeds]
    return way_of(folders, system, study.arms[arm].title or arm, study.arms[arm].judge)


def _transfers(outcomes: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """The systems that were trained in the simulation, as people judge them; drawn as the ranking's rates are."""
    judged = judged_alone(outcomes)
    rates = resampled_rates(list(judged.values()), seed, "ranking") if judged else None
    found = {system: rates.estimate(number) for number, system in enumerate(judged)} if rates else {}
    return [{"system": system, "rate": plain(found.get(system, NO_ESTIMATE))} for system in outcomes]


def _write(task: Task, name: str, value: object) -> None:
    write_text(task.folder / name, json.dumps(value, indent=1) + "\n")


def alone(task: Task, run: str) -> Task:
    """The task as the run would have met it by itself."""
    inputs = {role.removeprefix(f"{run}/"): path for role, path in task.inputs.items() if role.startswith(f"{run}/")}
    return replace(task, inputs=inputs)
