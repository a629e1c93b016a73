"""Steps of room 2 for systems that are not made here: their answers stand where a model's would."""

from pathlib import Path

from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records
from pasture.core.records import Completion, Instruction, content_id
from pasture.evaluate.outputs import read_outputs
from pasture.steps import ANSWERS, Outcome, Task
from pasture.world.meadow import written_by


def written(task: Task) -> Outcome:
    """Answers of one of the meadow's writers to every instruction of a split."""
    settings = task.settings
    return _keep(task, written_by(settings["writer"], _asked(task), settings["system"], settings["seed"]))


def from_file(task: Task) -> Outcome:
    """The answers that a file holds to the instructions of a split, in the split's order."""
    settings = task.settings
    path, asked = Path(settings["file"]), _asked(task)
    outputs = read_outputs(path, settings["system"], task.inputs["data"] / f"{settings['split']}.jsonl")
    answers = dict(zip(map(_told_apart_by, outputs.instructions), outputs.completions, strict=True))
    missing = [one for one in asked if _told_apart_by(one) not in answers]
    if missing:
        raise DataError(
            f"{path}: no answer of {settings['system']!r} to {len(missing)} of {len(asked)} instructions of the "
            f"{settings['split']} set. First: {missing[0].instruction[:80]!r}."
        )
    return _keep(task, [answers[_told_apart_by(one)].model_copy(update={"instruction_id": one.id}) for one in asked])


def _told_apart_by(instruction: Instruction) -> str:
    """Ids are the maker's own, in a file and in a run; texts are the same in both."""
    return content_id(instruction.instruction, instruction.input)


def _asked(task: Task) -> list[Instruction]:
    return read_records(task.inputs["data"] / f"{task.settings['split']}.jsonl", Instruction)


def _keep(task: Task, completions: list[Completion]) -> Outcome:
    write_records(task.folder / ANSWERS, completions)
    return Outcome(details={"completions": len(completions)})
