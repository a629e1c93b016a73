"""Steps of room 2: completions of models, side by side where they are to be compared."""

import json
import shutil
from pathlib import Path
from typing import Any

from pasture.core.errors import ModelError
from pasture.core.files import read_records, write_records
from pasture.core.ports import silent
from pasture.core.records import Completion, Instruction
from pasture.core.templates import TEMPLATES
from pasture.generate.completions import LocalSystem
from pasture.generate.pairs import sample_pairs
from pasture.models.sample import SamplerConfig
from pasture.recipe import start_folder
from pasture.steps import ANSWERS, Outcome, Task

PAIRS = "comparisons.jsonl"
DRAWN_FOLDER = "drawn"
"""Where answers lie while others are still being drawn."""


def _system(task: Task, model: Path) -> LocalSystem:
    return LocalSystem(model, TEMPLATES[task.settings["template"]], SamplerConfig(**task.settings["decoding"]))


def _instructions(task: Task, split: str) -> list[Instruction]:
    return read_records(task.inputs["data"] / f"{split}.jsonl", Instruction)


def _drawn(task: Task, model: Path, rows: list[Instruction], *, system: str, samples: int) -> list[Completion]:
    """Answers, those among them that a killed try left behind."""
    return _system(task, model).complete(
        rows,
        system=system,
        samples=samples,
        seed=task.settings["seed"],
        progress=task.progress,
        kept=task.folder / DRAWN_FOLDER,
    )


def _drop_drawn(task: Task) -> None:
    shutil.rmtree(task.folder / DRAWN_FOLDER, ignore_errors=True)


def pairs(task: Task) -> Outcome:
    """Two completions of the SFT model for every instruction of a split, as comparisons."""
    rows = _instructions(task, task.settings["split"])
    completions = _drawn(task, task.inputs["model"] / "model", rows, system="sft", samples=2)
    write_records(task.folder / PAIRS, sample_pairs(rows, completions))
    _drop_drawn(task)
    return Outcome(details=_lengths(completions))


def answers(task: Task) -> Outcome:
    """One completion of a system for every instruction of a split."""
    return _complete(task, _model_folder(task), task.settings["system"], 1)


def candidates(task: Task) -> Outcome:
    """`n` completions of the SFT model for every instruction of a split."""
    return _complete(task, task.inputs["model"] / "model", "sft", task.settings["n"])


def _complete(task: Task, model: Path, system: str, samples: int) -> Outcome:
    rows = _instructions(task, task.settings["split"])
    completions = _drawn(task, model, rows, system=system, samples=samples)
    write_records(task.folder / ANSWERS, completions)
    _drop_drawn(task)
    return Outcome(details=_lengths(completions))


def checkpoint_answers(task: Task) -> Outcome:
    """One completion for every validation instruction by each checkpoint of a method, and by the model it began with.

    Each checkpoint's file is written when it is complete, and an interrupted try goes on after the last one.
    """
    rows = _instructions(task, "validation")
    folders = {"0000": task.inputs["model"] / "model"}
    folders |= {path.name: path for path in sorted((task.inputs["checkpoints"] / "steps").iterdir())}
    for number, (step, folder) in enumerate(folders.items()):
        task.progress(number, len(folders))
        target = task.folder / f"{step}.jsonl"
        if target.exists():
            continue
        completions = _system(task, folder).complete(
            rows,
            system=f"{task.settings['system']}@{int(step)}",
            samples=1,
            seed=task.settings["seed"],
            progress=silent,
        )
        write_records(target, completions)
    return Outcome(details={"checkpoints": len(folders)})


def _model_folder(task: Task) -> Path:
    if "selection" in task.inputs:
        picked = json.loads((task.inputs["selection"] / "selection.json").read_text(encoding="utf-8"))
        return task.inputs["checkpoints"] / "steps" / f"{picked['step']:04d}"
    if "checkpoints" in task.inputs:
        return task.inputs["checkpoints"] / "model"
    if "model" in task.inputs:
        return task.inputs["model"] / "model"
    return start_folder(task.settings["start"])


def _lengths(completions: list[Completion]) -> dict[str, Any]:
    if not completions:
        raise ModelError("no completions were drawn: there are no instructions.")
    unfinished = sum(completion.finish_reason == "length" for completion in completions)
    return {
        "completions": len(completions),
        "mean_characters": round(sum(len(completion.text) for completion in completions) / len(completions), 2),
        "unfinished": unfinished,
    }
