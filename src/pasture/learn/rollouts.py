"""What methods that learn from their own answers share: prompts to answer, answers drawn, answers scored."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from pasture.core.errors import PastureError, ScorerError
from pasture.core.ports import Scorer
from pasture.core.records import Completion, Instruction
from pasture.core.seeds import derived_seed, stream
from pasture.core.templates import PromptTemplate
from pasture.formulas.masks import prediction_mask, response_mask
from pasture.models.batches import pad_right, token_budget_batches
from pasture.models.encode import EncodedPair, Encoder
from pasture.models.sample import SamplerConfig, sample


@dataclass(frozen=True)
class Environment:
    """What a policy is asked, in which format, and what its answers earn."""

    instructions: Sequence[Instruction]
    template: PromptTemplate
    scorer: Scorer


def step_instructions(count: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Numbers of the instructions that step `step` (from 0) answers.

    Steps walk through one shuffle of all instructions after another, across their borders.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    shuffles = {epoch: stream(seed, "prompts", epoch).permutation(count) for epoch in {at // count for at in places}}
    return [int(shuffles[at // count][at % count]) for at in places]


@dataclass(frozen=True)
class Rollouts:
    """One batch of answers, row by row; B rows, T the longest row's tokens without its first.

    Entry t of a row speaks of the token at t + 1, which the model predicted at t.
    """

    rows: list[EncodedPair]
    ids_BT: Int[Tensor, "B T+1"]
    """Prompt and answer, padded on the right."""
    mask_BT: Bool[Tensor, "B T"]
    """True at the tokens of the answer, the end token included."""
    sampler_logprob_BT: Float[Tensor, "B T"]
    """Log-probability of each token when it was drawn; 0 at masked entries."""
    score_B: Float[Tensor, " B"]
    """What the scorer gave."""
    finished_B: Bool[Tensor, " B"]
    """Whether the answer came to an end of its own."""

    def spread(self, of_tokens: Callable[[Tensor, Tensor], Tensor], micro_batch_tokens: int) -> Float[Tensor, "B T"]:
        """`of_tokens(ids, mask)`, one number for each unmasked entry, over all rows; 0 at masked entries."""
        result_BT = torch.zeros_like(self.sampler_logprob_BT)
        for numbers in token_budget_batches([len(row) for row in self.rows], micro_batch_tokens):
            ids_BT, mask_BT, place = self.part(numbers)
            block_BT = torch.zeros(mask_BT.shape, device=mask_BT.device)
            block_BT[mask_BT] = of_tokens(ids_BT, mask_BT)
            result_BT[place] = block_BT
        return result_BT

    def part(self, numbers: Sequence[int]) -> tuple[Int[Tensor, "b t+1"], Bool[Tensor, "b t"], tuple[Tensor, slice]]:
        """Ids and mask of some rows, no wider than these need, and the place of both in a tensor of shape B T."""
        width = max(len(self.rows[number]) for number in numbers) - 1
        row_B = torch.tensor(numbers, device=self.ids_BT.device)
        place = (row_B, slice(width))
        return self.ids_BT[row_B, : width + 1], self.mask_BT[place], place


def collect(
    model: PreTrainedModel,
    encoder: Encoder,
    environment: Environment,
    numbers: Sequence[int],
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    seed: int,
) -> Rollouts:
    """One answer of `model`, at temperature 1, to each numbered instruction, with its score.

    Raises:
        ScorerError: if the scorer raises, or does not give one finite number for each answer.
    """
    instructions = [environment.instructions[number] for number in numbers]
    prompts = [encoder.prompt(instruction) for instruction in instructions]
    seeds = [derived_seed(seed, "answer", place) for place in range(len(prompts))]
    samples = sample(model, stop_ids, prompts, seeds, SamplerConfig(max_new_tokens=max_new_tokens))
    completions = [
        Completion(
            instruction_id=instruction.id,
            text=encoder.text(answer.token_ids),
            system="policy",
            seed=place,
            finish_reason=answer.finish_reason,
            token_count=len(answer.token_ids),
        )
        for place, (instruction, answer) in enumerate(zip(instructions, samples, strict=True))
    ]
    scores = checked_scores(environment.scorer, instructions, completions)
    rows = [EncodedPair(prompt, answer.token_ids) for prompt, answer in zip(prompts, samples, strict=True)]
    device = model.device
    ids_BT = pad_right([row.ids for row in rows], encoder.pad_id)[0].to(device)
    prompt_lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
    lengths_B = torch.tensor([len(row) for row in rows], device=device)
    mask_BT = prediction_mask(response_mask(prompt_lengths_B, lengths_B, ids_BT.shape[1]))
    logprob_BT = torch.zeros(mask_BT.shape, device=device)
    logprob_BT[mask_BT] = torch.tensor([value for answer in samples for value in answer.logprobs], device=device)
    return Rollouts(
        rows=rows,
        ids_BT=ids_BT,
        mask_BT=mask_BT,
        sampler_logprob_BT=logprob_BT,
        score_B=torch.tensor(scores, device=device),
        finished_B=torch.tensor([answer.finish_reason == "stop" for answer in samples], device=device),
    )


def checked_scores(
    scorer: Scorer, instructions: Sequence[Instruction], completions: Sequence[Completion]
) -> list[float]:
    """The scorer's numbers, one for each completion.

    Raises:
        ScorerError: if the scorer raises, or does not give one finite number for each completion.
    """
    try:
        scores = [float(score) for score in scorer(instructions, completions)]
    except PastureError:
        raise
    except Exception as error:
        raise ScorerError(
            f"the scorer raised {type(error).__name__}: {error}. It was given {len(completions)} completions; "
            "it must return one finite number for each."
        ) from error
    if len(scores) != len(completions):
        raise ScorerError(f"the scorer returned {len(scores)} numbers for {len(completions)} completions.")
    for completion, score in zip(completions, scores, strict=True):
        if not math.isfinite(score):
            raise ScorerError(
                f"the scorer returned {score} for an answer to instruction {completion.instruction_id!r}; "
                "every score must be a finite number."
            )
    return scores
