"""The optimizer's step that every method takes: what is shared between loops that are otherwise their own."""

import math

import torch
from torch import Tensor, nn


def adamw(*modules: nn.Module, epsilon: float = 1e-8, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW with a parameter group for each module, in one kernel a step; `take_step` sets its learning rate.

    Source: Loshchilov & Hutter 2019, Algorithm 2, https://arxiv.org/abs/1711.05101
    """
    groups = [{"params": list(module.parameters())} for module in modules]
    return torch.optim.AdamW(groups, lr=0.0, eps=epsilon, weight_decay=weight_decay, fused=True)


def take_step(optimizer: torch.optim.Optimizer, *, learning_rate: float, max_gradient_norm: float) -> list[Tensor]:
    """Clip the gradients, step and drop them; the norm of each parameter group before clipping comes back.

    Each group is clipped on its own: where a policy and a value model share an optimizer, neither shrinks the other's
    step.
    """
    norms = [nn.utils.clip_grad_norm_(group["params"], max_gradient_norm) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad()
    return norms


def cosine_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at `step` of 0 to total - 1: a linear rise, then half a cosine towards 0.

    Source: Loshchilov & Hutter 2017, Eq. 5, https://arxiv.org/abs/1608.03983, with linear warmup before it.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at `step` of 0 to total - 1: a linear rise, then a line towards 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 1 - (step - warmup_steps) / max(1, total_steps - warmup_steps)
