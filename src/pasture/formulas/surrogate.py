"""Losses whose gradient is that of the expected advantage under the policy, from samples of an older one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def plain_surrogate(
    logprob: Float[Tensor, "*N"], old_logprob: Float[Tensor, "*N"], advantage: Float[Tensor, "*N"]
) -> Float[Tensor, "*N"]:
    """-A pi / pi_old of each action; where pi is pi_old its gradient is that of REINFORCE, -A grad log pi."""
    return -advantage * (logprob - old_logprob).exp()


def clipped_surrogate(
    logprob: Float[Tensor, "*N"],
    old_logprob: Float[Tensor, "*N"],
    advantage: Float[Tensor, "*N"],
    *,
    clip_low: float,
    clip_high: float,
) -> Float[Tensor, "*N"]:
    """max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)) of each action, with rho = pi / pi_old.

    Source: Schulman et al. 2017, Eq. 7, https://arxiv.org/abs/1707.06347, with the sign of a loss; two ranges as in Yu
    et al. 2025 (DAPO), Clip-Higher, https://arxiv.org/abs/2503.14476
    """
    ratio = (logprob - old_logprob).exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip_low, 1 + clip_high))


def is_clipped(
    logprob: Float[Tensor, "*N"],
    old_logprob: Float[Tensor, "*N"],
    advantage: Float[Tensor, "*N"],
    *,
    clip_low: float,
    clip_high: float,
) -> Bool[Tensor, "*N"]:
    """Whether `clipped_surrogate` is flat here: rho has gone as far as it may in the direction that pays.

    Source: TRL 1.16, `trl/trainer/grpo_trainer.py`, `is_region_clipped`.
    """
    ratio = (logprob - old_logprob).exp()
    return ((ratio < 1 - clip_low) & (advantage < 0)) | ((ratio > 1 + clip_high) & (advantage > 0))
