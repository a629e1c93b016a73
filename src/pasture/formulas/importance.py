"""Weights for answers that another distribution drew than the one that learns from them."""

from jaxtyping import Float
from torch import Tensor


def truncated_importance_weights(
    logprob: Float[Tensor, "*N"], sampler_logprob: Float[Tensor, "*N"], cap: float
) -> Float[Tensor, "*N"]:
    """min(pi / pi_sampler, cap) of each sample.

    The cap trades a bias toward what the sampler likes for a bounded variance. Where both agree, the weight is exactly
    1.

    Source: Ionides 2008, https://doi.org/10.1198/106186008X320456; for the tokens of a rollout engine,
    Yao et al. 2025, https://fengyao.notion.site/off-policy-rl
    """
    return (logprob - sampler_logprob).exp().clamp(max=cap)
