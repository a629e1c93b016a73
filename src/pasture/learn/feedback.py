"""Judged pairs of answers as tokens: what every method that learns from preferences begins with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from pasture.core.errors import DataError
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.core.seeds import stream
from pasture.models.batches import token_budget_batches
from pasture.models.encode import EncodedPair, Encoder
from pasture.models.shared_prompt import AnswerLayout


class _OfInstruction(Protocol):
    @property
    def instruction_id(self) -> str: ...


_Row = TypeVar("_Row", bound=_OfInstruction)

TIE = 0.5
_TARGETS = {"first": 1.0, "second": 0.0, "tie": TIE}


@dataclass(frozen=True)
class JudgedPair:
    """Two answers to one prompt as tokens, and which was preferred."""

    instruction_id: str
    first: EncodedPair
    second: EncodedPair
    first_preferred: float
    """1, 0, or 1/2 for a tie."""

    @property
    def preferred(self) -> EncodedPair:
        """The better answer of a pair that is no tie."""
        return self.first if self.first_preferred > TIE else self.second

    @property
    def rejected(self) -> EncodedPair:
        """The other."""
        return self.second if self.first_preferred > TIE else self.first

    @property
    def answers(self) -> tuple[EncodedPair, EncodedPair]:
        """Both, as a group that shares its prompt."""
        return self.first, self.second


def encode_feedback(
    encoder: Encoder, feedback: Sequence[tuple[Comparison, Preference]]
) -> tuple[list[JudgedPair], dict[str, float]]:
    """Judged pairs as tokens, in order, and how many were asked for and left out, by reason.

    Raises:
        DataError: if a preference is of another comparison, an answer has no token, a prompt is too long, or no pair is
            left.
    """
    pairs = []
    unjudged = equal = 0
    for comparison, preference in feedback:
        if preference.comparison_id != comparison.id:
            raise DataError(
                f"comparison {comparison.id!r} was handed over with a preference about "
                f"{preference.comparison_id!r}. Join the two files by comparison id."
            )
        if preference.preferred == "unjudged":
            unjudged += 1
        elif comparison.first.text == comparison.second.text:
            equal += 1
        else:
            first, second = (
                encode_answer(encoder, comparison.instruction, side, f"comparison {comparison.id!r}")
                for side in (comparison.first, comparison.second)
            )
            pairs.append(JudgedPair(comparison.instruction.id, first, second, _TARGETS[preference.preferred]))
    if not pairs:
        raise DataError(
            f"no preference is left to train on: of {len(feedback)}, {unjudged} are unjudged "
            f"and {equal} compare equal answers."
        )
    return pairs, {"pairs_asked": len(feedback), "pairs_unjudged": unjudged, "pairs_equal": equal}


def encode_answer(encoder: Encoder, instruction: Instruction, answer: Completion, where: str) -> EncodedPair:
    """An answer behind its prompt.

    Raises:
        DataError: naming `where`, if the answer has no token, or the prompt is too long.
    """
    pair = encoder.pair(instruction, answer)
    if not pair.response_ids:
        raise DataError(
            f"{where}: an answer to instruction {answer.instruction_id!r} has no token: it is "
            "empty and was cut before its end. Leave it out."
        )
    return pair


def without_ties(pairs: Sequence[JudgedPair], left_out: dict[str, float]) -> tuple[list[JudgedPair], dict[str, float]]:
    """The pairs whose label prefers one answer, and the counts of what was left out with the ties among them.

    Raises:
        DataError: if all are ties.
    """
    decided = [pair for pair in pairs if pair.first_preferred != TIE]
    if not decided:
        raise DataError(f"no preference is left to train on: all {len(pairs)} judged pairs are ties.")
    return decided, left_out | {"pairs_tied": len(pairs) - len(decided)}


def split(rows: list[_Row], held_out_count: int, seed: int) -> tuple[list[_Row], list[_Row]]:
    """Rows, such as pairs, to train on, and at least `held_out_count` to measure on, which share no instruction.

    Methods that are given the same rows, count and seed hold out the same.

    Raises:
        DataError: if nothing is left to train on.
    """
    identifiers = sorted({row.instruction_id for row in rows})
    per_instruction = dict.fromkeys(identifiers, 0)
    for row in rows:
        per_instruction[row.instruction_id] += 1
    held_out: set[str] = set()
    count = 0
    for number in stream(seed, "reward-held-out").permutation(len(identifiers)):
        if count >= held_out_count:
            break
        held_out.add(identifiers[number])
        count += per_instruction[identifiers[number]]
    if len(held_out) == len(identifiers):
        raise DataError(f"held_out_count = {held_out_count} leaves nothing to train on: there are {len(rows)} rows.")
    return (
        [row for row in rows if row.instruction_id not in held_out],
        [row for row in rows if row.instruction_id in held_out],
    )


def pair_batches(layout: AnswerLayout, pairs: Sequence[JudgedPair], budget: int) -> list[list[int]]:
    """Numbers of the pairs in micro-batches of at most `budget` tokens, padding included."""
    return token_budget_batches([layout.token_count(pair.answers) for pair in pairs], budget)


def agreement(
    first_score_P: Float[Tensor, " P"], second_score_P: Float[Tensor, " P"], first_preferred_P: Float[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """1 where the preferred answer scores higher, 0 where lower; 1/2 where scores are equal, or the label a tie.

    Of several labels it is the share that say so.
    """
    predicted_P = (torch.sign(first_score_P - second_score_P) + 1) / 2
    return first_preferred_P * predicted_P + (1 - first_preferred_P) * (1 - predicted_P)


PAIR_FIGURES = ("loss", "rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")
"""What is measured of a batch of pairs, by the names that the field gives to it; "rewards" are the policy's own."""


def pair_figures(
    loss_P: Float[Tensor, " P"],
    first_reward_P: Float[Tensor, " P"],
    second_reward_P: Float[Tensor, " P"],
    first_preferred_P: Float[Tensor, " P"],
) -> Float[Tensor, " F"]:
    """Sums over the pairs of `PAIR_FIGURES`, without gradients.

    A tie's answers are both half chosen and half rejected: its margin is 0 and its accuracy 1/2.
    """
    chosen_P = first_preferred_P * first_reward_P + (1 - first_preferred_P) * second_reward_P
    rejected_P = first_reward_P + second_reward_P - chosen_P
    accuracy_P = agreement(first_reward_P, second_reward_P, first_preferred_P)
    figures = (loss_P, accuracy_P, chosen_P - rejected_P, chosen_P, rejected_P)
    return torch.stack([figure.detach().sum() for figure in figures])


def named_figures(sum_F: Float[Tensor, " F"], pair_count: int, prefix: str = "") -> dict[str, Tensor | float]:
    """Means over `pair_count` pairs, by name."""
    return {f"{prefix}{name}": value for name, value in zip(PAIR_FIGURES, sum_F / pair_count, strict=True)}
