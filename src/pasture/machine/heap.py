"""Large tensors that come and go on a CPU without leaving holes: what is given up goes back to the machine.

glibc keeps what was freed between two things that are still in use. A cache that grows a step at a time, layer by
layer, leaves so many of such places that they took 176 MiB beside a cache of 432 (SmolLM2-135M, 31 answers under way).
"""

import ctypes
import math
import mmap
import sys
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

MAPPED_BYTES = 2**20
"""From this size on a tensor gets a mapping of its own."""


def mapped_empty(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor of the type and device of `like`; a large one on a CPU has pages of its own, gone when it is."""
    size = math.prod(shape) * like.element_size()
    if size < MAPPED_BYTES or like.device.type != "cpu" or not hasattr(mmap, "MAP_ANONYMOUS"):
        return like.new_empty(*shape)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=like.dtype).view(*shape)


def give_back_holes() -> None:
    """Return the heap's free pages to the machine, where the C library can (glibc's malloc_trim)."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
