"""Weights that several processes share out: each holds a part of every one, and all of a layer while it runs.

torch's `fully_shard` (FSDP2) does it, on a GPU as on a CPU. accelerate's own FSDP2 is not used: on a CPU it trains
whole copies without saying so, and it means gradients where here they are sums.

Source: Zhao et al. 2023, https://arxiv.org/abs/2304.11277
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from pasture.core.errors import RecipeError
from pasture.machine.distributed import Joined, is_main, joined


def is_asked_for() -> bool:
    """Whether the processes share out the weights of their models."""
    place = joined()
    return place is not None and place.sharding == "fsdp2"


def share_out(model: nn.Module) -> None:
    """Share out the weights of a transformers model where that is asked for; it moves to the processes' device.

    Its backbone may be called as well as the whole: both gather what they need.

    Raises:
        RecipeError: if nothing was shared out.
    """
    place = joined()
    if place is None or place.sharding == "none":
        return
    mesh = _mesh(place)
    layers = set(getattr(model, "_no_split_modules", None) or ())
    for part in model.modules():
        if type(part).__name__ in layers:
            fully_shard(part, mesh=mesh, reshard_after_forward=place.reshard_after_forward)
    # What is left, such as embeddings, stays whole from one forward pass to its backward pass.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    _sum_gradients_within(model)
    whole_model: Any = model
    backbone = getattr(model, "base_model", model)
    if backbone is not model:
        whole_model.pass_through_backbone = backbone.forward
        register_fsdp_forward_method(model, "pass_through_backbone")
        backbone.forward = whole_model.pass_through_backbone
    _check(model, place)


def share_out_head(head: nn.Module) -> None:
    """Share out a small module that is called by itself, where that is asked for."""
    place = joined()
    if place is None or place.sharding == "none":
        return
    fully_shard(head, mesh=_mesh(place))
    _sum_gradients_within(head)


def _mesh(place: Joined) -> DeviceMesh:
    """The processes in a row.

    torch's caches keep every mesh until the interpreter ends, and a mesh its processes' group, for compiled code alone.
    A group that is kept never ends its threads, and one of them that still holds a tensor when the interpreter ends
    aborts the process.
    """
    mesh = init_device_mesh(place.device.type, (place.count,))
    getattr(mesh, "_pg_registry", {}).clear()
    return mesh


def _sum_gradients_within(model: nn.Module) -> None:
    for part in _units(model):
        # A sum, and not a mean: losses are divided by the counts of the whole batch.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)


def _check(model: nn.Module, place: Joined) -> None:
    own = sum(one.to_local().numel() for one in model.parameters() if isinstance(one, DTensor))
    whole_size = sum(one.numel() for one in model.parameters())
    if not own <= 2 * whole_size / place.count:
        raise RecipeError(
            f"fsdp2 was asked for, and process {place.number} of {place.count} still holds {own:,} of "
            f"{whole_size:,} weights. Train without --sharding."
        )


def _units(model: nn.Module) -> list[FSDPModule]:
    return [part for part in model.modules() if isinstance(part, FSDPModule)]


def rest(model: nn.Module) -> None:
    """Give up weights that a pass without gradients has left gathered; what `model.parameters()` gives is then held."""
    for part in _units(model):
        part.reshard()


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """While it is open, every process holds all weights, and runs as many passes without gradients as it likes."""
    units = _units(model)
    if not units:
        yield
        return
    place = joined()
    for part in units:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    # The backbone's own entry would end the pass, and with it the gathering, before the last layer has run.
    backbone = getattr(model, "base_model", model)
    entry = backbone.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if entry is not None:
            backbone.forward = entry
        for part in units:
            is_root = part is units[0]
            part.set_reshard_after_forward(
                not is_root and place is not None and place.reshard_after_forward, recurse=False
            )
            part.reshard()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is shared out, put together by all processes; another tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def kept_whole(tensor: Tensor) -> Tensor:
    """What `whole` gives, on the CPU and in the main process alone; another tensor as it is."""
    if not isinstance(tensor, DTensor):
        return tensor
    put_together = whole(tensor)
    return put_together.cpu() if is_main() else torch.empty(0)


def part_like(tensor: Tensor, held: Tensor) -> Tensor:
    """This process's part of a whole tensor, where `held`, in whose place it is to stand, is shared out."""
    if not isinstance(held, DTensor):
        return tensor
    # Every process has read all of it: nothing is sent.
    return distribute_tensor(tensor.to(held.device), held.device_mesh, held.placements, src_data_rank=None)


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """`model.state_dict()` with whole tensors; where weights are shared out, on the CPU and in the main process alone.

    All processes must ask for it. Weights that are one under several names stay one.
    """
    if not _units(model):
        return dict(model.state_dict())
    rest(model)
    state: dict[str, Tensor] = {}
    by_identity: dict[int, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in by_identity:
            by_identity[id(tensor)] = kept_whole(tensor.detach())
        state[name] = by_identity[id(tensor)]
    return state


def load_whole_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put whole tensors in the place of those of that name; others stay."""
    held = model.state_dict()
    model.load_state_dict({name: part_like(tensor, held[name]) for name, tensor in state.items()}, strict=False)
