"""Random batches whose masked entries hold garbage."""

import numpy as np
import torch

GARBAGE = (float("nan"), float("inf"), float("-inf"), 1e30)
"""What pads are filled with: none of it may show in a result."""


def ragged_mask(seed, rows=7, width=11):
    """Unmasked stretches without a gap, of every length from 1 to the width, at different places."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((rows, width), dtype=bool)
    for row in mask:
        begin = rng.integers(0, width)
        end = rng.integers(begin + 1, width + 1)
        row[begin:end] = True
    return mask


def with_garbage(values, mask, filler):
    """`values` as float64 where unmasked, `filler` elsewhere."""
    return torch.from_numpy(np.where(mask, values, filler))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)
