"""Quark: sort own answers by their score into quantiles, imitate each under its quantile's token, ask for the best.

Each step draws answers, sorts all of the pool into K quantiles, and minimizes the mean over answer tokens of

    -log pi(y_t | x, r_k, y_<t) + beta * KL(pi(. | x, r_k, y_<t) || pi_ref(. | x, y_<t)),

where the control token r_k behind the prompt names the quantile of y, and the KL is exact, over the vocabulary. From
the second step on, answers are drawn behind the best quantile's token, and so they are ever after: the model folder
says so itself. With `train_on = "best"` there are no control tokens: the best quantile alone is imitated.

Source: Lu et al. 2022, Algorithm 1, https://arxiv.org/abs/2205.13636; settings of Dubois et al. 2023
(AlpacaFarm), https://arxiv.org/abs/2305.14387, as defaults: 4 quantiles, the best alone, answers of one step.

What differs:
1. The end token is learned: what is imitated are the tokens that were drawn. AlpacaFarm's answers went through text and
   came back without it, so its policy never learned to stop.
2. The first answer token is predicted from the last token before it. AlpacaFarm padded answers on the left, so that a
   pad stood there in training and the prompt in use.
3. Equal scores share a quantile, the lowest that one of them falls into; the highest score is always of the best.
4. The divergence is from the policy to the reference, as in AlpacaFarm's code; the paper's objective has it the other
   way round. It is taken over the vocabulary without the control tokens.
5. The mean of a loss is over the answer tokens of a minibatch, however it is cut to fit into memory. Dropout is off.
   The answers learned from, whose number differs from step to step, are cut into minibatches as even as can be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.files import read_records, write_records
from pasture.core.ports import Progress
from pasture.core.records import Record
from pasture.core.seeds import derived_seed, stream
from pasture.engines.rollout_settings import RolloutServerConfig
from pasture.formulas.divergence import k1
from pasture.formulas.logprobs import head_logprobs_with_kl
from pasture.learn.drawing import Drawing
from pasture.learn.resume import Resumable, fingerprint, keeps_copy
from pasture.learn.rollouts import (
    Environment,
    Rollouts,
    batch_tensors,
    check_instructions,
    collect,
    logprobs_asked_by,
    minibatches,
    objective_figures,
    step_instructions,
)
from pasture.learn.update import adamw, linear_factor, take_step
from pasture.machine.device import DeviceChoice, resolve_device
from pasture.machine.distributed import on_main, share, total
from pasture.models.batches import token_budget_batches
from pasture.models.control_tokens import add_control_tokens, set_answer_prefix
from pasture.models.encode import EncodedPair, Encoder
from pasture.models.load import load_tokenizer, row_count, save_model
from pasture.models.response import ResponseModel
from pasture.models.trainable import load_trainable, reference_of
from pasture.models.weights_config import Weights


class Config(BaseModel):
    """Settings of Quark."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(80, ge=1)
    """Batches of answers to draw and learn from."""
    rollout_batch_size: int = Field(512, ge=1)
    """Answers drawn a step, and most answers of the pool that are learned from in it."""
    quantiles: int = Field(4, ge=2)
    """K."""
    train_on: Literal["best", "all"] = "best"
    """Whether the best quantile alone is imitated, or all, each behind a control token of its own."""
    pool_steps: Annotated[int, Field(ge=1)] | Literal["all"] = 1
    """Steps whose answers are sorted together, the latest ones; "all" is the paper's."""
    minibatch_size: int = Field(512, ge=1)
    """Most answers to one step of the optimizer; those learned from are cut into as few and as even parts as can be."""
    inner_epochs: int = Field(1, ge=1)
    """Times that a step's answers are gone through."""
    learning_rate: float = Field(3e-6, gt=0)
    """The highest rate; it falls to 0 in a line over all steps."""
    warmup_steps: int = Field(5, ge=0)
    """First steps, in which the rate rises."""
    max_gradient_norm: float = Field(1.0, gt=0)
    kl_coefficient: float = Field(0.05, ge=0)
    """beta."""
    missing_eos_score: float | None = None
    """Score of an answer that was cut before its end, in place of the scorer's; None leaves it to the scorer."""
    max_prompt_tokens: int = Field(192, ge=1)
    """Without the control token."""
    max_new_tokens: int = Field(300, ge=1)
    rollouts: RolloutServerConfig | None = None
    """A server that draws the answers; None: the policy does, in this process."""
    save_every: int = Field(20, ge=1)
    """Steps between two copies of the policy in `steps/`, to pick one from afterwards; the last step has one too."""
    micro_batch_tokens: int = Field(1024, ge=1)
    """Tokens in one forward pass, padding included; results do not depend on it."""
    checkpoint_steps: int = Field(10, ge=1)
    """Steps between two checkpoints to go on from after a kill."""
    device: DeviceChoice = "auto"
    weights: Weights = Weights()

    @model_validator(mode="after")
    def _control_tokens_can_be_learned(self) -> Self:
        if self.train_on == "all" and self.weights.lora is not None:
            raise ValueError(
                'train_on = "all" teaches the embeddings of new control tokens, which adapters leave alone: train all '
                'weights, or set train_on = "best"'
            )
        if self.train_on == "all" and self.rollouts is not None:
            raise ValueError(
                'train_on = "all" adds control tokens, which a server of the model that training begins with does not '
                'know: leave rollouts out, or set train_on = "best"'
            )
        return self


def quark_loss(logprob_N: Float[Tensor, " N"], kl_N: Float[Tensor, " N"], kl_coefficient: float) -> Float[Tensor, " N"]:
    """Negative log-likelihood of each answer token and its penalty, in nats."""
    return kl_coefficient * kl_N - logprob_N


def quantiles(score_B: Float[Tensor, " B"], count: int) -> Int[Tensor, " B"]:
    """The quantile of each score among all, 0 for the lowest to `count` - 1 for the highest.

    Equal scores share the lowest quantile that one of them falls into, so that what most answers score is no success;
    but the highest score is always of the highest quantile, which is never empty.
    """
    ordered_B = score_B.sort().values
    # Rank, from 0, of the first of the scores that equal this one.
    rank_B = torch.searchsorted(ordered_B, score_B)
    return torch.where(score_B == ordered_B[-1], count - 1, rank_B * count // len(score_B))


class ScoredAnswer(Record):
    """An answer as it was drawn, and what it earned."""

    instruction: int
    """Its instruction's number."""
    response_ids: list[int]
    score: float


class Pool:
    """The answers of the latest steps; on disk, where they are of more than one."""

    def __init__(self, folder: Path, pool_steps: int | Literal["all"]) -> None:
        self.folder = folder
        self.pool_steps = pool_steps
        self.answers: dict[int, list[ScoredAnswer]] = {}
        """By step, from 0."""

    def resume(self, first_step: int) -> None:
        """Read again what the steps before `first_step` have left."""
        for step in range(self._oldest(first_step), first_step):
            self.answers[step] = read_records(self._file(step), ScoredAnswer)

    def add(self, step: int, answers: list[ScoredAnswer]) -> None:
        """Take in the answers of a step, and let those of the oldest go."""
        self.answers[step] = answers
        self.answers = {one: kept for one, kept in self.answers.items() if one >= self._oldest(step + 1)}
        if self.pool_steps != 1:
            on_main(lambda: write_records(self._file(step), answers))

    def all(self) -> list[ScoredAnswer]:
        """Every answer, the oldest first."""
        return [answer for step in sorted(self.answers) for answer in self.answers[step]]

    def _oldest(self, next_step: int) -> int:
        """The first step whose answers count once `next_step` steps have drawn theirs."""
        return 0 if self.pool_steps == "all" else max(0, next_step - self.pool_steps)

    def _file(self, step: int) -> Path:
        return self.folder / f"{step + 1:04d}.jsonl"


@dataclass(frozen=True)
class Models:
    """Policy and reference, and how many tokens, from the first, they share: all but the control tokens."""

    policy: ResponseModel
    reference: ResponseModel
    shared_tokens: int


@dataclass(frozen=True)
class Row:
    """One answer to learn from, as the policy and as the reference read it."""

    conditioned: EncodedPair
    plain: EncodedPair


class Asking:
    """How each quantile is asked for: behind its control token, or plainly where there are none."""

    def __init__(self, config: Config, plain: Encoder) -> None:
        self.plain = plain
        self.by_quantile = [plain] * config.quantiles
        if config.train_on == "all":
            names = control_tokens(config)
            add_control_tokens(plain.tokenizer, names)
            self.by_quantile = [plain.asking_with(name) for name in names]
            # Saved with the model, which is asked for its best from then on.
            set_answer_prefix(plain.tokenizer, names[-1])

    @property
    def best(self) -> Encoder:
        """The encoder that asks for the best quantile."""
        return self.by_quantile[-1]

    def row(self, environment: Environment, answer: ScoredAnswer, quantile: int) -> Row:
        """An answer behind its prompt, conditioned on its quantile and plain."""
        instruction = environment.instructions[answer.instruction]
        conditioned, plain = (
            EncodedPair(encoder.prompt(instruction), answer.response_ids)
            for encoder in (self.by_quantile[quantile], self.plain)
        )
        return Row(conditioned, plain)


def control_tokens(config: Config) -> list[str]:
    """The quantiles' names, from the lowest to the highest."""
    return [f"<|quantile-{number}-of-{config.quantiles}|>" for number in range(1, config.quantiles + 1)]


def train(
    config: Config, *, start: Path, environment: Environment, folder: Path, seed: int, progress: Progress
) -> None:
    """Train the language model in `start`, which is the reference as well.

    `folder` then holds `model/`, `metrics.jsonl`, and a copy of the policy every `save_every` steps, `steps/0020/` and
    so on. Called again after a kill, it goes on from the last checkpoint to the same weights.

    Raises:
        DataError: if there are no instructions, or one is too long.
        ScorerError: if the scorer raises, or does not give one finite number for each answer.
        TrainingError: if a figure becomes NaN or infinite.
    """
    tokenizer = load_tokenizer(start)
    shared_tokens = row_count(tokenizer)
    room = config.max_prompt_tokens + (2 if config.train_on == "all" else 1)
    asking = Asking(config, Encoder(tokenizer, environment.template, max_tokens=room))
    prompts = check_instructions(asking.best, environment.instructions)
    device = resolve_device(config.device)
    policy = ResponseModel(load_trainable(start, config.weights, tokenizer=tokenizer, device=device, seed=seed))
    reference = reference_of(policy.model, start, config.weights, tokenizer=tokenizer)
    models = Models(policy, reference, shared_tokens)
    optimizer = adamw(policy.model)
    identity = fingerprint(config.model_dump(exclude=NO_PART_OF_THE_RESULT), seed, prompts, modules=[policy.model])
    with (
        Resumable(folder, {"policy": policy.model}, optimizer, identity=identity) as run,
        Drawing(config.rollouts, policy.model, asking.plain, folder, start=start) as drawing,
    ):
        drawing.check(max(map(len, prompts)), config.max_new_tokens)
        pool = Pool(folder / "pool", config.pool_steps)
        first_step, _ = run.resume()
        if config.pool_steps != 1:
            pool.resume(first_step)
        for step in range(first_step, config.steps):
            numbers = step_instructions(len(prompts), config.rollout_batch_size, step, seed)
            rollouts = collect(
                drawing.now(),
                asking.plain if step == 0 else asking.best,
                environment,
                numbers,
                max_new_tokens=config.max_new_tokens,
                seed=derived_seed(seed, "quark-answers", step),
            )
            figures = evaluate(config, models, asking.plain, rollouts)
            pool.add(step, scored(config, numbers, rollouts))
            rows = choose(config, environment, asking, pool.all(), derived_seed(seed, "quark-choice", step))
            learning_rate = config.learning_rate * linear_factor(step, config.steps, config.warmup_steps)
            figures |= learn(
                config, models, optimizer, rows, learning_rate, derived_seed(seed, "quark-minibatches", step)
            )
            run.log(step + 1, figures | {"learning_rate": learning_rate})
            if keeps_copy(step, config.save_every, config.steps):
                save_model(policy.model, tokenizer, folder / "steps" / f"{step + 1:04d}")
            if (step + 1) % config.checkpoint_steps == 0:
                run.checkpoint(step + 1)
            run.report(progress, step + 1, config.steps, score=figures["reward"], kl=figures["objective/kl"])
        run.finish(lambda target: save_model(policy.model, tokenizer, target))


@torch.no_grad()
def evaluate(config: Config, models: Models, plain: Encoder, rollouts: Rollouts) -> dict[str, Tensor | float]:
    """What is reported of a batch of answers; the reference reads them behind the plain prompt."""
    reference_logprob_BT = logprobs_asked_by(plain, models.reference, rollouts, config.micro_batch_tokens)
    kl_B = k1(rollouts.sampler_logprob_BT.sum(1), reference_logprob_BT.sum(1))
    return objective_figures(rollouts, rollouts.sampler_logprob_BT, kl_B)


def scored(config: Config, numbers: Sequence[int], rollouts: Rollouts) -> list[ScoredAnswer]:
    """The answers for the pool."""
    scores = rollouts.scores(config.missing_eos_score).tolist()
    return [
        ScoredAnswer(instruction=number, response_ids=row.response_ids, score=score)
        for number, row, score in zip(numbers, rollouts.rows, scores, strict=True)
    ]


def choose(
    config: Config, environment: Environment, asking: Asking, answers: list[ScoredAnswer], seed: int
) -> list[Row]:
    """At most `rollout_batch_size` answers of the pool, at random: of the best quantile, or of all."""
    quantile_B = quantiles(torch.tensor([answer.score for answer in answers]), config.quantiles).tolist()
    best = config.quantiles - 1
    kept = [number for number, quantile in enumerate(quantile_B) if config.train_on == "all" or quantile == best]
    order = stream(seed, "order").permutation(len(kept))[: config.rollout_batch_size]
    return [asking.row(environment, answers[kept[place]], quantile_B[kept[place]]) for place in sorted(order.tolist())]


def learn(
    config: Config,
    models: Models,
    optimizer: torch.optim.Optimizer,
    rows: list[Row],
    learning_rate: float,
    seed: int,
) -> dict[str, Tensor | float]:
    """Go through the rows `inner_epochs` times; means over answer tokens of what was met come back."""
    sums, norms, tokens = [], [], 0
    for numbers in minibatches(len(rows), config.minibatch_size, config.inner_epochs, seed):
        batch = [rows[number] for number in numbers]
        sums.append(accumulate_gradients(config, models, batch))
        [norm] = take_step(optimizer, learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm)
        norms.append(norm)
        tokens += sum(len(row.plain.response_ids) for row in batch)
    means = torch.stack(sums).sum(0) / tokens
    figures: dict[str, Tensor | float] = dict(zip(_TOKEN_FIGURES, means, strict=True))
    figures["grad_norm"] = torch.stack(norms).mean()
    figures["pool/learned"] = float(len(rows))
    return figures


_TOKEN_FIGURES = ("loss", "nll_loss", "kl")


def accumulate_gradients(config: Config, models: Models, rows: Sequence[Row]) -> Float[Tensor, " F"]:
    """Add the gradients of the mean loss per answer token; sums over tokens of `_TOKEN_FIGURES` come back."""
    token_count = sum(len(row.plain.response_ids) for row in rows)
    policy, reference = models.policy, models.reference
    sums = []
    lengths = [len(row.conditioned) for row in rows]
    for batch, weight in share(token_budget_batches(lengths, config.micro_batch_tokens)):
        # What pads hold is never looked at.
        ids_BT, mask_BT = batch_tensors([rows[number].conditioned for number in batch], 0, policy.model.device)
        plain_ids_BT, plain_mask_BT = batch_tensors([rows[number].plain for number in batch], 0, policy.model.device)
        with torch.no_grad():
            reference_hidden_NH = reference.hidden(plain_ids_BT[:, :-1], plain_mask_BT)
        logprob_N, kl_N = head_logprobs_with_kl(
            (policy.hidden(ids_BT[:, :-1], mask_BT), policy.head),
            (reference_hidden_NH, reference.head),
            ids_BT[:, 1:][mask_BT],
            models.shared_tokens,
        )
        loss_N = quark_loss(logprob_N, kl_N, config.kl_coefficient)
        torch.autograd.backward(weight * loss_N.sum() / token_count)
        with torch.no_grad():
            sums.append(weight * torch.stack([figure.sum() for figure in (loss_N, -logprob_N, kl_N)]))
    return total(torch.stack(sums).sum(0))
