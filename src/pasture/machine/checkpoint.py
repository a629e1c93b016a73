"""Where training stands, in one file that is whole whenever it is there.

Tensors and facts share one safetensors file (the facts as JSON in its header), so that a single rename replaces both:
a kill at any moment leaves the old checkpoint or the new one. Nothing is pickled.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from pasture.core.errors import RunFolderError
from pasture.core.files import atomic_file, unwritable
from pasture.machine.sharded import kept_whole, part_like

CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What `save_checkpoint` was given."""

    step: int
    """Steps finished."""
    tensors: dict[str, Tensor]
    """On the CPU."""
    facts: dict[str, object]


def save_checkpoint(folder: Path, *, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Replace the folder's checkpoint; `facts` is plain JSON.

    Raises:
        RunFolderError: if the disk is full or the folder cannot be written; the old checkpoint stays.
    """
    # One entry: safetensors writes several in an order that changes from process to process.
    header = {"checkpoint": json.dumps({"step": step, "facts": dict(facts)}, sort_keys=True, allow_nan=False)}
    path = folder / CHECKPOINT_FILE
    _remove_drafts(folder)
    with atomic_file(path) as draft:
        try:
            save_file(_unshared(tensors), draft, metadata=header)
        except SafetensorError as error:
            # safetensors reports a full disk as an error of its own.
            raise unwritable(path, OSError(str(error))) from error


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The folder's checkpoint; None where there is none.

    Raises:
        RunFolderError: if the file is there and is no checkpoint.
    """
    path = folder / CHECKPOINT_FILE
    _remove_drafts(folder)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {})["checkpoint"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- safe_open is no mapping
        return Checkpoint(header["step"], tensors, header["facts"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged ({error}). Remove it to begin this training anew.") from error


def remove_checkpoint(folder: Path) -> None:
    """Remove the folder's checkpoint, where there is one: the finished model needs none.

    Raises:
        RunFolderError: if the folder cannot be written.
    """
    _remove_drafts(folder)
    try:
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder / CHECKPOINT_FILE, error) from error


def _remove_drafts(folder: Path) -> None:
    # A kill while saving leaves a draft of the checkpoint's full size behind.
    for draft in folder.glob(f".{CHECKPOINT_FILE}.*"):
        with contextlib.suppress(OSError):
            draft.unlink()


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each in memory of its own, as safetensors wants them (tied weights share)."""
    seen: set[int] = set()
    unshared = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        address = copy.untyped_storage().data_ptr()
        if address in seen or copy.untyped_storage().nbytes() != copy.nbytes:
            copy = copy.clone()
        seen.add(address)
        unshared[name] = copy
    return unshared


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names that begin with `prefix`, to put several owners into one checkpoint."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimizer's state and learning rates as tensors; its other settings belong to the recipe."""
    state = optimizer.state_dict()
    tensors = {
        f"state.{parameter}.{name}": kept_whole(torch.as_tensor(value))
        for parameter, values in state["state"].items()
        for name, value in values.items()
    }
    for number, group in enumerate(state["param_groups"]):
        tensors[f"learning_rate.{number}"] = torch.tensor(float(group["lr"]), dtype=torch.float64)
    return tensors


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took, into an optimizer over the same parameters in the same order.

    Raises:
        RunFolderError: if the tensors are of other parameters.
    """
    state = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    restored: dict[int, dict[str, Tensor]] = {}
    for name, tensor in under_prefix("state.", tensors).items():
        parameter, key = name.split(".", 1)
        restored.setdefault(int(parameter), {})[key] = tensor
    for index, values in restored.items():
        fits = index < len(parameters) and all(
            value.ndim == 0 or value.shape == parameters[index].shape for value in values.values()
        )
        if not fits:
            raise RunFolderError(
                f"the checkpoint's optimizer state {index} does not fit this model's parameters. "
                "The checkpoint is of another model; remove it to begin this training anew."
            )
        restored[index] = {
            key: value if value.ndim == 0 else part_like(value, parameters[index]) for key, value in values.items()
        }
    for number, group in enumerate(state["param_groups"]):
        group["lr"] = float(tensors[f"learning_rate.{number}"])
    optimizer.load_state_dict({"state": restored, "param_groups": state["param_groups"]})
