"""The instructions of a recipe, split by split."""

from pasture.core.errors import DataError
from pasture.core.records import Completion, Instruction
from pasture.world import meadow

DEMONSTRATED = ("sft", "validation", "evaluation", "live")
"""Splits that come with a demonstration for each instruction: to imitate, or to be compared with."""


def load_split(source: str, split: str, count: int, seed: int) -> tuple[list[Instruction], list[Completion]]:
    """`count` instructions of a split, and a demonstration of each where the split has them.

    Raises:
        DataError: if the source or the split is unknown, `count` is below 1, or the split cannot give so many.
    """
    if source != "meadow":
        raise DataError(f"no instructions of source {source!r}. Sources: meadow.")
    if split not in meadow.SPLIT_SHARES:
        raise DataError(f"the meadow has no split {split!r}. Splits: {', '.join(meadow.SPLIT_SHARES)}.")
    if count < 1:
        raise DataError(f"expected a number of instructions of 1 or more, got {count}.")
    if split == "pretraining":
        pairs = meadow.pretraining_texts(count, seed)
        return [instruction for instruction, _ in pairs], [completion for _, completion in pairs]
    if split == "evaluation":
        instructions = meadow.evaluation_set(count, seed)
    elif split == "live":
        instructions = meadow.live_set(count, seed)
    else:
        instructions = meadow.instructions(split, count, seed)
    return instructions, meadow.demonstrations(instructions, seed) if split in DEMONSTRATED else []
