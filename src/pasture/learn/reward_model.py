"""Reward model: a score for every answer, fitted to preferences between two.

Minimizes -[t log sigma(r_1 - r_2) + (1 - t) log sigma(r_2 - r_1)], the Bradley-Terry likelihood of a preference, where
t is 1 if the first answer was preferred, 0 if the second, and 1/2 for a tie.

Source: Bradley & Terry 1952, https://doi.org/10.2307/2334029; Stiennon et al. 2020,
https://arxiv.org/abs/2009.01325; settings of Dubois et al. 2023 (AlpacaFarm), https://arxiv.org/abs/2305.14387, as
defaults: 1 epoch, 16 pairs a step, rate 3e-6, cosine with 3% warmup.

What differs:
1. The score is read at the answer's last token, the end token where it has one; AlpacaFarm read it at the last position
   of left-padded text without an end token.
2. A tie counts half for each side, the weight that it has in Davidson 1970, https://doi.org/10.1080/01621459.1970.10481082;
   AlpacaFarm had no ties.
3. After training the score is shifted so that the judged answers (the SFT model's own) score 0 on average, as in
   Stiennon et al. 2020; differences between scores stay.
4. Unjudged comparisons and pairs of equal answers teach nothing; they are left out and counted in the metrics.
5. A pair's prompt is read once for both answers, where the model's attention allows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.errors import DataError
from pasture.core.ports import Progress
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.core.seeds import derived_seed, stream
from pasture.core.templates import PromptTemplate
from pasture.learn.epochs import Epochs
from pasture.learn.feedback import TIE, JudgedPair, agreement, encode_feedback, pair_batches, split
from pasture.learn.resume import Resumable, fingerprint
from pasture.learn.update import adamw, take_step
from pasture.machine.device import DeviceChoice, resolve_device
from pasture.machine.distributed import row_by_row, share, total
from pasture.models.batches import pad_right, token_budget_batches
from pasture.models.encode import NO_LIMIT, EncodedPair, Encoder
from pasture.models.heads import ScalarModel
from pasture.models.load import load_tokenizer, resting_dtype, save_pretrained, within_context
from pasture.models.shared_prompt import AnswerLayout
from pasture.models.trainable import begin_trainable_scalar
from pasture.models.trunk import Rows
from pasture.models.weights_config import Weights


class Config(BaseModel):
    """Settings of reward modelling."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(3e-6, gt=0)
    """The highest rate, reached after the warmup."""
    batch_size: int = Field(16, ge=1)
    """Pairs a step."""
    warmup_fraction: float = Field(0.03, ge=0, lt=1)
    """Share of all steps in which the rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    max_gradient_norm: float = Field(1.0, gt=0)
    max_tokens: int = Field(512, ge=2)
    """Prompt and answer together; longer answers are cut."""
    held_out_count: int = Field(0, ge=0)
    """Pairs kept back, whole instructions at a time, to measure the accuracy on after every epoch."""
    centring_count: int = Field(1000, ge=1)
    """Most judged answers that the mean score is taken over at the end."""
    micro_batch_tokens: int = Field(1024, ge=1)
    """Tokens in one forward pass, padding included; results do not depend on it."""
    checkpoint_steps: int = Field(200, ge=1)
    """Steps between two checkpoints to go on from after a kill."""
    device: DeviceChoice = "auto"
    weights: Weights = Weights()


def bradley_terry_loss(
    first_score_P: Float[Tensor, " P"], second_score_P: Float[Tensor, " P"], first_preferred_P: Float[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """Negative log-likelihood of each preference, in nats.

    Source: Bradley & Terry 1952; the soft label as in Christiano et al. 2017, Section 2.2.3,
    https://arxiv.org/abs/1706.03741
    """
    margin_P = first_score_P - second_score_P
    return -(first_preferred_P * F.logsigmoid(margin_P) + (1 - first_preferred_P) * F.logsigmoid(-margin_P))


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
    """Fit a score to `feedback`, from the language model in `start`; `folder` then holds `model/` and `metrics.jsonl`.

    Called again after a kill, it goes on from the last checkpoint to the same weights.

    Raises:
        DataError: if a preference is of another comparison, or none is left to train on.
        TrainingError: if the loss becomes NaN or infinite.
    """
    tokenizer, device = load_tokenizer(start), resolve_device(config.device)
    encoder = Encoder(tokenizer, template, max_tokens=within_context(start, config.max_tokens))
    pairs, left_out = encode_feedback(encoder, feedback)
    head_seed = derived_seed(seed, "reward-head")
    model = begin_trainable_scalar(
        start, config.weights, tokenizer=tokenizer, device=device, seed=seed, head_seed=head_seed
    )
    layout = AnswerLayout(model.backbone, encoder.pad_id)
    training_pairs, held_out_pairs = split(pairs, config.held_out_count, seed)
    optimizer = adamw(model, weight_decay=config.weight_decay)
    epochs = Epochs(len(training_pairs), config.batch_size, config.epochs, seed, "reward-batches")
    data = [(pair.first.ids, pair.second.ids, pair.first_preferred) for pair in pairs]
    identity = fingerprint(config.model_dump(exclude=NO_PART_OF_THE_RESULT), seed, data, modules=[model])
    with Resumable(folder, {"model": model}, optimizer, identity=identity) as run:
        first_step, _ = run.resume()
        for step in range(first_step, epochs.total_steps):
            batch = [training_pairs[row] for row in epochs.rows(step)]
            loss, accuracy = accumulate_gradients(model, layout, batch, config.micro_batch_tokens)
            learning_rate = config.learning_rate * epochs.cosine_factor(step, config.warmup_fraction)
            [norm] = take_step(optimizer, learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm)
            figures: dict[str, Tensor | float] = {
                "loss": loss,
                "accuracy": accuracy,
                "grad_norm": norm,
                "learning_rate": learning_rate,
            }
            if step == 0:
                figures |= left_out | {"prompts_shared": float(layout.shares_prompts)}
            if held_out_pairs and epochs.ends_epoch(step):
                figures |= evaluate(model, layout, held_out_pairs, config.micro_batch_tokens)
            run.log(step + 1, figures)
            if (step + 1) % config.checkpoint_steps == 0:
                run.checkpoint(step + 1)
            run.report(progress, step + 1, epochs.total_steps, loss=loss)
        answers = [answer for pair in pairs for answer in (pair.first, pair.second)]
        drawn = stream(seed, "reward-centre").permutation(len(answers))[: config.centring_count]
        centre(model, [answers[number] for number in drawn], encoder.pad_id, config.micro_batch_tokens)
        run.finish(lambda target: _save(model, tokenizer, target))


def answer_scores(model: ScalarModel, rows: Sequence[EncodedPair], pad_id: int) -> Float[Tensor, " B"]:
    """The score of each row, read at its last token.

    Rows are padded on the right, where causal attention keeps the pads from every real token.
    """
    device = model.head.weight.device
    ids_BT, own_BT = (tensor.to(device) for tensor in pad_right([row.ids for row in rows], pad_id))
    last_B = torch.tensor([number * ids_BT.shape[1] + len(row) - 1 for number, row in enumerate(rows)], device=device)
    hidden_BH = model.trunk.hidden(Rows(ids_BT, own_BT, own_BT), last_B)
    score_B: Tensor = model.head(hidden_BH.float()).squeeze(-1) - model.offset
    return score_B


def pair_scores(
    model: ScalarModel, layout: AnswerLayout, pairs: Sequence[JudgedPair]
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """The scores of the first answers and of the second ones, each read at the answer's last token."""
    rows = layout.rows([pair.answers for pair in pairs])
    hidden_AH = model.trunk.hidden(rows.rows, rows.last_A)
    score_A = model.head(hidden_AH.float()).squeeze(-1) - model.offset
    return score_A[0::2], score_A[1::2]


def accumulate_gradients(
    model: ScalarModel, layout: AnswerLayout, batch: Sequence[JudgedPair], micro_batch_tokens: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Add the gradients of a batch's mean loss per pair; that loss and the batch's accuracy come back."""
    losses, agreements = [], []
    for numbers, weight in share(pair_batches(layout, batch, micro_batch_tokens)):
        pairs = [batch[number] for number in numbers]
        first_P, second_P = pair_scores(model, layout, pairs)
        target_P = torch.tensor([pair.first_preferred for pair in pairs], device=first_P.device)
        loss = weight * bradley_terry_loss(first_P, second_P, target_P).sum() / len(batch)
        torch.autograd.backward(loss)
        losses.append(loss.detach())
        agreements.append(weight * agreement(first_P.detach(), second_P.detach(), target_P).sum())
    return total(torch.stack(losses).sum()), total(torch.stack(agreements).sum()) / len(batch)


@torch.no_grad()
def evaluate(
    model: ScalarModel, layout: AnswerLayout, pairs: Sequence[JudgedPair], micro_batch_tokens: int
) -> dict[str, Tensor | float]:
    """Mean loss over all pairs, and the share of pairs without ties whose preferred answer scores higher."""
    losses, agreements = [], []
    for numbers, weight in share(pair_batches(layout, pairs, micro_batch_tokens)):
        batch = [pairs[number] for number in numbers]
        first_P, second_P = pair_scores(model, layout, batch)
        target_P = torch.tensor([pair.first_preferred for pair in batch], device=first_P.device)
        losses.append(weight * bradley_terry_loss(first_P, second_P, target_P).sum())
        agreements.append(weight * agreement(first_P, second_P, target_P)[target_P != TIE].sum())
    decided = sum(pair.first_preferred != TIE for pair in pairs)
    figures: dict[str, Tensor | float] = {"eval_loss": total(torch.stack(losses).sum()) / len(pairs)}
    if decided:
        figures["eval_accuracy"] = total(torch.stack(agreements).sum()) / decided
    return figures


@torch.no_grad()
def centre(model: ScalarModel, answers: Sequence[EncodedPair], pad_id: int, micro_batch_tokens: int) -> None:
    """Shift the model so that `answers` score 0 on average."""
    batches = token_budget_batches([len(row) for row in answers], micro_batch_tokens)
    scores = row_by_row(batches, lambda numbers: answer_scores(model, [answers[number] for number in numbers], pad_id))
    model.offset += sum(scores.tolist()) / len(answers)


def _save(model: ScalarModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.save(folder)
    save_pretrained(tokenizer, folder)


@dataclass(frozen=True)
class ModelScorer:
    """A trained reward model as a `Scorer`."""

    model: ScalarModel
    encoder: Encoder
    micro_batch_tokens: int
    folder: Path
    """Where it was loaded from."""

    @classmethod
    def load(
        cls,
        folder: Path,
        template: PromptTemplate,
        *,
        max_tokens: int | None = None,
        micro_batch_tokens: int = 4096,
        device: DeviceChoice = "auto",
    ) -> Self:
        """The reward model that `train` wrote to its `model/`.

        It reads prompt and answer up to `max_tokens`, or where that is left out as far as its context goes, whatever it
        was trained on: an answer that is cut would be scored at a token in its middle.

        Raises:
            ModelError: if `folder` holds no reward model.
        """
        limit = within_context(folder, NO_LIMIT if max_tokens is None else max_tokens)
        encoder = Encoder(load_tokenizer(folder), template, max_tokens=limit)
        place = resolve_device(device)
        model = ScalarModel.load(folder, dtype=resting_dtype(folder, place), device=place)
        return cls(model, encoder, micro_batch_tokens, folder)

    def check_prompts(self, instructions: Sequence[Instruction]) -> None:
        """See that each prompt leaves room for an answer, before there are any.

        Raises:
            DataError: if one does not.
        """
        for instruction in instructions:
            self.encoder.prompt(instruction)

    @torch.no_grad()
    def __call__(self, instructions: Sequence[Instruction], completions: Sequence[Completion]) -> list[float]:
        """The score of each completion, higher is better.

        Raises:
            DataError: if a completion answers another instruction, or a prompt is too long.
        """
        for instruction, completion in zip(instructions, completions, strict=True):
            if instruction.id != completion.instruction_id:
                raise DataError(
                    f"a completion of instruction {completion.instruction_id!r} was handed over with "
                    f"instruction {instruction.id!r}. Hand both over in one order."
                )
        rows = [self.encoder.pair(*both) for both in zip(instructions, completions, strict=True)]
        scores = [0.0] * len(rows)
        for numbers in token_budget_batches([len(row) for row in rows], self.micro_batch_tokens):
            values = answer_scores(self.model, [rows[number] for number in numbers], self.encoder.pad_id).tolist()
            for number, value in zip(numbers, values, strict=True):
                scores[number] = value
        return scores
