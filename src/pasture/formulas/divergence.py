"""How far one distribution is from another: estimators from samples, and the exact value.

With x drawn from pi and r = pi_ref(x) / pi(x), the expectation of k1 and of k3 is KL(pi || pi_ref).

Source: Schulman 2020, Approximating KL divergence, http://joschu.net/blog/kl-approx.html
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor


def k1(logprob: Float[Tensor, "*N"], reference_logprob: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """The log-ratio log pi - log pi_ref: unbiased, may be negative for one sample."""
    return logprob - reference_logprob


def clamped_k1(logprob: Float[Tensor, "*N"], reference_logprob: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """max(0, log pi - log pi_ref): biased upward, so its coefficients do not compare with those for k1.

    Source: Dubois et al. 2023 (AlpacaFarm), https://arxiv.org/abs/2305.14387, as released in code.
    """
    return (logprob - reference_logprob).clamp(min=0)


def k3(logprob: Float[Tensor, "*N"], reference_logprob: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """The estimate r - 1 - log r: unbiased and never negative."""
    log_ratio = reference_logprob - logprob
    return torch.expm1(log_ratio) - log_ratio


def exact_kl(logits_NV: Float[Tensor, "N V"], reference_logits_NV: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """KL(softmax(logits) || softmax(reference logits)) of each row, in nats.

    A token that pi rules out (logit -inf) contributes 0.
    """
    logprob_NV = F.log_softmax(logits_NV.float(), dim=-1)
    reference_logprob_NV = F.log_softmax(reference_logits_NV.float(), dim=-1)
    prob_NV = logprob_NV.exp()
    difference_NV = torch.where(prob_NV > 0, logprob_NV - reference_logprob_NV, 0.0)
    return (prob_NV * difference_NV).sum(-1)
