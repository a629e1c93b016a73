"""The way of a method by one judge, as the steps of `steps.curves` left it: of a study's seeds, or of one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from pasture.core.files import read_json_lines
from pasture.core.statistics import Floats
from pasture.report.content import Figure
from pasture.report.study_content import Curve as CurveContent
from pasture.report.study_figures import way_figures
from pasture.steps.judge_titles import judge_title
from pasture.validate.overoptimization import Curve, Form, overoptimization

_CURVES = "5-evaluate/curve/"
_FEWEST_PLACES = 2
"""Places that a curve has."""


@dataclass(frozen=True)
class Way:
    """A method's way under one arm's feedback, by the arm's own judge."""

    family: str
    feedback: str
    judge: str
    progress_name: str
    curve: Curve | None
    """Of the places at which an answer was judged; None with fewer than two of them."""
    place_count: int
    unjudged: tuple[float, ...]
    """Progress at the places that are left out, as no answer of any seed was judged there."""


def way_of(folders: Sequence[Path], system: str, feedback: str, judge: str) -> Way:
    """The way of `system` by `judge`, from its folder for each seed; `feedback` is what it learned from, in words."""
    points = [_rows(folder / "points.jsonl", judge) for folder in folders]
    rows = [_rows(folder / "outcomes.jsonl", judge) for folder in folders]
    progress = [row["progress"] for row in points[0]]
    name = points[0][0]["progress_name"]
    outcomes: list[Floats] = [
        np.array([seed[at]["credit"] for seed in rows], dtype=np.float64) for at in range(len(progress))
    ]
    kept = [at for at, credit in enumerate(outcomes) if np.isfinite(credit).any()]
    form: Form = "rl" if name == "step" else "best-of-n"
    curve = None
    if len(kept) >= _FEWEST_PLACES:
        curve = Curve(
            family=system,
            feedback=feedback,
            judge=judge,
            form=form,
            progress_name=name,
            progress=tuple(progress[at] for at in kept),
            kl=tuple(fmean(seed[at]["kl"] for seed in points) for at in kept),
            proxy=tuple(fmean(seed[at]["proxy"] for seed in points) for at in kept),
            outcomes=tuple(outcomes[at] for at in kept),
        )
    unjudged = tuple(place for at, place in enumerate(progress) if at not in kept)
    return Way(system, feedback, judge, name, curve, len(progress), unjudged)


def _rows(path: Path, judge: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json_lines(path)
    return [row for row in rows if row["judge"] == judge]


def run_ways(inputs: Mapping[str, Path], judges: Sequence[str]) -> list[Way]:
    """The ways of one run's methods that are followed, each by every judge."""
    followed = {role.removeprefix(_CURVES): folder for role, folder in inputs.items() if role.startswith(_CURVES)}
    return [way_of([folder], system, "this run", judge) for system, folder in followed.items() for judge in judges]


def run_curves(ways: Sequence[Way], seed: int) -> list[Figure]:
    """For each method of one run its win rates by every judge along its way; none where places are too few."""
    curves = [overoptimization(way.curve, seed).to_dict() for way in ways if way.curve is not None]
    return way_figures(
        [CurveContent.model_validate({**curve, "judge": judge_title(str(curve["judge"]))}) for curve in curves]
    )


def unjudged_places(way: Way) -> str:
    """What is missing of a way's curve since none of it was judged; empty where nothing is."""
    if not way.unjudged:
        return ""
    return (
        f"nothing was judged at {way.progress_name} {', '.join(f'{place:g}' for place in way.unjudged)}, so "
        f"{len(way.unjudged)} of {way.place_count} places on its curve are left out"
        f"{'' if way.curve else ', and too few are left to draw it'}."
    )
