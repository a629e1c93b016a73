"""Randomness by name: the same recipe and seed give the same draws on every machine and in every process.

Nothing here depends on `hash()`, on global state or on the order in which streams are opened.
"""

import hashlib
import json
from typing import TypeAlias

import numpy as np

Key: TypeAlias = str | int | float


def _digest(parts: tuple[Key, ...]) -> bytes:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).digest()


def stream(seed: int, *names: Key) -> np.random.Generator:
    """An independent generator for what `names` describe, such as `stream(0, "label-flips")`."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(_digest((seed, *names))[:16], "big")))


def derived_seed(seed: int, *names: Key) -> int:
    """A seed in [0, 2**63) for a library that wants a number rather than a generator."""
    return int.from_bytes(_digest((seed, *names))[:8], "big") >> 1


def uniform(seed: int, *names: Key) -> float:
    """One draw from [0, 1) that belongs to `names` alone: adding or reordering other items leaves it as it is."""
    return (int.from_bytes(_digest((seed, *names))[:8], "big") >> 11) / 2**53
