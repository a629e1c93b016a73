"""Steps of room 1: the instructions of each split and the demonstrations that come with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records
from pasture.core.records import Instruction, Preference
from pasture.data.instructions import DEMONSTRATED, InstructionFiles, load_instructions
from pasture.data.load import load_split
from pasture.data.overlap import require_no_leak
from pasture.data.preferences import FeedbackFile, load_feedback
from pasture.recipe import MEADOW
from pasture.steps import Outcome, Task


def instructions(task: Task) -> Outcome:
    """Write `SPLIT.jsonl` for every split, and `SPLIT-demonstrations.jsonl` where there are demonstrations."""
    settings = task.settings
    if settings["source"] != MEADOW:
        return _from_files(task)
    counts = {
        settings["demonstrations"]: settings["sft"],
        **{split: settings[split] for split in ("preference", "unlabeled", "validation", "evaluation", "live")},
    }
    counts = {split: count for split, count in counts.items() if count}
    drawn: dict[str, list[Instruction]] = {}
    for number, (split, count) in enumerate(counts.items()):
        task.progress(number, len(counts))
        drawn[split], demonstrations = load_split(settings["source"], split, count, settings["seed"])
        write_records(task.folder / f"{split}.jsonl", drawn[split])
        if demonstrations:
            write_records(task.folder / f"{split}-demonstrations.jsonl", demonstrations)
    return Outcome(details={**counts, "leaks": _leaks(settings, drawn)})


_EVALUATED = ("evaluation", "live")


def _leaks(settings: Mapping[str, Any], splits: Mapping[str, Sequence[Instruction]]) -> int:
    """How many instructions to train or to choose on are nearly ones to evaluate on.

    Raises:
        LeakError: if there are some and the recipe does not allow them.
    """
    training = {name: rows for name, rows in splits.items() if name not in _EVALUATED}
    evaluation = [one for name in _EVALUATED for one in splits.get(name, ())]
    return len(require_no_leak(settings["source"], training, evaluation, allow=settings["allow_leaks"]))


def _from_files(task: Task) -> Outcome:
    settings = task.settings
    names = set(InstructionFiles.model_fields) & set(settings)
    splits = load_instructions(InstructionFiles(**{name: settings[name] for name in names}))
    details: dict[str, object] = {}
    for name, split in splits.items():
        if name in DEMONSTRATED and split.instructions and not split.demonstrations:
            raise DataError(
                f"{settings['source']}: the split {name!r} needs an output for each of its instructions, and some have "
                "none. Name a file with outputs, or for 'evaluation' one of a reference in data.evaluation_source."
            )
        write_records(task.folder / f"{name}.jsonl", split.instructions)
        if split.demonstrations:
            write_records(task.folder / f"{name}-demonstrations.jsonl", split.demonstrations)
        details[name] = len(split.instructions)
        if split.left_out:
            details[f"{name}_left_out"] = split.left_out
    details["leaks"] = _leaks(settings, {name: split.instructions for name, split in splits.items()})
    return Outcome(details=details)


def feedback(task: Task) -> Outcome:
    """Preferences that a file holds: `comparisons.jsonl`, one for each label, and `preferences.jsonl`."""
    settings = task.settings
    loaded = load_feedback(
        FeedbackFile(file=settings["file"], labels=tuple(settings["labels"]), count=settings["count"])
    )
    write_records(task.folder / "comparisons.jsonl", [comparison for comparison, _ in loaded.pairs])
    write_records(task.folder / "preferences.jsonl", [preference for _, preference in loaded.pairs])
    return Outcome(details={"preferences": len(loaded.pairs), "left_out": dict(loaded.left_out)})


def labels(task: Task) -> Outcome:
    """The labels that came with their comparisons, where an annotator's would lie."""
    preferences = read_records(task.inputs["pairs"] / "preferences.jsonl", Preference)
    count = write_records(task.folder / "preferences.jsonl", preferences)
    return Outcome(details={"asked": count})
