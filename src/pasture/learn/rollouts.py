"""What methods that learn from their own answers share: prompts to answer, answers drawn, answers scored."""

import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from pasture.core.errors import DataError, PastureError, ScorerError, TrainingError
from pasture.core.ports import Scorer
from pasture.core.records import Completion, Instruction
from pasture.core.seeds import derived_seed, stream
from pasture.core.templates import PromptTemplate
from pasture.formulas.importance import truncated_importance_weights
from pasture.formulas.logprobs import head_logprobs
from pasture.formulas.masks import prediction_mask, response_mask
from pasture.learn.drawing import OwnSampler
from pasture.machine.distributed import own_part, share, together, total
from pasture.machine.sharded import gathered
from pasture.models.batches import grouped_batches, pad_right
from pasture.models.encode import EncodedPair, Encoder
from pasture.models.response import ResponseModel
from pasture.models.sample import SamplerConfig

MOST_DIFFERENCE, MOST_MEAN_DIFFERENCE = 1e-3, 0.15
"""Nats between the sampler's log-probability of a token and a forward pass's: of any in float32, on average in less."""


@dataclass(frozen=True)
class Environment:
    """What a policy is asked, in which format, and what its answers earn."""

    instructions: Sequence[Instruction]
    template: PromptTemplate
    scorer: Scorer


def check_instructions(encoder: Encoder, instructions: Sequence[Instruction]) -> list[list[int]]:
    """The prompt of every instruction as tokens.

    Raises:
        DataError: if there are no instructions, or one is too long.
    """
    if not instructions:
        raise DataError("there are no instructions to answer.")
    return [encoder.prompt(instruction) for instruction in instructions]


def step_instructions(count: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Numbers of the instructions that step `step` (from 0) answers.

    Steps walk through one shuffle of all instructions after another, across their borders.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    shuffles = {epoch: stream(seed, "prompts", epoch).permutation(count) for epoch in {at // count for at in places}}
    return [int(shuffles[at // count][at % count]) for at in places]


def minibatches(count: int, size: int, epochs: int, seed: int) -> Iterator[list[int]]:
    """Numbers of the rows of each minibatch, `epochs` times through all, each time in another order.

    They are as few as hold at most `size` rows, and as even as can be: no row that remains is a step of its own.
    """
    parts = -(-count // size)
    for epoch in range(epochs):
        order = stream(seed, "order", epoch).permutation(count).tolist()
        yield from (order[part * count // parts : (part + 1) * count // parts] for part in range(parts))


@dataclass(frozen=True)
class Answers:
    """One batch of answers, row by row; B rows, T the longest row's tokens without its first.

    Entry t of a row speaks of the token at t + 1, which the model predicted at t.
    """

    instructions: list[Instruction]
    """What each row answers; a group's rows stand side by side."""
    completions: list[Completion]
    rows: list[EncodedPair]
    ids_BT: Int[Tensor, "B T+1"]
    """Prompt and answer, padded on the right."""
    mask_BT: Bool[Tensor, "B T"]
    """True at the tokens of the answer, the end token included."""
    sampler_logprob_BT: Float[Tensor, "B T"]
    """Log-probability of each token when it was drawn; 0 at masked entries."""
    finished_B: Bool[Tensor, " B"]
    """Whether the answer came to an end of its own."""

    def spread(self, of_tokens: Callable[[Tensor, Tensor], Tensor], micro_batch_tokens: int) -> Float[Tensor, "B T"]:
        """`of_tokens(ids, mask)`, one number for each unmasked entry, over all rows; 0 at masked entries."""
        result_BT = torch.zeros_like(self.sampler_logprob_BT)
        for numbers, weight in share(self.batches(range(len(self.rows)), micro_batch_tokens)):
            ids_BT, mask_BT, place = self.part(numbers)
            block_BT = torch.zeros(mask_BT.shape, device=mask_BT.device)
            block_BT[mask_BT] = of_tokens(ids_BT, mask_BT)
            if weight:
                result_BT[place] = block_BT
        return total(result_BT)

    def batches(self, numbers: Sequence[int], micro_batch_tokens: int) -> list[list[int]]:
        """Places in `numbers` in micro-batches, with answers to one prompt in one where they fit: it is read once."""
        rows = [self.rows[number] for number in numbers]
        return grouped_batches([tuple(row.prompt_ids) for row in rows], list(map(len, rows)), micro_batch_tokens)

    def part(self, numbers: Sequence[int]) -> tuple[Int[Tensor, "b t+1"], Bool[Tensor, "b t"], tuple[Tensor, slice]]:
        """Ids and mask of some rows, no wider than these need, and the place of both in a tensor of shape B T."""
        width = max(len(self.rows[number]) for number in numbers) - 1
        row_B = torch.tensor(numbers, device=self.ids_BT.device)
        place = (row_B, slice(width))
        return self.ids_BT[row_B, : width + 1], self.mask_BT[place], place


@dataclass(frozen=True)
class Rollouts(Answers):
    """Answers and what they earned."""

    score_B: Float[Tensor, " B"]
    """What the scorer gave."""

    def scores(self, missing_eos_score: float | None) -> Float[Tensor, " B"]:
        """The scores, with `missing_eos_score`, where given, in place of those of answers that were cut."""
        if missing_eos_score is None:
            return self.score_B
        return torch.where(self.finished_B, self.score_B, missing_eos_score)


def collect(
    model: PreTrainedModel | OwnSampler,
    encoder: Encoder,
    environment: Environment,
    numbers: Sequence[int],
    *,
    max_new_tokens: int,
    seed: int,
    group_size: int = 1,
) -> Rollouts:
    """`group_size` answers of `model`, at temperature 1, to each numbered instruction, with their scores.

    Raises:
        ScorerError: if the scorer raises, or does not give one finite number for each answer.
    """
    instructions = [environment.instructions[number] for number in numbers]
    sampling = SamplerConfig(max_new_tokens=max_new_tokens)
    answers = draw(model, encoder, instructions, sampling, seed=seed, group_size=group_size)
    scores = checked_scores(environment.scorer, answers.instructions, answers.completions)
    return Rollouts(**vars(answers), score_B=torch.tensor(scores, device=answers.ids_BT.device))


def draw(
    model: PreTrainedModel | OwnSampler,
    encoder: Encoder,
    instructions: Sequence[Instruction],
    sampling: SamplerConfig,
    *,
    seed: int,
    group_size: int = 1,
) -> Answers:
    """`group_size` answers of `model` to each instruction, side by side; a group's prompt is read once.

    Each process draws its share, and has all answers; as every answer has a random stream of its own, they do not
    depend on the shares.
    The log-probabilities that come back are the model's own, whatever temperature and truncation it was drawn at, or
    where a server draws, the server's.
    """
    sampler = model if isinstance(model, OwnSampler) else OwnSampler(model)
    asked = [instruction for instruction in instructions for _ in range(group_size)]
    prompts = [encoder.prompt(instruction) for instruction in asked]
    seeds = [derived_seed(seed, "answer", place) for place in range(len(prompts))]
    groups = own_part(len(instructions))
    own = slice(groups.start * group_size, groups.stop * group_size)
    with gathered(sampler.policy):
        samples = together(sampler.draw(encoder, prompts[own], seeds[own], sampling))
    completions = [
        Completion(
            instruction_id=instruction.id,
            text=encoder.text(answer.said_ids),
            system="policy",
            seed=place,
            finish_reason=answer.finish_reason,
            token_count=len(answer.token_ids),
        )
        for place, (instruction, answer) in enumerate(zip(asked, samples, strict=True))
    ]
    rows = [EncodedPair(prompt, answer.token_ids) for prompt, answer in zip(prompts, samples, strict=True)]
    ids_BT, mask_BT = batch_tensors(rows, encoder.pad_id, sampler.device)
    logprob_BT = torch.zeros(mask_BT.shape, device=sampler.device)
    logprobs = [value for answer in samples for value in answer.logprobs]
    logprob_BT[mask_BT] = torch.tensor(logprobs, device=sampler.device)
    return Answers(
        instructions=asked,
        completions=completions,
        rows=rows,
        ids_BT=ids_BT,
        mask_BT=mask_BT,
        sampler_logprob_BT=logprob_BT,
        finished_B=torch.tensor([answer.finish_reason == "stop" for answer in samples], device=sampler.device),
    )


def batch_tensors(
    rows: Sequence[EncodedPair], pad_id: int, device: torch.device
) -> tuple[Int[Tensor, "B T+1"], Bool[Tensor, "B T"]]:
    """Ids of the rows, padded on the right, and a mask that is True where the next token is one of the answer's."""
    ids_BT = pad_right([row.ids for row in rows], pad_id)[0].to(device)
    prompt_lengths_B = torch.tensor([len(row.prompt_ids) for row in rows], device=device)
    lengths_B = torch.tensor([len(row) for row in rows], device=device)
    return ids_BT, prediction_mask(response_mask(prompt_lengths_B, lengths_B, ids_BT.shape[1]))


@torch.no_grad()
def token_logprobs(model: ResponseModel, answers: Answers, micro_batch_tokens: int) -> Float[Tensor, "B T"]:
    """Log-probability of every answer token under `model`; 0 at masked entries."""

    def of_tokens(ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        hidden_NH = model.hidden(ids_BT[:, :-1], mask_BT)
        return head_logprobs(hidden_NH, model.head, ids_BT[:, 1:][mask_BT], model.vocabulary_size)

    return answers.spread(of_tokens, micro_batch_tokens)


def logprobs_asked_by(
    encoder: Encoder, model: ResponseModel, answers: Answers, micro_batch_tokens: int
) -> Float[Tensor, "B T"]:
    """Log-probability of every answer token under `model`, to which `encoder` puts the prompts; 0 at masked entries.

    B and T are those of `answers`, whose prompts may be longer or shorter.

    Raises:
        DataError: if a prompt leaves no room for an answer.
    """
    rows = [
        EncodedPair(encoder.prompt(instruction), row.response_ids)
        for instruction, row in zip(answers.instructions, answers.rows, strict=True)
    ]
    ids_BT, mask_BT = batch_tensors(rows, encoder.pad_id, answers.ids_BT.device)
    empty_BT = torch.zeros(mask_BT.shape, device=mask_BT.device)
    asked = replace(answers, rows=rows, ids_BT=ids_BT, mask_BT=mask_BT, sampler_logprob_BT=empty_BT)
    logprob_BT = torch.zeros_like(answers.sampler_logprob_BT)
    logprob_BT[answers.mask_BT] = token_logprobs(model, asked, micro_batch_tokens)[mask_BT]
    return logprob_BT


def old_logprobs(
    policy: ResponseModel, answers: Answers, micro_batch_tokens: int, sampler_ratio_cap: float | None
) -> Float[Tensor, "B T"]:
    """Log-probability of every answer token under the policy as it is before it learns; 0 at masked entries.

    In float32 and without a cap it is what the sampler recorded, for nothing. With a cap the sampler may be another
    engine, whose numbers are not quite the policy's, and the policy is asked again. So it is in fewer bits: there one
    token at a time is not rounded as a whole answer is. SmolLM2 in bfloat16 differs by 0.04 nats a token, and with
    that alone four in ten answers of 128 tokens would begin outside of a ratio of 0.8 to 1.2.
    """
    if sampler_ratio_cap is None and policy.model.dtype == torch.float32:
        return answers.sampler_logprob_BT
    return token_logprobs(policy, answers, micro_batch_tokens)


def sampler_weights(
    old_logprob: Float[Tensor, "*N"], sampler_logprob: Float[Tensor, "*N"], sampler_ratio_cap: float | None
) -> Float[Tensor, "*N"]:
    """What each token or answer counts: 1 without a cap, where the policy itself drew, and what differs is rounding."""
    if sampler_ratio_cap is None:
        return torch.ones_like(old_logprob)
    return truncated_importance_weights(old_logprob, sampler_logprob, sampler_ratio_cap)


def check_sampler(policy: ResponseModel, answers: Answers, micro_batch_tokens: int) -> None:
    """Compare the log-probabilities recorded while sampling with those of a forward pass.

    Raises:
        TrainingError: if they differ by more than rounding.
    """
    difference_BT = (token_logprobs(policy, answers, micro_batch_tokens) - answers.sampler_logprob_BT).abs()
    if policy.model.dtype == torch.float32:
        how, tolerance, found = "up to", MOST_DIFFERENCE, float(difference_BT.max())
    else:  # the worst of many tokens grows with their number, and a sound sampler's too
        how, tolerance = "on average", MOST_MEAN_DIFFERENCE
        found = float(difference_BT.sum() / answers.mask_BT.sum())
    if not found <= tolerance:
        raise TrainingError(
            f"log-probabilities from sampling and from training differ by {how} {found:.2g} nats a token, expected at "
            f"most {tolerance:g}: the sampler does not draw from the policy that is trained. "
            "Check that the model's attention handles padding and a cache. Where another engine samples, set "
            "sampler_ratio_cap, which corrects for the difference."
        )


def objective_figures(
    answers: Answers, logprob_BT: Float[Tensor, "B T"], kl_B: Float[Tensor, " B"]
) -> dict[str, Tensor | float]:
    """What every method reports of a batch of answers; `logprob_BT` is the policy's, `kl_B` each answer's k1 sum."""
    some: dict[str, Tensor | float] = {}
    if isinstance(answers, Rollouts):
        some["reward"] = answers.score_B.mean()
    if logprob_BT is not answers.sampler_logprob_BT:
        difference_BT = (logprob_BT - answers.sampler_logprob_BT).abs()
        some["sampling/sampling_logp_difference/mean"] = difference_BT.sum() / answers.mask_BT.sum()
    return some | {
        "objective/kl": kl_B.mean(),
        "objective/entropy": -logprob_BT.sum(1).mean(),
        "completions/mean_length": answers.mask_BT.sum(1).float().mean(),
        "completions/clipped_ratio": 1 - answers.finished_B.float().mean(),
    }


def checked_scores(
    scorer: Scorer, instructions: Sequence[Instruction], completions: Sequence[Completion]
) -> list[float]:
    """The scorer's numbers, one for each completion; of several processes each asks for its share.

    Raises:
        ScorerError: if the scorer raises, or does not give one finite number for each completion.
    """
    own = own_part(len(completions))
    return together(_checked_scores(scorer, instructions[own], completions[own]))


def _where(error: BaseException) -> str:
    """File and line that raised an error."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}, line {last.lineno}"


def _checked_scores(
    scorer: Scorer, instructions: Sequence[Instruction], completions: Sequence[Completion]
) -> list[float]:
    if not completions:
        return []
    try:
        scores = [float(score) for score in scorer(instructions, completions)]
    except PastureError:
        raise
    except Exception as error:
        raise ScorerError(
            f"the scorer raised {type(error).__name__}: {error} ({_where(error)}). It was given {len(completions)} "
            "completions; "
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
