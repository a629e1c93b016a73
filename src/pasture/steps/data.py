"""Steps of room 1: the instructions of each split and the demonstrations that come with them."""

from pasture.core.files import write_records
from pasture.data.load import DEMONSTRATED, SPLITS, load_split
from pasture.steps import Outcome, Task


def instructions(task: Task) -> Outcome:
    """Write `SPLIT.jsonl` for every split, and `SPLIT-demonstrations.jsonl` where there are demonstrations."""
    settings = task.settings
    for number, split in enumerate(SPLITS):
        task.progress(number, len(SPLITS))
        rows, demonstrations = load_split(settings["source"], split, settings[split], settings["seed"])
        write_records(task.folder / f"{split}.jsonl", rows)
        if split in DEMONSTRATED:
            write_records(task.folder / f"{split}-demonstrations.jsonl", demonstrations)
    return Outcome(details={split: settings[split] for split in SPLITS})
