"""SimPO: make preferred answers likelier per token than the others, by a margin, without a reference model.

An answer's implicit reward is its mean log-probability per token, the end token included, times beta. With d the first
answer's mean log-probability less the second's, the loss of a pair whose first answer was preferred is
-log sigma(beta d - gamma), and that of -d where the second was.

Source: Meng et al. 2024, Eq. 6, https://arxiv.org/abs/2405.14734; its settings for a base model of 8 billion weights as
defaults: one epoch, 128 pairs a step, rate 6e-7, beta 2, gamma 1, cosine with 10% warmup.

What differs:
1. A tie counts half for each side, so that its loss is least where both answers are equally likely; the paper has none.
2. Known label noise is met as in `dpo.py`.
3. A pair's prompt is read once for both answers, where the model's attention allows it.
4. An answer that was cut by a length limit carries no end token. Dropout is off.
5. Unjudged comparisons and pairs of equal answers teach nothing; they are left out and counted in the metrics.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.ports import Progress
from pasture.core.records import Comparison, Preference
from pasture.core.templates import PromptTemplate
from pasture.formulas.preference_losses import FLIP_CORRECTIONS, logistic_loss, preference_loss
from pasture.learn.epochs import Epochs
from pasture.learn.feedback import JudgedPair, encode_feedback, named_figures, pair_batches, pair_figures, split
from pasture.learn.resume import Resumable, fingerprint
from pasture.learn.update import adamw, take_step
from pasture.machine.device import DeviceChoice, resolve_device
from pasture.machine.distributed import share, total
from pasture.models.encode import Encoder
from pasture.models.load import load_tokenizer, save_model, within_context
from pasture.models.response import ResponseModel
from pasture.models.shared_prompt import AnswerLayout
from pasture.models.trainable import load_trainable
from pasture.models.weights_config import Weights


class Config(BaseModel):
    """Settings of SimPO."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    beta: float = Field(2.0, gt=0)
    """How much a difference in log-probability per token counts."""
    margin: float = Field(1.0, ge=0)
    """gamma: by how much the preferred answer's reward is to lead before the loss falls below log 2."""
    label_flip_probability: float = Field(0.0, ge=0, lt=0.5)
    """Known share of labels that say the contrary of what was meant."""
    flip_correction: Literal["conservative", "unbiased"] = "conservative"
    """How flips are met: by trusting every label less, or by a loss that is right on average over the noise."""
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(6e-7, gt=0)
    """The highest rate, reached after the warmup."""
    batch_size: int = Field(128, ge=1)
    """Pairs a step."""
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    max_gradient_norm: float = Field(1.0, gt=0)
    max_tokens: int = Field(512, ge=2)
    """Prompt and answer together; longer answers are cut."""
    held_out_count: int = Field(0, ge=0)
    """Pairs kept back, whole instructions at a time, to measure loss and accuracy on after every epoch."""
    save_every: int = Field(50, ge=1)
    """Steps between two copies of the policy in `steps/`, to pick one from afterwards; the last step has one too."""
    micro_batch_tokens: int = Field(1024, ge=1)
    """Tokens in one forward pass, padding included; results do not depend on it."""
    checkpoint_steps: int = Field(200, ge=1)
    """Steps between two checkpoints to go on from after a kill."""
    device: DeviceChoice = "auto"
    weights: Weights = Weights()


def simpo_loss(
    first_mean_logprob_P: Float[Tensor, " P"],
    second_mean_logprob_P: Float[Tensor, " P"],
    first_preferred_P: Float[Tensor, " P"],
    config: Config,
) -> Float[Tensor, " P"]:
    """Loss of each pair, from log-probabilities that are means over an answer's tokens.

    A preference is 1 for the first answer, 0 for the second, 1/2 for a tie.
    """

    def loss(difference_P: Tensor) -> Tensor:
        return logistic_loss(difference_P - config.margin / config.beta, config.beta)

    weight_P = FLIP_CORRECTIONS[config.flip_correction](first_preferred_P, config.label_flip_probability)
    return preference_loss(loss, first_mean_logprob_P - second_mean_logprob_P, weight_P)


def train(
    config: Config,
    *,
    start: Path,
    feedback: Sequence[tuple[Comparison, Preference]],
    template: PromptTemplate,
    folder: Path,
    seed: int,
    progress: Progress,
) -> None:
    """Train the language model in `start` on `feedback`.

    `folder` then holds `model/`, `metrics.jsonl`, and a copy of the policy every `save_every` steps, `steps/0050/` and
    so on. Called again after a kill, it goes on from the last checkpoint to the same weights.

    Raises:
        DataError: if a preference is of another comparison, a prompt is too long, or nothing is left to train on.
        TrainingError: if the loss becomes NaN or infinite.
    """
    tokenizer = load_tokenizer(start)
    encoder = Encoder(tokenizer, template, max_tokens=within_context(start, config.max_tokens))
    pairs, left_out = encode_feedback(encoder, feedback)
    training_pairs, held_out_pairs = split(pairs, config.held_out_count, seed)
    device = resolve_device(config.device)
    model = load_trainable(start, config.weights, tokenizer=tokenizer, device=device, seed=seed)
    policy, layout = ResponseModel(model), AnswerLayout(model.base_model, encoder.pad_id)
    optimizer = adamw(model, weight_decay=config.weight_decay)
    epochs = Epochs(len(training_pairs), config.batch_size, config.epochs, seed, "simpo-batches")
    data = [(pair.first.ids, pair.second.ids, pair.first_preferred) for pair in pairs]
    identity = fingerprint(config.model_dump(exclude=NO_PART_OF_THE_RESULT), seed, data, modules=[model])
    with Resumable(folder, {"model": model}, optimizer, identity=identity) as run:
        first_step, _ = run.resume()
        for step in range(first_step, epochs.total_steps):
            rows = epochs.rows(step)
            batch = [training_pairs[row] for row in rows]
            figures = accumulate_gradients(config, policy, layout, batch)
            learning_rate = config.learning_rate * epochs.cosine_factor(step, config.warmup_fraction)
            [norm] = take_step(optimizer, learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm)
            figures |= {"grad_norm": norm, "learning_rate": learning_rate}
            if step == 0:
                figures |= left_out | {"prompts_shared": float(layout.shares_prompts)}
            if held_out_pairs and epochs.ends_epoch(step):
                figures |= evaluate(config, policy, layout, held_out_pairs)
            run.log(step + 1, figures)
            if epochs.saves(step, config.save_every):
                save_model(model, tokenizer, folder / "steps" / f"{step + 1:04d}")
            if (step + 1) % config.checkpoint_steps == 0:
                run.checkpoint(step + 1)
            run.report(progress, step + 1, epochs.total_steps, loss=figures["loss"])
        run.finish(lambda target: save_model(model, tokenizer, target))


def accumulate_gradients(
    config: Config,
    policy: ResponseModel,
    layout: AnswerLayout,
    batch: Sequence[JudgedPair],
) -> dict[str, Tensor | float]:
    """Add the gradients of a batch's mean loss per pair; means over the batch of `PAIR_FIGURES` come back."""
    sums = []
    for numbers, weight in share(pair_batches(layout, batch, config.micro_batch_tokens)):
        loss_P, figures = _losses(config, policy, layout, [batch[number] for number in numbers])
        torch.autograd.backward(weight * loss_P.sum() / len(batch))
        sums.append(weight * figures)
    return named_figures(total(torch.stack(sums).sum(0)), len(batch))


@torch.no_grad()
def evaluate(
    config: Config,
    policy: ResponseModel,
    layout: AnswerLayout,
    pairs: Sequence[JudgedPair],
) -> dict[str, Tensor | float]:
    """Means over held-out pairs of `PAIR_FIGURES`, under names that begin with "eval_"."""
    sums = [
        weight * _losses(config, policy, layout, [pairs[number] for number in numbers])[1]
        for numbers, weight in share(pair_batches(layout, pairs, config.micro_batch_tokens))
    ]
    return named_figures(total(torch.stack(sums).sum(0)), len(pairs), prefix="eval_")


def _losses(
    config: Config,
    policy: ResponseModel,
    layout: AnswerLayout,
    pairs: Sequence[JudgedPair],
) -> tuple[Float[Tensor, " P"], Float[Tensor, " F"]]:
    """The loss of each pair, and sums of `PAIR_FIGURES`."""
    rows = layout.rows([pair.answers for pair in pairs])
    length_A = torch.tensor(rows.lengths, device=layout.device)
    mean_A = rows.answer_sums(policy.answer_logprobs(rows)) / length_A
    preferred_P = torch.tensor([pair.first_preferred for pair in pairs], device=layout.device)
    loss_P = simpo_loss(mean_A[0::2], mean_A[1::2], preferred_P, config)
    return loss_P, pair_figures(loss_P, config.beta * mean_A[0::2], config.beta * mean_A[1::2], preferred_P)
