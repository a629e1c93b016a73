"""KTO: make desirable answers likelier and undesirable ones less so, each judged on its own against a reference point.

With r = log pi(y|x) - log pi_ref(y|x), summed over the answer's tokens, and z the policy's divergence from the
reference, the loss of a desirable answer is w_D (1 - sigma(beta (r - z))), that of an undesirable one
w_U (1 - sigma(beta (z - r))). z takes no gradient; it is the mean of r over answers to other instructions, 0 at least.

Source: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306, with its beta of 0.1, rate of 5e-7 and batches
of 32 answers as defaults.

What differs:
1. Answers may come judged one by one, as the paper has them, or as judged pairs, of which the preferred answer is
   desirable and the other undesirable. A pair's answers come in one batch, so that their prompt is read once, where the
   model's attention allows it.
2. Which answers another instruction lends to a prompt is drawn once, not anew in every batch: the reference's
   log-probabilities of them, too, are computed once before training.
3. AdamW with a cosine after 10% warmup, in place of RMSProp.
4. A tie says neither. Ties, unjudged comparisons and pairs of equal answers are left out and counted in the metrics.
5. An answer that was cut by a length limit carries no end token. Dropout is off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.errors import DataError
from pasture.core.ports import Progress
from pasture.core.records import Judgement
from pasture.core.seeds import stream
from pasture.core.templates import PromptTemplate
from pasture.learn.epochs import Epochs
from pasture.learn.feedback import encode_feedback, split, without_ties
from pasture.learn.likelihoods import answer_logprobs, reference_logprobs
from pasture.learn.ratings import (
    RatedAnswers,
    count_kinds,
    desirable_of,
    encode_ratings,
    named_rated_figures,
    rated_figures,
    told_apart,
)
from pasture.learn.resume import Resumable, fingerprint
from pasture.learn.update import adamw, take_step
from pasture.machine.device import DeviceChoice, resolve_device
from pasture.machine.distributed import share, together, total
from pasture.models.batches import token_budget_batches
from pasture.models.encode import EncodedPair, Encoder
from pasture.models.load import load_tokenizer, save_model, within_context
from pasture.models.response import ResponseModel
from pasture.models.shared_prompt import AnswerLayout
from pasture.models.trainable import load_trainable
from pasture.models.weights_config import Weights

TAKES_RATINGS = True
"""Whether `feedback` may hold answers that were rated alone."""


class Config(BaseModel):
    """Settings of KTO."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    beta: float = Field(0.1, gt=0)
    """How quickly a change in log-probability is felt: the smaller, the further the policy goes."""
    desirable_weight: float = Field(1.0, ge=0)
    """Of the answers that were preferred, or called desirable."""
    undesirable_weight: float = Field(1.0, ge=0)
    """Of the others. The paper keeps the ratio of the weights, times the ratio of the answers' counts, between 1 and
    3/2."""
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(5e-7, gt=0)
    """The highest rate, reached after the warmup."""
    batch_size: int = Field(16, ge=1)
    """Pairs a step, of two answers each, or answers that were judged alone."""
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    max_gradient_norm: float = Field(1.0, gt=0)
    max_tokens: int = Field(512, ge=2)
    """Prompt and answer together; longer answers are cut."""
    held_out_count: int = Field(0, ge=0)
    """Pairs or answers kept back, whole instructions at a time, to measure on after every epoch."""
    save_every: int = Field(50, ge=1)
    """Steps between two copies of the policy in `steps/`, to pick one from afterwards; the last step has one too."""
    micro_batch_tokens: int = Field(1024, ge=1)
    """Tokens in one forward pass, padding included; results do not depend on it."""
    checkpoint_steps: int = Field(200, ge=1)
    """Steps between two checkpoints to go on from after a kill."""
    device: DeviceChoice = "auto"
    weights: Weights = Weights()


@dataclass(frozen=True)
class Row:
    """Rated answers to one prompt, and what the reference makes of them and of mismatched ones behind the prompt."""

    rated: RatedAnswers
    mismatched: tuple[EncodedPair, ...]
    """The prompt with answers to another instruction."""
    reference_G: Float[Tensor, " G"]
    """Log-probabilities of the G answers, in nats."""
    mismatched_reference_G: Float[Tensor, " G"]


def kto_loss(
    logratio_A: Float[Tensor, " A"],
    desirable_A: Bool[Tensor, " A"],
    divergence: Float[Tensor, ""],
    config: Config,
) -> Float[Tensor, " A"]:
    """Loss of each answer, between 0 and its weight.

    A log-ratio is log pi(y|x) - log pi_ref(y|x), summed over the answer's tokens.
    """
    gain_A = config.beta * (logratio_A - divergence)
    weight_A = torch.where(desirable_A, config.desirable_weight, config.undesirable_weight)
    return weight_A * (1 - torch.where(desirable_A, gain_A, -gain_A).sigmoid())


def reference_point(mismatched_logratio_A: Float[Tensor, " A"]) -> Float[Tensor, ""]:
    """The policy's divergence from the reference, in nats, estimated from answers that belong to other prompts.

    Source: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306: biased, of little variance, and
    without a sample from the policy.
    """
    return mismatched_logratio_A.mean().clamp(min=0)


def train(
    config: Config,
    *,
    start: Path,
    feedback: Sequence[Judgement],
    template: PromptTemplate,
    folder: Path,
    seed: int,
    progress: Progress,
) -> None:
    """Train the language model in `start`, which is the reference too, on `feedback`, pairs, answers or both.

    `folder` then holds `model/`, `metrics.jsonl`, the reference's log-probabilities in `reference/`, and a copy of the
    policy every `save_every` steps, `steps/0050/` and so on. Called again after a kill, it goes on from the last
    checkpoint to the same weights.

    Raises:
        DataError: if a preference is of another comparison, a prompt is too long, or nothing is left to train on.
        TrainingError: if the loss becomes NaN or infinite.
    """
    tokenizer = load_tokenizer(start)
    encoder = Encoder(tokenizer, template, max_tokens=within_context(start, config.max_tokens))
    rated, left_out = encode(encoder, feedback)
    training_rows, held_out_rows = split(rated, config.held_out_count, seed)
    device = resolve_device(config.device)
    model = load_trainable(start, config.weights, tokenizer=tokenizer, device=device, seed=seed)
    policy, layout = ResponseModel(model), AnswerLayout(model.base_model, encoder.pad_id)
    ordered = training_rows + held_out_rows
    mismatched = mismatched_answers(ordered, encoder.max_tokens, seed)
    rows = prepare(config, policy, layout, ordered, mismatched, folder=folder)
    count = len(training_rows)
    training, held_out = rows[:count], rows[count:]
    kinds = count_kinds(training_rows, config.desirable_weight, config.undesirable_weight)
    optimizer = adamw(model, weight_decay=config.weight_decay)
    epochs = Epochs(count, config.batch_size, config.epochs, seed, "kto-batches")
    data = [([answer.ids for answer in one.answers], one.desirable) for one in rated]
    identity = fingerprint(config.model_dump(exclude=NO_PART_OF_THE_RESULT), seed, data, modules=[model])
    with Resumable(folder, {"model": model}, optimizer, identity=identity) as run:
        first_step, _ = run.resume()
        for step in range(first_step, epochs.total_steps):
            batch = [training[number] for number in epochs.rows(step)]
            figures = accumulate_gradients(config, policy, layout, batch)
            learning_rate = config.learning_rate * epochs.cosine_factor(step, config.warmup_fraction)
            [norm] = take_step(optimizer, learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm)
            figures |= {"grad_norm": norm, "learning_rate": learning_rate}
            if step == 0:
                figures |= left_out | kinds | {"prompts_shared": float(layout.shares_prompts)}
            if held_out and epochs.ends_epoch(step):
                figures |= evaluate(config, policy, layout, held_out)
            run.log(step + 1, figures)
            if epochs.saves(step, config.save_every):
                save_model(model, tokenizer, folder / "steps" / f"{step + 1:04d}")
            if (step + 1) % config.checkpoint_steps == 0:
                run.checkpoint(step + 1)
            run.report(progress, step + 1, epochs.total_steps, loss=figures["loss"])
        run.finish(lambda target: save_model(model, tokenizer, target))


def encode(encoder: Encoder, feedback: Sequence[Judgement]) -> tuple[list[RatedAnswers], dict[str, float]]:
    """Pairs, then answers that were rated alone, as tokens; and what became of the pairs' labels.

    Raises:
        DataError: if a preference is of another comparison, a prompt is too long, or nothing is left to train on.
    """
    judged, ratings = told_apart(feedback)
    alone = encode_ratings(encoder, ratings)
    if alone and not judged:
        return alone, {}
    pairs, left_out = without_ties(*encode_feedback(encoder, judged))
    return [*map(RatedAnswers.of_pair, pairs), *alone], left_out


def prepare(
    config: Config,
    policy: ResponseModel,
    layout: AnswerLayout,
    rated: Sequence[RatedAnswers],
    mismatched: Sequence[tuple[EncodedPair, ...]],
    *,
    folder: Path,
) -> list[Row]:
    """The answers with what the model, which is the reference as long as it is not trained, makes of them.

    `mismatched` are the answers that `mismatched_answers` gives to their prompts.
    """
    groups = [*(one.answers for one in rated), *mismatched]
    logprob_A = reference_logprobs(policy, layout, groups, folder=folder, micro_batch_tokens=config.micro_batch_tokens)
    parts = torch.split(logprob_A, [len(group) for group in groups])
    return [Row(*row) for row in zip(rated, mismatched, parts[: len(rated)], parts[len(rated) :], strict=True)]


def mismatched_answers(rated: Sequence[RatedAnswers], max_tokens: int, seed: int) -> list[tuple[EncodedPair, ...]]:
    """For each group its prompt with the answers of a group of another instruction, cut to `max_tokens`.

    Raises:
        DataError: if all are of one instruction.
    """
    if len({one.instruction_id for one in rated}) < 2:
        raise DataError("KTO compares with answers to other instructions: there must be answers to two or more.")
    order = [int(number) for number in stream(seed, "kto-lending").permutation(len(rated))]
    partners: dict[int, int] = {}
    for place, number in enumerate(order):
        others = (order[(place + ahead) % len(order)] for ahead in range(1, len(order)))
        partners[number] = next(one for one in others if rated[one].instruction_id != rated[number].instruction_id)
    return [
        tuple(
            EncodedPair(prompt, answer.response_ids[: max_tokens - len(prompt)])
            for answer in rated[partners[number]].answers
        )
        for number, prompt in enumerate(one.answers[0].prompt_ids for one in rated)
    ]


def accumulate_gradients(
    config: Config, policy: ResponseModel, layout: AnswerLayout, batch: Sequence[Row]
) -> dict[str, Tensor | float]:
    """Add the gradients of a batch's mean loss per answer; what `named_rated_figures` has, and `kl`."""
    divergence = _reference_point(config, policy, layout, batch)
    rated = [row.rated for row in batch]
    answer_count = sum(len(one.answers) for one in rated)
    sums = []
    for numbers, weight in share(_micro_batches(layout, rated, config.micro_batch_tokens)):
        loss, figures = _losses(config, policy, layout, [batch[number] for number in numbers], divergence)
        torch.autograd.backward(weight * loss / answer_count)
        sums.append(weight * figures)
    return named_rated_figures(total(torch.stack(sums).sum(0)), rated) | {"kl": divergence}


@torch.no_grad()
def evaluate(
    config: Config, policy: ResponseModel, layout: AnswerLayout, held_out: Sequence[Row]
) -> dict[str, Tensor | float]:
    """The same of held-out rows, under names that begin with "eval_"."""
    divergence = _reference_point(config, policy, layout, held_out)
    rated = [row.rated for row in held_out]
    sums = [
        weight * _losses(config, policy, layout, [held_out[number] for number in numbers], divergence)[1]
        for numbers, weight in share(_micro_batches(layout, rated, config.micro_batch_tokens))
    ]
    figures = named_rated_figures(total(torch.stack(sums).sum(0)), rated, prefix="eval_")
    return figures | {"eval_kl": divergence}


def _micro_batches(layout: AnswerLayout, rated: Sequence[RatedAnswers], budget: int) -> list[list[int]]:
    return token_budget_batches([layout.token_count(one.answers) for one in rated], budget)


@torch.no_grad()
def _reference_point(
    config: Config, policy: ResponseModel, layout: AnswerLayout, batch: Sequence[Row]
) -> Float[Tensor, ""]:
    ratios: list[Tensor] = []
    counts = [layout.token_count(row.mismatched) for row in batch]
    for numbers, weight in share(token_budget_batches(counts, config.micro_batch_tokens)):
        part = [batch[number] for number in numbers]
        logprob_A = answer_logprobs(policy, layout, [row.mismatched for row in part])
        ratio_A = logprob_A - torch.cat([row.mismatched_reference_G for row in part])
        ratios += [ratio_A] if weight else []
    return reference_point(torch.cat([ratio_A.to(layout.device) for ratio_A in together(ratios)]))


def _losses(
    config: Config, policy: ResponseModel, layout: AnswerLayout, part: Sequence[Row], divergence: Float[Tensor, ""]
) -> tuple[Float[Tensor, ""], Float[Tensor, " F"]]:
    """The sum of the answers' losses, and those of `rated_figures`."""
    rated = [row.rated for row in part]
    logprob_A = answer_logprobs(policy, layout, [one.answers for one in rated])
    logratio_A = logprob_A - torch.cat([row.reference_G for row in part])
    loss_A = kto_loss(logratio_A, desirable_of(rated, layout.device), divergence, config)
    of_groups = torch.split(loss_A, [len(one.answers) for one in rated])
    loss = torch.stack([loss_G.sum() for loss_G in of_groups]).sum()
    return loss, rated_figures(rated, loss_A, config.beta * logratio_A)
