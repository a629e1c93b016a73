"""Log-probabilities and entropies of next-token distributions, in float32 whatever the model computes in."""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pasture.formulas.divergence import exact_kl

Head: TypeAlias = Callable[[Tensor], Tensor]
"""Hidden states N H in, logits N V out: a language model's last layer."""

CHUNK_ELEMENTS = 1 << 24
"""Logits that are alive at once while a head is applied in chunks: 64 MiB of float32."""


def selected_logprobs(logits_NV: Float[Tensor, "N V"], targets_N: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Log-probability of each row's target under softmax(logits), in nats."""
    logprob_N: Tensor = -F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    return logprob_N


def entropy(logits_NV: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """Entropy of softmax(logits), in nats.

    A token that is ruled out (logit -inf) contributes 0.
    """
    logprob_NV = F.log_softmax(logits_NV.float(), dim=-1)
    entropy_N: Tensor = torch.special.entr(logprob_NV.exp()).sum(-1)
    return entropy_N


def head_logprobs(
    hidden_NH: Float[Tensor, "N H"], head: Head, targets_N: Int[Tensor, " N"], vocabulary_size: int
) -> Float[Tensor, " N"]:
    """Log-probability of each row's target, with never more than CHUNK_ELEMENTS logits in memory.

    Where one chunk is not enough, the backward pass computes each chunk's logits again.
    """
    return torch.cat([logprobs_C for (logprobs_C,) in _chunks(_logprobs, hidden_NH, head, targets_N, vocabulary_size)])


def head_logprobs_with_entropy(
    hidden_NH: Float[Tensor, "N H"], head: Head, targets_N: Int[Tensor, " N"], vocabulary_size: int
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """What `head_logprobs` gives, and the entropy of each distribution, from the same logits and without a gradient."""
    chunks = _chunks(_logprobs_and_entropy, hidden_NH, head, targets_N, vocabulary_size)
    logprobs, entropies = zip(*chunks, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def head_logprobs_with_kl(
    policy: tuple[Float[Tensor, "N H"], Head],
    reference: tuple[Float[Tensor, "N H"], Head],
    targets_N: Int[Tensor, " N"],
    shared_tokens: int,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """What `head_logprobs` gives, and the exact KL from the policy's to the reference's distribution of each row.

    The divergence is between the distributions over the first `shared_tokens` tokens of the vocabulary, each made to
    sum to 1 there. Policy and reference are given as hidden states and the head that turns these into logits.
    """
    (hidden_NH, head), (reference_NH, reference_head) = policy, reference

    def of_rows(hidden_CH: Tensor, reference_CH: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
        logits_CV = head(hidden_CH)
        with torch.no_grad():
            reference_logits_CV = reference_head(reference_CH)
        kl_C = exact_kl(logits_CV[:, :shared_tokens], reference_logits_CV[:, :shared_tokens])
        return selected_logprobs(logits_CV, targets_C), kl_C

    rows = max(1, CHUNK_ELEMENTS // shared_tokens)
    if len(hidden_NH) <= rows:
        return of_rows(hidden_NH, reference_NH, targets_N)
    parts = zip(*(torch.split(tensor, rows) for tensor in (hidden_NH, reference_NH, targets_N)), strict=True)
    chunks = [checkpoint(of_rows, *part, use_reentrant=False) for part in parts]
    logprobs, divergences = zip(*chunks, strict=True)
    return torch.cat(logprobs), torch.cat(divergences)


def _chunks(
    function: Callable[[Tensor, Head, Tensor], tuple[Tensor, ...]],
    hidden_NH: Tensor,
    head: Head,
    targets_N: Tensor,
    vocabulary_size: int,
) -> list[tuple[Tensor, ...]]:
    rows = max(1, CHUNK_ELEMENTS // vocabulary_size)
    if len(hidden_NH) <= rows:
        return [function(hidden_NH, head, targets_N)]
    return [
        checkpoint(function, hidden_CH, head, targets_C, use_reentrant=False)
        for hidden_CH, targets_C in zip(torch.split(hidden_NH, rows), torch.split(targets_N, rows), strict=True)
    ]


def _logprobs(hidden_CH: Tensor, head: Head, targets_C: Tensor) -> tuple[Tensor, ...]:
    return (selected_logprobs(head(hidden_CH), targets_C),)


def _logprobs_and_entropy(hidden_CH: Tensor, head: Head, targets_C: Tensor) -> tuple[Tensor, ...]:
    logits_CV = head(hidden_CH)
    with torch.no_grad():
        entropy_C = entropy(logits_CV.detach())
    return selected_logprobs(logits_CV, targets_C), entropy_C
