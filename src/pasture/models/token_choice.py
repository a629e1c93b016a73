"""The next token of every row, from its logits and the row's own uniform draw."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pasture.models.sampler_config import SamplerConfig


def choose_tokens(
    logits_BV: Float[Tensor, "B V"], uniform_B: Float[Tensor, " B"], config: SamplerConfig
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"], Float[Tensor, " B"]]:
    """A token a row, its log-probability under the model, and under what was drawn from."""
    logprob_BV = logits_BV.log_softmax(dim=-1)
    if config.temperature == 0.0:
        token_B = logits_BV.argmax(dim=-1)
        chosen_B = logprob_BV.gather(-1, token_B[:, None]).squeeze(-1)
        return token_B, chosen_B, torch.zeros_like(chosen_B)
    as_is = config.temperature == 1.0 and config.top_p == 1.0
    sampling_BV = logprob_BV if as_is else _truncate((logits_BV / config.temperature).log_softmax(-1), config.top_p)
    token_B = _invert_cumulative(sampling_BV.exp(), uniform_B)
    logprob_B, sampling_B = (x_BV.gather(-1, token_B[:, None]).squeeze(-1) for x_BV in (logprob_BV, sampling_BV))
    return token_B, logprob_B, sampling_B


def _truncate(logprob_BV: Float[Tensor, "B V"], top_p: float) -> Float[Tensor, "B V"]:
    """Log-probabilities over the fewest likeliest tokens whose probabilities reach `top_p`; minus infinity elsewhere.

    Source: Holtzman et al. 2020, Section 3.1, https://arxiv.org/abs/1904.09751
    """
    if top_p == 1.0:
        return logprob_BV
    sorted_BV, order_BV = logprob_BV.sort(dim=-1, descending=True, stable=True)
    probability_BV = sorted_BV.exp()
    before_BV = probability_BV.cumsum(dim=-1) - probability_BV
    beyond_BV = torch.zeros_like(before_BV, dtype=torch.bool).scatter(-1, order_BV, before_BV >= top_p)
    return logprob_BV.masked_fill(beyond_BV, -torch.inf).log_softmax(dim=-1)


def _invert_cumulative(probability_BV: Float[Tensor, "B V"], uniform_B: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The first token, in vocabulary order, whose cumulative probability exceeds the row's uniform draw."""
    cumulative_BV = probability_BV.cumsum(dim=-1)
    total_B = cumulative_BV[:, -1]
    # Rounding may lift a draw to the total; kept below it, a token of probability 0 is never drawn.
    target_B = torch.minimum(uniform_B.to(total_B.dtype) * total_B, total_B.nextafter(torch.zeros_like(total_B)))
    token_B = torch.searchsorted(cumulative_BV, target_B[:, None], right=True).squeeze(-1)
    return token_B.clamp(max=cumulative_BV.shape[-1] - 1)  # NaN is beyond every token
