"""Steps of room 1: the instructions of each split and the demonstrations that come with them."""

from pasture.core.files import write_records
from pasture.data.load import load_split
from pasture.steps import Outcome, Task


def instructions(task: Task) -> Outcome:
    """Write `SPLIT.jsonl` for every split, and `SPLIT-demonstrations.jsonl` where there are demonstrations."""
    settings = task.settings
    counts = {
        settings["demonstrations"]: settings["sft"],
        **{split: settings[split] for split in ("preference", "unlabeled", "validation", "evaluation", "live")},
    }
    counts = {split: count for split, count in counts.items() if count}
    for number, (split, count) in enumerate(counts.items()):
        task.progress(number, len(counts))
        rows, demonstrations = load_split(settings["source"], split, count, settings["seed"])
        write_records(task.folder / f"{split}.jsonl", rows)
        if demonstrations:
            write_records(task.folder / f"{split}-demonstrations.jsonl", demonstrations)
    return Outcome(details=counts)
