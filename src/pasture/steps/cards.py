"""The model card of what a step trained: the same wherever the run folder lies."""

from collections.abc import Iterable
from pathlib import Path

import pasture
from pasture.core.records import Preference, Record
from pasture.learn.resume import METRICS_FILE, MODEL_FOLDER
from pasture.machine.distributed import on_main
from pasture.models.card import Card, last_figures, source_of, write_card
from pasture.steps import Task


def write_step_card(
    task: Task,
    method: str,
    name: str,
    rows: Iterable[tuple[Record, ...]],
    *,
    start: str | None = None,
    judge: str = "",
) -> None:
    """Write the card of the model in the step's folder, which learned from `rows`; `name` says where they lie.

    `start` is the model that it began as; left out, it is the step that made the input of that name. `judge` is who
    preferred, where neither the rows nor a scorer's step say so. Several models in one folder get no card.
    """
    folder = task.folder / MODEL_FOLDER
    if not (folder / "config.json").is_file():
        return
    learned = list(rows)
    annotators = sorted({one.annotator for row in learned for one in row if isinstance(one, Preference)})
    of_run = _step_name(task.inputs["scorer"]) if "scorer" in task.inputs else ""
    scorer = task.settings.get("scorer", of_run)
    card = Card(
        method=method,
        settings=task.settings["config"],
        start=start or _step_name(task.inputs["model"]),
        template=task.settings["template"],
        seed=task.settings["seed"],
        data={"learned from": source_of(name, learned)},
        judge=judge or ", ".join(annotators) or scorer,
        version=pasture.__version__,
        results=last_figures(task.folder / METRICS_FILE),
    )
    on_main(lambda: write_card(folder, card))


def _step_name(folder: Path) -> str:
    return "/".join(folder.parts[-2:])
