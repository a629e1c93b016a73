"""Supervised fine-tuning: imitate demonstrations, loss on the response alone.

Minimizes -(1/N) sum log pi(y_t | x, y_<t) over the N response tokens of a batch, the end token included.

Source: Ouyang et al. 2022, section 3.5, https://arxiv.org/abs/2203.02155; settings of Dubois et al. 2023 (AlpacaFarm),
https://arxiv.org/abs/2305.14387, as defaults: 3 epochs, batch 128, rate 2e-5, cosine with 3% warmup.

What differs:
1. The mean is over the response tokens of the whole batch, so no number depends on how the batch is cut; AlpacaFarm
   took the mean of each micro-batch.
2. Prompt and response are tokenized apart, and an answer that was cut by a length limit carries no end token.
3. Dropout is off, as at sampling time.
4. Every batch is drawn at random; only within it are rows sorted by length.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.errors import DataError
from pasture.core.ports import Progress
from pasture.core.records import Completion, Instruction
from pasture.core.seeds import stream
from pasture.core.templates import PromptTemplate
from pasture.formulas.logprobs import head_logprobs
from pasture.formulas.masks import prediction_mask, response_mask
from pasture.learn.epochs import Epochs
from pasture.learn.resume import Resumable, fingerprint
from pasture.learn.update import adamw, take_step
from pasture.machine.device import DeviceChoice, resolve_device
from pasture.machine.distributed import share, total
from pasture.models.batches import pad_right, token_budget_batches
from pasture.models.encode import EncodedPair, Encoder
from pasture.models.load import load_tokenizer, save_model, within_context
from pasture.models.response import ResponseModel
from pasture.models.trainable import load_trainable
from pasture.models.weights_config import Weights


class Config(BaseModel):
    """Settings of supervised fine-tuning."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    epochs: int = Field(3, ge=1)
    learning_rate: float = Field(2e-5, gt=0)
    """The highest rate, reached after the warmup."""
    batch_size: int = Field(128, ge=1)
    """Demonstrations a step."""
    warmup_fraction: float = Field(0.03, ge=0, lt=1)
    """Share of all steps in which the rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    max_gradient_norm: float = Field(1.0, gt=0)
    max_tokens: int = Field(512, ge=2)
    """Prompt and response together; longer responses are cut."""
    held_out_count: int = Field(0, ge=0)
    """Demonstrations kept back to measure the loss on, after every epoch."""
    micro_batch_tokens: int = Field(1024, ge=1)
    """Tokens in one forward pass, padding included; results do not depend on it."""
    checkpoint_steps: int = Field(200, ge=1)
    """Steps between two checkpoints to go on from after a kill."""
    device: DeviceChoice = "auto"
    weights: Weights = Weights()


def sft_loss(logprob_N: Float[Tensor, " N"], response_token_count: int) -> Float[Tensor, ""]:
    """A micro-batch's part of the mean negative log-likelihood per response token, in nats.

    `logprob_N` speaks of the micro-batch, the count of the whole batch: the parts add up to the batch's mean.
    """
    return -logprob_N.sum() / response_token_count


def train(
    config: Config,
    *,
    start: Path,
    demonstrations: Sequence[tuple[Instruction, Completion]],
    template: PromptTemplate,
    folder: Path,
    seed: int,
    progress: Progress,
) -> None:
    """Fine-tune the model in `start`; `folder` then holds `model/` and `metrics.jsonl`.

    Called again after a kill, it goes on from the last checkpoint to the same weights.

    Raises:
        DataError: if there are no demonstrations to train on, one is empty, or a prompt is too long.
        TrainingError: if the loss becomes NaN or infinite.
    """
    tokenizer, device = load_tokenizer(start), resolve_device(config.device)
    model = load_trainable(start, config.weights, tokenizer=tokenizer, device=device, seed=seed)
    encoder = Encoder(tokenizer, template, max_tokens=within_context(start, config.max_tokens))
    rows = encode_demonstrations(encoder, demonstrations)
    training_rows, held_out_rows = _split(rows, config.held_out_count, seed)
    responder = ResponseModel(model)
    optimizer = adamw(model, weight_decay=config.weight_decay)
    epochs = Epochs(len(training_rows), config.batch_size, config.epochs, seed, "sft-batches")
    identity = fingerprint(
        config.model_dump(exclude=NO_PART_OF_THE_RESULT), seed, [row.ids for row in rows], modules=[model]
    )
    with Resumable(folder, {"model": model}, optimizer, identity=identity) as run:
        first_step, _ = run.resume()
        for step in range(first_step, epochs.total_steps):
            batch = [training_rows[row] for row in epochs.rows(step)]
            loss = accumulate_gradients(responder, batch, encoder.pad_id, config.micro_batch_tokens)
            learning_rate = config.learning_rate * epochs.cosine_factor(step, config.warmup_fraction)
            [norm] = take_step(optimizer, learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm)
            figures: dict[str, Tensor | float] = {"loss": loss, "grad_norm": norm, "learning_rate": learning_rate}
            if held_out_rows and epochs.ends_epoch(step):
                figures["eval_loss"] = mean_loss(responder, held_out_rows, encoder.pad_id, config.micro_batch_tokens)
            run.log(step + 1, figures)
            if (step + 1) % config.checkpoint_steps == 0:
                run.checkpoint(step + 1)
            run.report(progress, step + 1, epochs.total_steps, loss=loss)
        run.finish(lambda target: save_model(model, tokenizer, target))


def encode_demonstrations(
    encoder: Encoder, demonstrations: Sequence[tuple[Instruction, Completion]]
) -> list[EncodedPair]:
    """Demonstrations as tokens, in order.

    Raises:
        DataError: if there are none, one is empty, or a prompt is too long.
    """
    if not demonstrations:
        raise DataError("there are no demonstrations to train on.")
    for instruction, completion in demonstrations:
        if not completion.text.strip():
            raise DataError(f"the demonstration for instruction {instruction.id!r} is empty. Leave it out.")
    return [encoder.pair(instruction, completion) for instruction, completion in demonstrations]


def _split(rows: list[EncodedPair], held_out_count: int, seed: int) -> tuple[list[EncodedPair], list[EncodedPair]]:
    if held_out_count >= len(rows):
        raise DataError(f"held_out_count = {held_out_count} leaves nothing to train on: there are {len(rows)} rows.")
    order = stream(seed, "sft-held-out").permutation(len(rows))
    held_out = set(order[:held_out_count].tolist())
    return (
        [row for number, row in enumerate(rows) if number not in held_out],
        [row for number, row in enumerate(rows) if number in held_out],
    )


def accumulate_gradients(
    responder: ResponseModel, batch: Sequence[EncodedPair], pad_id: int, micro_batch_tokens: int
) -> Float[Tensor, ""]:
    """Add the gradients of a batch's mean loss per response token; that loss comes back."""
    token_count = sum(len(row.response_ids) for row in batch)
    losses = []
    for numbers, weight in share(token_budget_batches([len(row) for row in batch], micro_batch_tokens)):
        rows = [batch[number] for number in numbers]
        loss = weight * sft_loss(response_logprobs(responder, rows, pad_id), token_count)
        torch.autograd.backward(loss)
        losses.append(loss.detach())
    return total(torch.stack(losses).sum())


def response_logprobs(responder: ResponseModel, rows: Sequence[EncodedPair], pad_id: int) -> Float[Tensor, " N"]:
    """Log-probability of every response token, row after row."""
    device = responder.model.device
    ids_BT = pad_right([row.ids for row in rows], pad_id)[0].to(device)
    prompt_lengths_B = torch.tensor([len(row.prompt_ids) for row in rows], device=device)
    lengths_B = torch.tensor([len(row) for row in rows], device=device)
    predicted_BT = prediction_mask(response_mask(prompt_lengths_B, lengths_B, ids_BT.shape[1]))
    hidden_NH = responder.hidden(ids_BT[:, :-1], predicted_BT)
    return head_logprobs(hidden_NH, responder.head, ids_BT[:, 1:][predicted_BT], responder.vocabulary_size)


@torch.no_grad()
def mean_loss(responder: ResponseModel, rows: Sequence[EncodedPair], pad_id: int, micro_batch_tokens: int) -> float:
    """Mean negative log-likelihood per response token, in nats."""
    loss = 0.0
    for numbers, weight in share(token_budget_batches([len(row) for row in rows], micro_batch_tokens)):
        loss -= weight * float(response_logprobs(responder, [rows[number] for number in numbers], pad_id).sum())
    summed = total(torch.tensor(loss, dtype=torch.float64, device=responder.model.device))
    return float(summed) / sum(len(row.response_ids) for row in rows)
