"""Where tensors live and how many threads compute: chosen, never guessed behind the user's back."""

import os
import platform
from typing import Literal, TypeAlias

import torch

from pasture.core.errors import RecipeError
from pasture.machine.distributed import joined

DeviceChoice: TypeAlias = Literal["auto", "cpu", "cuda"]
DtypeChoice: TypeAlias = Literal["float32", "bfloat16"]


def resolve_device(choice: DeviceChoice) -> torch.device:
    """The device of that name; 'auto' is the GPU where there is one.

    Of several processes each has its own GPU, or all compute on the CPU.

    Raises:
        RecipeError: if 'cuda' is asked for and no CUDA device answers, or the processes were joined on another.
    """
    place = joined()
    if place is not None:
        if choice not in ("auto", place.device.type):
            raise RecipeError(
                f"device = '{choice}', but the processes were joined on '{place.device.type}'. Leave device out."
            )
        return place.device
    if choice == "cuda" and not torch.cuda.is_available():
        raise RecipeError(
            f"device = 'cuda', but torch {torch.__version__} finds no CUDA device. "
            "Set device = 'cpu' or 'auto', or install torch's CUDA build on a machine with a GPU."
        )
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(choice)


def resolve_dtype(choice: DtypeChoice) -> torch.dtype:
    """The torch type of that name."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[choice]


def use_threads(count: int) -> None:
    """Let torch compute with `count` threads from here on; results can differ in the last bits between counts."""
    if count < 1:
        raise RecipeError(f"threads must be at least 1, got {count}.")
    torch.set_num_threads(count)


def describe_device() -> dict[str, str]:
    """What this machine computes with, in words, for `pasture doctor` and the manifest."""
    facts = {
        "torch": torch.__version__,
        "processor": f"{platform.machine()}, {_usable_cores()} usable cores",
        "threads": str(torch.get_num_threads()),
        "cuda": "none",
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        facts["cuda"] = "; ".join(f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in names)
    return facts


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
