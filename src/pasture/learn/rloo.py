"""RLOO: raise a scorer's reward of whole answers, each measured against the other answers to its prompt.

An answer's reward is R = score - beta * sum over its tokens of (log pi - log pi_ref), and its advantage A is R less the
mean R of the other k - 1 answers to the prompt. The answer is one action: with rho = pi(y|x) / pi_old(y|x) the policy
minimizes -A rho, or max(-A rho, -A clip(rho, 1 - e, 1 + e)) where `clip_range` is given. There is no value model.

Source: Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740; Kool et al. 2019,
https://openreview.net/forum?id=r1lgTGL5DE

What differs from the paper and from TRL's trainer:
1. The paper's loss is REINFORCE's, -A log pi: its gradient is that of -A rho before the first step on a batch. The
   ratio keeps it right in later ones.
2. The reward is the scorer's as it is: neither scaled nor clipped.
3. In float32 the log-probabilities recorded while sampling are pi_old, compared with a forward pass at the start; in
   fewer bits they are computed again.
4. The loss is the mean over the answers of a minibatch, however it is cut to fit into memory. Dropout is off.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.ports import Progress
from pasture.core.seeds import derived_seed
from pasture.engines.rollout_settings import RolloutServerConfig
from pasture.formulas.advantages import leave_one_out_advantages
from pasture.formulas.divergence import k1
from pasture.formulas.logprobs import head_logprobs
from pasture.formulas.masks import row_sums
from pasture.formulas.surrogate import clipped_surrogate, is_clipped, plain_surrogate
from pasture.learn.drawing import Drawing, check_corrected
from pasture.learn.resume import Resumable, fingerprint, keeps_copy
from pasture.learn.rollouts import (
    Environment,
    Rollouts,
    check_instructions,
    check_sampler,
    collect,
    minibatches,
    objective_figures,
    old_logprobs,
    sampler_weights,
    step_instructions,
    token_logprobs,
)
from pasture.learn.shared_reward import RewardPlace, check_reward_place, placed
from pasture.learn.update import adamw, linear_factor, take_step
from pasture.machine.device import DeviceChoice, resolve_device
from pasture.machine.distributed import share, total
from pasture.models.encode import Encoder
from pasture.models.load import load_tokenizer, save_model
from pasture.models.response import ResponseModel
from pasture.models.trainable import load_trainable, reference_of
from pasture.models.weights_config import Weights


class Config(BaseModel):
    """Settings of RLOO."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(80, ge=1)
    """Batches of answers to learn from."""
    rollout_batch_size: int = Field(512, ge=2)
    """Answers drawn a step, to `rollout_batch_size / group_size` prompts."""
    group_size: int = Field(4, ge=2)
    """k: answers to one prompt."""
    minibatch_size: int = Field(256, ge=1)
    """Most answers to one step of the optimizer; a batch is cut into as few and as even parts as can be."""
    inner_epochs: int = Field(1, ge=1)
    """Times that a batch of answers is gone through."""
    learning_rate: float = Field(1e-6, gt=0)
    """The highest rate; it falls to 0 in a line over all steps."""
    warmup_steps: int = Field(5, ge=0)
    """First steps, in which the rate rises."""
    max_gradient_norm: float = Field(1.0, gt=0)
    kl_coefficient: float = Field(0.03, ge=0)
    """beta."""
    clip_range: Annotated[float, Field(gt=0)] | Literal["none"] = 0.2
    """e, about the ratio of whole answers; "none" leaves the ratio as it is."""
    reward: RewardPlace = "own"
    """Whether the reward model is a model of its own, or adapters and a head on the policy's trunk, where both are
    adapters to one model: one copy of its weights less."""
    missing_eos_score: float | None = None
    """Score of an answer that was cut before its end, in place of the scorer's; None leaves it to the scorer."""
    sampler_ratio_cap: float | None = Field(None, gt=0)
    """Most that an answer counts for being likelier under the policy than under a sampler that is not quite the policy.

    None: the sampler is the policy itself, which is checked.
    """
    max_prompt_tokens: int = Field(192, ge=1)
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
    def _batches_hold_whole_groups(self) -> Self:
        if self.rollout_batch_size % self.group_size:
            raise ValueError(
                f"rollout_batch_size = {self.rollout_batch_size} is no multiple of group_size = {self.group_size}"
            )
        return self

    @model_validator(mode="after")
    def _a_server_is_allowed_for(self) -> Self:
        check_corrected(self.rollouts, self.sampler_ratio_cap)
        return self

    @model_validator(mode="after")
    def _a_shared_trunk_stays_as_it_is(self) -> Self:
        check_reward_place(self.reward, self.weights)
        return self


def rloo_loss(
    logprob_B: Float[Tensor, " B"],
    old_logprob_B: Float[Tensor, " B"],
    advantage_B: Float[Tensor, " B"],
    clip_range: float | Literal["none"],
) -> Float[Tensor, " B"]:
    """Surrogate loss of each answer, from log-probabilities summed over its tokens."""
    if clip_range == "none":
        return plain_surrogate(logprob_B, old_logprob_B, advantage_B)
    return clipped_surrogate(logprob_B, old_logprob_B, advantage_B, clip_low=clip_range, clip_high=clip_range)


@dataclass(frozen=True)
class Experience:
    """A batch of answers with what learning from it needs."""

    rollouts: Rollouts
    old_logprob_B: Float[Tensor, " B"]
    """Of each whole answer, under the policy before it learns from the batch."""
    weight_B: Float[Tensor, " B"]
    """pi_old over what the sampler drew from, capped: 1 where the sampler is the policy."""
    advantage_B: Float[Tensor, " B"]
    kl: float
    """Mean over answers of the summed k1 divergence from the reference, in nats."""
    figures: dict[str, Tensor | float]


def train(
    config: Config, *, start: Path, environment: Environment, folder: Path, seed: int, progress: Progress
) -> None:
    """Train the language model in `start`, which is the reference as well.

    `folder` then holds `model/`, `metrics.jsonl`, and a copy of the policy every `save_every` steps, `steps/0020/` and
    so on. Called again after a kill, it goes on from the last checkpoint to the same weights.

    Raises:
        DataError: if there are no instructions, or one is too long.
        ModelError: if the reward model cannot share the policy's trunk where it is told to.
        ScorerError: if the scorer raises, or does not give one finite number for each answer.
        TrainingError: if a figure becomes NaN or infinite, or sampling and training disagree about log-probabilities.
    """
    device, tokenizer = resolve_device(config.device), load_tokenizer(start)
    policy = ResponseModel(load_trainable(start, config.weights, tokenizer=tokenizer, device=device, seed=seed))
    environment = placed(environment, policy.model, config.reward)
    reference = reference_of(policy.model, start, config.weights, tokenizer=tokenizer)
    encoder = Encoder(tokenizer, environment.template, max_tokens=config.max_prompt_tokens + 1)
    prompts = check_instructions(encoder, environment.instructions)
    optimizer = adamw(policy.model)
    identity = fingerprint(config.model_dump(exclude=NO_PART_OF_THE_RESULT), seed, prompts, modules=[policy.model])
    with (
        Resumable(folder, {"policy": policy.model}, optimizer, identity=identity) as run,
        Drawing(config.rollouts, policy.model, encoder, folder, start=start) as drawing,
    ):
        drawing.check(max(map(len, prompts)), config.max_new_tokens)
        first_step, _ = run.resume()
        for step in range(first_step, config.steps):
            rollouts = collect(
                drawing.now(),
                encoder,
                environment,
                step_instructions(len(prompts), config.rollout_batch_size // config.group_size, step, seed),
                max_new_tokens=config.max_new_tokens,
                seed=derived_seed(seed, "rloo-answers", step),
                group_size=config.group_size,
            )
            if step == first_step and config.sampler_ratio_cap is None:
                check_sampler(policy, rollouts, config.micro_batch_tokens)
            experience = evaluate(config, policy, reference, rollouts)
            learning_rate = config.learning_rate * linear_factor(step, config.steps, config.warmup_steps)
            learned = learn(
                config, policy, optimizer, experience, learning_rate, derived_seed(seed, "rloo-minibatches", step)
            )
            run.log(step + 1, experience.figures | learned | {"learning_rate": learning_rate})
            if keeps_copy(step, config.save_every, config.steps):
                save_model(policy.model, tokenizer, folder / "steps" / f"{step + 1:04d}")
            if (step + 1) % config.checkpoint_steps == 0:
                run.checkpoint(step + 1)
            run.report(progress, step + 1, config.steps, score=experience.figures["reward"], kl=experience.kl)
        run.finish(lambda target: save_model(policy.model, tokenizer, target))


@torch.no_grad()
def evaluate(config: Config, policy: ResponseModel, reference: ResponseModel, rollouts: Rollouts) -> Experience:
    """Rewards and advantages of a batch of answers, before anything is learned from it."""
    logprob_BT = old_logprobs(policy, rollouts, config.micro_batch_tokens, config.sampler_ratio_cap)
    reference_logprob_BT = token_logprobs(reference, rollouts, config.micro_batch_tokens)
    logprob_B = logprob_BT.sum(1)
    kl_B = k1(logprob_BT, reference_logprob_BT).sum(1)
    reward_NG = (rollouts.scores(config.missing_eos_score) - config.kl_coefficient * kl_B).view(-1, config.group_size)
    figures = objective_figures(rollouts, logprob_BT, kl_B) | {
        "kl": kl_B.sum() / rollouts.mask_BT.sum(),
        "objective/rlhf_reward": reward_NG.mean(),
        "group/rlhf_reward_std": reward_NG.std(1).mean(),
    }
    return Experience(
        rollouts=rollouts,
        old_logprob_B=logprob_B,
        weight_B=sampler_weights(logprob_B, rollouts.sampler_logprob_BT.sum(1), config.sampler_ratio_cap),
        advantage_B=leave_one_out_advantages(reward_NG).flatten(),
        kl=float(kl_B.mean()),
        figures=figures,
    )


def learn(
    config: Config,
    policy: ResponseModel,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    learning_rate: float,
    seed: int,
) -> dict[str, Tensor | float]:
    """Go through a batch of answers `inner_epochs` times; means over answers of what was met come back."""
    count = len(experience.rollouts.rows)
    sums, norms = [], []
    for numbers in minibatches(count, config.minibatch_size, config.inner_epochs, seed):
        sums.append(accumulate_gradients(config, policy, experience, numbers))
        [norm] = take_step(optimizer, learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm)
        norms.append(norm)
    means = torch.stack(sums).sum(0) / (count * config.inner_epochs)
    figures: dict[str, Tensor | float] = dict(zip(_ANSWER_FIGURES, means, strict=True))
    figures["grad_norm"] = torch.stack(norms).mean()
    return figures


_ANSWER_FIGURES = ("loss", "clip_ratio/region_mean", "policy/approxkl_avg", "val/ratio")


def accumulate_gradients(
    config: Config, policy: ResponseModel, experience: Experience, numbers: list[int]
) -> Float[Tensor, " F"]:
    """Add the gradients of a minibatch's mean loss per answer; sums over its answers of `_ANSWER_FIGURES` come back."""
    rollouts = experience.rollouts
    sums = []
    for batch, weight in share(rollouts.batches(numbers, config.micro_batch_tokens)):
        ids_BT, mask_BT, (row_B, _) = rollouts.part([numbers[row] for row in batch])
        hidden_NH = policy.hidden(ids_BT[:, :-1], mask_BT)
        logprob_N = head_logprobs(hidden_NH, policy.head, ids_BT[:, 1:][mask_BT], policy.vocabulary_size)
        logprob_B, old_logprob_B = row_sums(logprob_N, mask_BT), experience.old_logprob_B[row_B]
        loss_B = experience.weight_B[row_B] * rloo_loss(
            logprob_B, old_logprob_B, experience.advantage_B[row_B], config.clip_range
        )
        torch.autograd.backward(weight * loss_B.sum() / len(numbers))
        with torch.no_grad():
            ratio_B = (logprob_B - old_logprob_B).exp()
            clip_range = torch.inf if config.clip_range == "none" else config.clip_range
            clipped_B = is_clipped(
                logprob_B, old_logprob_B, experience.advantage_B[row_B], clip_low=clip_range, clip_high=clip_range
            )
            figures = (loss_B, clipped_B.float(), (logprob_B - old_logprob_B).square() / 2, ratio_B)
            sums.append(weight * torch.stack([figure.sum() for figure in figures]))
    return total(torch.stack(sums).sum(0))
