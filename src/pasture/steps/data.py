"""Steps of room 1: the instructions of each split and the demonstrations that come with them."""

from collections.abc import Mapping

from pasture.core.errors import DataError
from pasture.core.files import read_records, write_records
from pasture.core.records import Preference, Rating
from pasture.data.instructions import DEMONSTRATED, InstructionFiles, Split, load_instructions
from pasture.data.load import load_split
from pasture.data.overlap import leaking_ids, require_no_leak
from pasture.data.preferences import RATINGS_FILE, FeedbackFile, load_feedback
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
    drawn: dict[str, Split] = {}
    for number, (split, count) in enumerate(counts.items()):
        task.progress(number, len(counts))
        drawn[split] = Split(*load_split(settings["source"], split, count, settings["seed"]))
    return Outcome(details=_written(task, drawn))


def _from_files(task: Task) -> Outcome:
    settings = task.settings
    names = set(InstructionFiles.model_fields) & set(settings)
    splits = load_instructions(InstructionFiles(**{name: settings[name] for name in names}))
    for name, split in splits.items():
        if name in DEMONSTRATED and split.instructions and not split.demonstrations:
            raise DataError(
                f"{settings['source']}: the split {name!r} needs an output for each of its instructions, and some have "
                "none. Name a file with outputs, or for 'evaluation' one of a reference in data.evaluation_source."
            )
    return Outcome(details=_written(task, splits))


_EVALUATED = ("evaluation", "live")


def _written(task: Task, splits: Mapping[str, Split]) -> dict[str, object]:
    """Write the splits, less what leaks where the recipe leaves that out; what is to be said of them.

    Raises:
        LeakError: if instructions to train or to choose on are nearly ones to evaluate on and the recipe refuses that.
    """
    source, leaks = task.settings["source"], task.settings["leaks"]
    training = {name: split.instructions for name, split in splits.items() if name not in _EVALUATED}
    evaluation = [one for name in _EVALUATED if name in splits for one in splits[name].instructions]
    leaking: set[str] = set()
    if leaks == "refuse":
        require_no_leak(source, training, evaluation)
    else:
        leaking = leaking_ids(source, training, evaluation)
    details: dict[str, object] = {"leaks": len(leaking)}
    for name, split in splits.items():
        cut = leaking if leaks == "leave_out" and name in training else set()
        details[name] = write_records(
            task.folder / f"{name}.jsonl", (one for one in split.instructions if one.id not in cut)
        )
        if split.demonstrations:
            kept = (one for one in split.demonstrations if one.instruction_id not in cut)
            write_records(task.folder / f"{name}-demonstrations.jsonl", kept)
        if split.left_out:
            details[f"{name}_left_out"] = split.left_out
    return details


def feedback(task: Task) -> Outcome:
    """What a file holds: `comparisons.jsonl`, one for each label, `preferences.jsonl`, and `ratings.jsonl` if any."""
    settings = task.settings
    loaded = load_feedback(
        FeedbackFile(file=settings["file"], labels=tuple(settings["labels"]), count=settings["count"])
    )
    write_records(task.folder / "comparisons.jsonl", [comparison for comparison, _ in loaded.pairs])
    write_records(task.folder / "preferences.jsonl", [preference for _, preference in loaded.pairs])
    details: dict[str, object] = {"preferences": len(loaded.pairs), "left_out": dict(loaded.left_out)}
    if loaded.ratings:
        details["ratings"] = write_records(task.folder / RATINGS_FILE, loaded.ratings)
    return Outcome(details=details)


def labels(task: Task) -> Outcome:
    """The labels that came with their comparisons, where an annotator's would lie."""
    given = task.inputs["pairs"]
    count = write_records(task.folder / "preferences.jsonl", read_records(given / "preferences.jsonl", Preference))
    if (given / RATINGS_FILE).exists():
        count += write_records(task.folder / RATINGS_FILE, read_records(given / RATINGS_FILE, Rating))
    return Outcome(details={"given": count})
