"""Which tokens count, and sums that the other tokens cannot touch.

A masked entry may hold anything, NaN and infinity included: it is never added, it gets no gradient, and where a tensor
of the same shape comes back it comes back as exactly 0.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_SMALLEST_VARIANCE = 1e-8


def response_mask(
    prompt_lengths_B: Int[Tensor, " B"], lengths_B: Int[Tensor, " B"], width: int
) -> Bool[Tensor, "B {width}"]:
    """True at the tokens of the response, its end token included, in rows padded on the right.

    Row b holds its prompt in [0, prompt length), its response in [prompt length, length), then padding.
    """
    position_T = torch.arange(width, device=lengths_B.device)
    return (position_T >= prompt_lengths_B[:, None]) & (position_T < lengths_B[:, None])


def prediction_mask(response_mask_BT: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T-1"]:
    """True at the positions whose next token belongs to the response.

    Entry t speaks of the logits at position t, which predict the token at t + 1: the last prompt token predicts the
    first response token, and nothing predicts a first token of the row.
    """
    return response_mask_BT[:, 1:]


def zero_masked(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """`x` with 0 at the masked entries, whatever they held."""
    # A product with the mask would turn a masked NaN into NaN.
    return torch.where(mask_BT, x_BT, torch.zeros((), dtype=x_BT.dtype, device=x_BT.device))


def masked_sum(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Sum over unmasked entries; 0 where there are none."""
    return zero_masked(x_BT, mask_BT).sum()


def row_sums(values_N: Float[Tensor, " N"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Sum of each row's values, given for the unmasked entries one row after another; 0 for a row with none."""
    row_N = mask_BT.nonzero()[:, 0]
    return torch.zeros(len(mask_BT), dtype=values_N.dtype, device=values_N.device).index_add(0, row_N, values_N)


def masked_mean(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Mean over unmasked entries of the whole batch, every token weighing the same.

    Raises:
        ValueError: if no entry is unmasked.
    """
    return masked_sum(x_BT, mask_BT) / _count(mask_BT, at_least=1)


def standardize(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Shift and scale so that unmasked entries have mean 0 and variance 1.

    Masked entries come back as 0. The variance divides by n, not n - 1; entries that are all equal come back as 0.

    Raises:
        ValueError: if fewer than two entries are unmasked.

    Source: openai/baselines ppo2/model.py L139 (advantage normalization).
    """
    mean, deviation = _moments(x_BT, mask_BT)
    return zero_masked((x_BT - mean) / deviation, mask_BT)


def rescale(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Scale about the mean so that unmasked entries have variance 1 and keep their mean.

    Masked entries come back as 0. The variance divides by n, not n - 1.

    Raises:
        ValueError: if fewer than two entries are unmasked.

    Source: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, whitening of rewards without shift of the mean.
    """
    mean, deviation = _moments(x_BT, mask_BT)
    return zero_masked((x_BT - mean) / deviation + mean, mask_BT)


def _count(mask_BT: Bool[Tensor, "B T"], at_least: int) -> int:
    count = int(mask_BT.sum())
    if count < at_least:
        raise ValueError(f"expected at least {at_least} unmasked entries, got {count} of {mask_BT.numel()}.")
    return count


def _moments(x_BT: Float[Tensor, "B T"], mask_BT: Bool[Tensor, "B T"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    count = _count(mask_BT, at_least=2)
    mean = masked_sum(x_BT, mask_BT) / count
    variance = masked_sum((x_BT - mean) ** 2, mask_BT) / count
    return mean, (variance + _SMALLEST_VARIANCE).sqrt()
