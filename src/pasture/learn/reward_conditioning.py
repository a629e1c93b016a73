"""Binary reward conditioning: imitate both answers of each pair behind a token that says which was preferred.

Minimizes -(1/N) sum log pi(y_t | x, c, y_<t) over the N tokens of a batch's answers, where the control token c is
`<|good|>` before a preferred answer and `<|bad|>` before the other. The model is asked with `<|good|>` ever after.

Source: Dubois et al. 2023 (AlpacaFarm), https://arxiv.org/abs/2305.14387, after Keskar et al. 2019 (CTRL),
https://arxiv.org/abs/1909.05858, and Liu et al. 2023, https://arxiv.org/abs/2302.02676; it released weights and no
training code. Defaults are those of its supervised fine-tuning: 3 epochs, batch 128, rate 2e-5, cosine with 3% warmup.

What differs:
1. Good and bad are control tokens of their own, which no text can spell, and not words before the prompt.
2. The token that a model is asked with is saved in its folder, and whatever loads the folder asks with it.
3. A tie is neither. Ties, unjudged comparisons and pairs of equal answers are left out and counted in the metrics.
4. The mean is over the tokens of the whole batch, and dropout is off, as in `sft.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.ports import Progress
from pasture.core.records import Comparison, Preference
from pasture.core.templates import PromptTemplate
from pasture.learn import sft
from pasture.learn.epochs import Epochs
from pasture.learn.feedback import JudgedPair, encode_feedback, split, without_ties
from pasture.learn.resume import Resumable, fingerprint
from pasture.learn.update import adamw, take_step
from pasture.machine.device import resolve_device
from pasture.models.control_tokens import add_control_tokens, control_token_id, set_answer_prefix
from pasture.models.encode import EncodedPair, Encoder
from pasture.models.load import load_tokenizer, save_model, within_context
from pasture.models.response import ResponseModel
from pasture.models.trainable import load_trainable

GOOD, BAD = "<|good|>", "<|bad|>"


class Config(sft.Config):
    """Settings of binary reward conditioning: those of supervised fine-tuning, on both answers of each pair."""

    answer_prefix: ClassVar[str] = GOOD
    """What follows every prompt, in training and ever after."""
    batch_size: int = Field(128, ge=1)
    """Answers a step."""
    held_out_count: int = Field(0, ge=0)
    """Pairs kept back, whole instructions at a time, to measure the loss on after every epoch."""

    @model_validator(mode="after")
    def _tokens_are_trained(self) -> Self:
        if self.weights.lora is not None:
            raise ValueError(
                "adapters leave the rows of the tokens as they are, and a good and a bad token that begin alike would "
                "stay alike; leave out weights.lora"
            )
        return self


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
    """Fine-tune the model in `start` on both answers of each pair; `folder` then holds `model/` and `metrics.jsonl`.

    Called again after a kill, it goes on from the last checkpoint to the same weights.

    Raises:
        DataError: if a preference is of another comparison, a prompt is too long, or nothing is left to train on.
        ModelError: if the tokenizer has a word that reads like a control token.
        TrainingError: if the loss becomes NaN or infinite.
    """
    tokenizer, device = load_tokenizer(start), resolve_device(config.device)
    add_control_tokens(tokenizer, [GOOD, BAD])
    set_answer_prefix(tokenizer, config.answer_prefix)
    encoder = Encoder(tokenizer, template, max_tokens=within_context(start, config.max_tokens))
    pairs, left_out = without_ties(*encode_feedback(encoder, feedback))
    bad_id = control_token_id(tokenizer, BAD)
    rows, held_out_rows = (conditioned_rows(part, bad_id) for part in split(pairs, config.held_out_count, seed))
    model = load_trainable(start, config.weights, tokenizer=tokenizer, device=device, seed=seed)
    responder, optimizer = ResponseModel(model), adamw(model, weight_decay=config.weight_decay)
    epochs = Epochs(len(rows), config.batch_size, config.epochs, seed, "conditioning-batches")
    data = [row.ids for row in conditioned_rows(pairs, bad_id)]
    identity = fingerprint(config.model_dump(exclude=NO_PART_OF_THE_RESULT), seed, data, modules=[model])
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


def conditioned_rows(pairs: Sequence[JudgedPair], bad_id: int) -> list[EncodedPair]:
    """Each pair's preferred answer as it is, its prompt ending in the good token, then the other behind the bad one."""
    rows = []
    for pair in pairs:
        rejected = pair.rejected
        rows += [pair.preferred, EncodedPair([*rejected.prompt_ids[:-1], bad_id], rejected.response_ids)]
    return rows
