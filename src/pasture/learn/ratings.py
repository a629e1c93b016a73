"""Answers that are judged one by one as tokens, desirable or not: what KTO learns from, whoever judged them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pasture.core.records import Comparison, Judgement, Preference, Rating
from pasture.learn.feedback import JudgedPair, agreement, encode_answer
from pasture.models.encode import EncodedPair, Encoder

LOG = logging.getLogger("pasture.learn")

BALANCED = (0.67, 2.25)
"""Where the desirable answers' weight in all, over the undesirable ones', goes without a warning: the paper's 1 to 1.5,
and as far again to either side."""


@dataclass(frozen=True)
class RatedAnswers:
    """Answers to one prompt, and of each whether it is desirable: the two of a judged pair, or one alone."""

    instruction_id: str
    answers: tuple[EncodedPair, ...]
    desirable: tuple[bool, ...]

    @classmethod
    def of_pair(cls, pair: JudgedPair) -> Self:
        """A pair that is no tie: the preferred answer is desirable, and the other is not."""
        first = pair.first_preferred == 1
        return cls(pair.instruction_id, pair.answers, (first, not first))

    @property
    def is_pair(self) -> bool:
        """Whether these are a desirable and an undesirable answer to one prompt."""
        return len(self.answers) == 2


def told_apart(feedback: Sequence[Judgement]) -> tuple[list[tuple[Comparison, Preference]], list[Rating]]:
    """The judged pairs and the rated answers, each in order."""
    return [row for row in feedback if len(row) == 2], [row[0] for row in feedback if len(row) == 1]


def encode_ratings(encoder: Encoder, ratings: Sequence[Rating]) -> list[RatedAnswers]:
    """Rated answers as tokens, in order, each alone.

    Raises:
        DataError: if an answer has no token, or a prompt is too long.
    """
    return [
        RatedAnswers(
            one.instruction.id,
            (encode_answer(encoder, one.instruction, one.completion, "a rating"),),
            (one.desirable,),
        )
        for one in ratings
    ]


def desirable_of(rated: Sequence[RatedAnswers], device: torch.device) -> Bool[Tensor, " A"]:
    """Of every answer whether it is desirable."""
    return torch.tensor([desirable for one in rated for desirable in one.desirable], device=device)


def count_kinds(rated: Sequence[RatedAnswers], desirable_weight: float, undesirable_weight: float) -> dict[str, float]:
    """How many answers are desirable and how many are not, by name; a lopsided loss is warned of."""
    kinds = [desirable for one in rated for desirable in one.desirable]
    desirable, undesirable = sum(kinds), len(kinds) - sum(kinds)
    lighter = undesirable_weight * undesirable
    share = desirable_weight * desirable / lighter if lighter else float("inf")
    if not BALANCED[0] <= share <= BALANCED[1] and desirable_weight and undesirable_weight:
        LOG.warning(
            "of %d answers %d are desirable: with these weights they count %.2g times as much as the others, which the "
            "paper keeps between 1 and 1.5; see desirable_weight and undesirable_weight",
            len(kinds),
            desirable,
            share,
        )
    return {"answers_desirable": desirable, "answers_undesirable": undesirable}


def rated_figures(
    rated: Sequence[RatedAnswers], loss_A: Float[Tensor, " A"], reward_A: Float[Tensor, " A"]
) -> Float[Tensor, " F"]:
    """Sums that `named_rated_figures` makes means of, without gradients."""
    desirable_A = desirable_of(rated, loss_A.device)
    loss_A, reward_A = loss_A.detach(), reward_A.detach()
    of_pair_A = torch.tensor([one.is_pair for one in rated for _ in one.answers], device=loss_A.device)
    first_P, second_P = reward_A[of_pair_A].reshape(-1, 2).unbind(1)
    preferred_P = torch.tensor([float(one.desirable[0]) for one in rated if one.is_pair], device=loss_A.device)
    agreed_P = agreement(first_P, second_P, preferred_P)
    return torch.stack([loss_A.sum(), reward_A[desirable_A].sum(), reward_A[~desirable_A].sum(), agreed_P.sum()])


def named_rated_figures(
    sum_F: Float[Tensor, " F"], rated: Sequence[RatedAnswers], prefix: str = ""
) -> dict[str, Tensor | float]:
    """Means over all answers, the desirable, the undesirable ones and the pairs; of none there is no figure."""
    kinds = [desirable for one in rated for desirable in one.desirable]
    counts = {
        "loss": len(kinds),
        "rewards/chosen": sum(kinds),
        "rewards/rejected": len(kinds) - sum(kinds),
        "rewards/accuracies": sum(one.is_pair for one in rated),
    }
    found = {name: value / count for value, (name, count) in zip(sum_F, counts.items(), strict=True) if count}
    if {"rewards/chosen", "rewards/rejected"} <= found.keys():
        found["rewards/margins"] = found["rewards/chosen"] - found["rewards/rejected"]
    return {f"{prefix}{name}": value for name, value in found.items()}
