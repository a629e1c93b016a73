"""Rows of different lengths as batches that waste little."""

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row numbers in batches, each at most `budget` tokens when padded to its longest row.

    Rows are sorted by length (equal lengths keep their order), shortest first, so batches hold rows of like length.
    A row longer than the budget has a batch to itself. Every row is in exactly one batch.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least one token, got {budget}")
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[row] <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def grouped_batches(keys: Sequence[Hashable], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row numbers in batches as `token_budget_batches` makes them, with rows of one key in one where they fit."""
    members: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        members.setdefault(key, []).append(row)
    parts = [
        [rows[place] for place in places]
        for rows in members.values()
        for places in token_budget_batches([lengths[row] for row in rows], budget)
    ]
    batches: list[list[int]] = []
    for part in sorted(parts, key=lambda part: lengths[part[-1]]):
        if batches and (len(batches[-1]) + len(part)) * lengths[part[-1]] <= budget:
            batches[-1] += part
        else:
            batches.append(part)
    return batches


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Token ids with `pad_id` after the shorter rows, and a mask that is True on the rows' own tokens."""
    width = max((len(row) for row in rows), default=0)
    ids_BT = [[*row, *[pad_id] * (width - len(row))] for row in rows]
    mask_BT = [[True] * len(row) + [False] * (width - len(row)) for row in rows]
    return _tensor(ids_BT, width, torch.long), _tensor(mask_BT, width, torch.bool)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Token ids with `pad_id` before the shorter rows, and a mask that is True on the rows' own tokens."""
    width = max((len(row) for row in rows), default=0)
    ids_BT = [[*[pad_id] * (width - len(row)), *row] for row in rows]
    mask_BT = [[False] * (width - len(row)) + [True] * len(row) for row in rows]
    return _tensor(ids_BT, width, torch.long), _tensor(mask_BT, width, torch.bool)


def _tensor(rows: Sequence[Sequence[int]], width: int, dtype: torch.dtype) -> Tensor:
    return torch.tensor(rows, dtype=dtype).reshape(len(rows), width)


def positions(mask_BT: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Each token's place among its row's own tokens, from 0; pads read 0 until the row begins, then its last place."""
    return (mask_BT.long().cumsum(dim=-1) - 1).clamp(min=0)
