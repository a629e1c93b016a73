"""The optimizer's step that every method takes: what is shared between loops that are otherwise their own."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pasture.machine.distributed import sum_gradients
from pasture.machine.sharded import rest, whole


def adamw(*modules: nn.Module, epsilon: float = 1e-8, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW over what is trained of each module, a parameter group each; `take_step` sets its learning rate.

    Source: Loshchilov & Hutter 2019, Algorithm 2, https://arxiv.org/abs/1711.05101
    """
    for module in modules:
        rest(module)
    groups = [[one for one in module.parameters() if one.requires_grad] for module in modules]
    return AdamWInFloat32(groups, epsilon=epsilon, weight_decay=weight_decay)


class AdamWInFloat32(torch.optim.AdamW):
    """AdamW in one kernel a step, that keeps a float32 copy of each parameter of a coarser type and updates the copy.

    In bfloat16 a step of less than a 256th of a weight would be lost. Gradients, too, add up in float32, in the copies:
    that is where they are to be clipped. Without coarse parameters this is torch's own AdamW.

    Source: Micikevicius et al. 2018, Section 3.1, https://arxiv.org/abs/1710.03740
    """

    def __init__(self, groups: Sequence[Sequence[nn.Parameter]], *, epsilon: float, weight_decay: float) -> None:
        self._coarse: list[tuple[nn.Parameter, nn.Parameter]] = []
        """Each coarse parameter with its copy."""
        fine = [{"params": [self._in_float32(one) for one in group]} for group in groups]
        super().__init__(fine, lr=0.0, eps=epsilon, weight_decay=weight_decay, fused=True)

    def _in_float32(self, parameter: nn.Parameter) -> nn.Parameter:
        if parameter.dtype == torch.float32:
            return parameter
        copy = nn.Parameter(parameter.detach().float())

        def take_gradient(coarse: Tensor) -> None:
            if coarse.grad is not None:
                gradient = coarse.grad.float()
                copy.grad = gradient if copy.grad is None else copy.grad.add_(gradient)
                coarse.grad = None

        parameter.register_post_accumulate_grad_hook(take_gradient)  # type: ignore[no-untyped-call]
        self._coarse.append((parameter, copy))
        return copy

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the copies, and round them into the model."""
        super().step(closure)
        for coarse, copy in self._coarse:
            coarse.copy_(copy)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, the copies among it."""
        packed = super().state_dict()
        packed["state"] = {number: dict(values) for number, values in packed["state"].items()}
        for number, copy in self._copies():
            packed["state"].setdefault(number, {})[_COPY] = copy.detach()
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        own = {number: dict(values) for number, values in state_dict["state"].items()}
        with torch.no_grad():
            for number, copy in self._copies():
                copy.copy_(own[number].pop(_COPY))
        super().load_state_dict({**state_dict, "state": {number: values for number, values in own.items() if values}})

    def _copies(self) -> list[tuple[int, nn.Parameter]]:
        """The copies, by their number among all parameters."""
        ours = {id(copy) for _, copy in self._coarse}
        fine = [one for group in self.param_groups for one in group["params"]]
        return [(number, one) for number, one in enumerate(fine) if id(one) in ours]


_COPY = "float32_copy"


def take_step(optimizer: torch.optim.Optimizer, *, learning_rate: float, max_gradient_norm: float) -> list[Tensor]:
    """Add up the gradients of all processes, clip, step and drop them; the norms before clipping come back, by group.

    Each group is clipped on its own: where a policy and a value model share an optimizer, neither shrinks the other's
    step.
    """
    norms = []
    for group in optimizer.param_groups:
        sum_gradients(group["params"])
        norm = whole(nn.utils.get_total_norm([one.grad for one in group["params"] if one.grad is not None]))
        nn.utils.clip_grads_with_norm_(group["params"], max_gradient_norm, norm)
        norms.append(norm)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad()
    return norms


def cosine_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at `step` of 0 to total - 1: a linear rise, then half a cosine towards 0.

    The last step of a training that ends within its warmup is at the peak.

    Source: Loshchilov & Hutter 2017, Eq. 5, https://arxiv.org/abs/1608.03983, with linear warmup before it.
    """
    warmup_steps = min(warmup_steps, total_steps - 1)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at `step` of 0 to total - 1: a linear rise, then a line towards 0.

    The last step of a training that ends within its warmup is at the peak.
    """
    warmup_steps = min(warmup_steps, total_steps - 1)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 1 - (step - warmup_steps) / max(1, total_steps - warmup_steps)
