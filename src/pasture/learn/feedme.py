"""Binary FeedME: imitate the preferred answer of each pair, as if it were a demonstration.

Minimizes -(1/N) sum log pi(y_t | x, y_<t) over the N tokens of a batch's preferred answers, the end token included.

Source: Dubois et al. 2023 (AlpacaFarm), https://arxiv.org/abs/2305.14387, after OpenAI's FeedME models,
https://platform.openai.com/docs/model-index-for-researchers; it released weights and no code. Defaults are those of its
supervised fine-tuning: 3 epochs, batch 128, rate 2e-5, cosine with 3% warmup.

What differs:
1. OpenAI's models imitated answers that a person had rated 7 of 7; the binary variant has pairs alone.
2. A tie prefers neither answer. Ties, unjudged comparisons and pairs of equal answers are left out and counted in the
   metrics.
3. The mean is over the tokens of the whole batch, and dropout is off, as in `sft.py`.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from torch import Tensor

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.ports import Progress
from pasture.core.records import Comparison, Preference
from pasture.core.templates import PromptTemplate
from pasture.learn import sft
from pasture.learn.epochs import Epochs
from pasture.learn.feedback import encode_feedback, split, without_ties
from pasture.learn.resume import Resumable, fingerprint
from pasture.learn.update import adamw, take_step
from pasture.machine.device import resolve_device
from pasture.models.encode import Encoder
from pasture.models.load import load_tokenizer, save_model, within_context
from pasture.models.response import ResponseModel
from pasture.models.trainable import load_trainable


class Config(sft.Config):
    """Settings of Binary FeedME: those of supervised fine-tuning, with preferred answers for demonstrations."""

    held_out_count: int = Field(0, ge=0)
    """Pairs kept back, whole instructions at a time, to measure the loss on after every epoch."""


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
    """Fine-tune the model in `start` on the preferred answers; `folder` then holds `model/` and `metrics.jsonl`.

    Called again after a kill, it goes on from the last checkpoint to the same weights.

    Raises:
        DataError: if a preference is of another comparison, a prompt is too long, or nothing is left to train on.
        TrainingError: if the loss becomes NaN or infinite.
    """
    tokenizer, device = load_tokenizer(start), resolve_device(config.device)
    encoder = Encoder(tokenizer, template, max_tokens=within_context(start, config.max_tokens))
    pairs, left_out = without_ties(*encode_feedback(encoder, feedback))
    rows, held_out_rows = ([pair.preferred for pair in part] for part in split(pairs, config.held_out_count, seed))
    model = load_trainable(start, config.weights, tokenizer=tokenizer, device=device, seed=seed)
    responder, optimizer = ResponseModel(model), adamw(model, weight_decay=config.weight_decay)
    epochs = Epochs(len(rows), config.batch_size, config.epochs, seed, "feedme-batches")
    identity = fingerprint(
        config.model_dump(exclude=NO_PART_OF_THE_RESULT), seed, [pair.preferred.ids for pair in pairs], modules=[model]
    )
    budget = config.micro_batch_tokens
    with Resumable(folder, {"model": model}, optimizer, identity=identity) as run:
        first_step, _ = run.resume()
        for step in range(first_step, epochs.total_steps):
            batch = [rows[row] for row in epochs.rows(step)]
            loss = sft.accumulate_gradients(responder, batch, encoder.pad_id, budget)
            learning_rate = config.learning_rate * epochs.cosine_factor(step, config.warmup_fraction)
            [norm] = take_step(optimizer, learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm)
            figures: dict[str, Tensor | float] = {"loss": loss, "grad_norm": norm, "learning_rate": learning_rate}
            if step == 0:
                figures |= left_out
            if held_out_rows and epochs.ends_epoch(step):
                figures["eval_loss"] = sft.mean_loss(responder, held_out_rows, encoder.pad_id, budget)
            run.log(step + 1, figures)
            if (step + 1) % config.checkpoint_steps == 0:
                run.checkpoint(step + 1)
            run.report(progress, step + 1, epochs.total_steps, loss=loss)
        run.finish(lambda target: save_model(model, tokenizer, target))
