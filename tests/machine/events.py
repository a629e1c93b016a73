"""TensorBoard's files as TensorBoard reads them."""

from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def scalars(folder: Path, *, takes_back: bool = True) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every scalar in a folder's event files, by name; without `takes_back` also what is outdated."""
    events: Any = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=takes_back)
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected(rows: list[dict[str, float]]) -> dict[str, list[tuple[int, float]]]:
    """The same of the rows of `metrics.jsonl`; values have TensorBoard's 32 bits."""
    names = sorted({name for row in rows for name in row} - {"step"})
    return {name: [(int(row["step"]), float(np.float32(row[name]))) for row in rows if name in row] for name in names}
