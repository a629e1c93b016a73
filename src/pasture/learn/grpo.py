"""GRPO: raise a scorer's reward, each answer measured against its group, each token held to a ratio of its own.

The advantage A of an answer is its score less its group's mean, over the group's standard deviation; all its tokens
share it. With rho = pi / pi_old of a token the policy minimizes

    max(-A rho, -A clip(rho, 1 - e_low, 1 + e_high)) + beta * (pi_ref / pi - 1 - log(pi_ref / pi)),

the mean over the tokens of each answer, then over answers. There is no value model.

Source: Shao et al. 2024 (DeepSeekMath), Eq. 3 and 4, https://arxiv.org/abs/2402.03300. Options: without the standard
deviation and the length of the answer, Liu et al. 2025 (Dr. GRPO), https://arxiv.org/abs/2503.20783; two clip ranges
and the mean over all tokens of a minibatch, Yu et al. 2025 (DAPO), https://arxiv.org/abs/2503.14476

What differs:
1. A group whose scores are all equal has advantages of exactly 0; its share is reported.
2. The standard deviation divides by k - 1, as in TRL and verl; the paper does not say.
3. In float32 the log-probabilities recorded while sampling are pi_old, compared with a forward pass at the start; in
   fewer bits they are computed again.
4. The loss of a minibatch does not depend on how it is cut to fit into memory. Dropout is off.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.ports import Progress
from pasture.core.seeds import derived_seed
from pasture.engines.rollout_settings import RolloutServerConfig
from pasture.formulas.advantages import group_centred_advantages, group_standardized_advantages
from pasture.formulas.divergence import k1, k3
from pasture.formulas.logprobs import head_logprobs_with_entropy
from pasture.formulas.surrogate import clipped_surrogate, is_clipped
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
    """Settings of GRPO."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(80, ge=1)
    """Batches of answers to learn from."""
    rollout_batch_size: int = Field(512, ge=2)
    """Answers drawn a step, to `rollout_batch_size / group_size` prompts."""
    group_size: int = Field(8, ge=2)
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
    kl_coefficient: float = Field(0.04, ge=0)
    """beta."""
    clip_low: float = Field(0.2, gt=0)
    """How far below 1 the ratio of a token counts."""
    clip_high: float = Field(0.2, gt=0)
    """How far above 1; DAPO's is 0.28."""
    advantage_scale: Literal["group_deviation", "none"] = "group_deviation"
    """What a score's distance from its group's mean is divided by; "none" is Dr. GRPO's."""
    length_weight: Literal["answer", "token", "constant"] = "answer"
    """What a token's loss is divided by, besides the count of answers: the tokens of its answer (GRPO), the mean of
    these over the minibatch (DAPO), or `max_new_tokens` (Dr. GRPO)."""
    reward: RewardPlace = "own"
    """Whether the reward model is a model of its own, or adapters and a head on the policy's trunk, where both are
    adapters to one model: one copy of its weights less."""
    missing_eos_score: float | None = None
    """Score of an answer that was cut before its end, in place of the scorer's; None leaves it to the scorer."""
    sampler_ratio_cap: float | None = Field(None, gt=0)
    """Most that a token counts for being likelier under the policy than under a sampler that is not quite the policy.

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


def grpo_loss(
    logprob_N: Float[Tensor, " N"],
    old_logprob_N: Float[Tensor, " N"],
    reference_logprob_N: Float[Tensor, " N"],
    advantage_N: Float[Tensor, " N"],
    config: Config,
) -> Float[Tensor, " N"]:
    """Clipped surrogate loss and divergence penalty of each answer token."""
    surrogate_N = clipped_surrogate(
        logprob_N, old_logprob_N, advantage_N, clip_low=config.clip_low, clip_high=config.clip_high
    )
    return surrogate_N + config.kl_coefficient * k3(logprob_N, reference_logprob_N)


def token_weights(length_B: Float[Tensor, " B"], config: Config) -> Float[Tensor, " B"]:
    """What each token of an answer of that length counts for in the loss of a minibatch of such answers.

    Source: Liu et al. 2025, Section 3.1 (bias of the length), https://arxiv.org/abs/2503.20783
    """
    match config.length_weight:
        case "answer":
            divisor_B = length_B
        case "token":
            divisor_B = length_B.mean().expand_as(length_B)
        case "constant":
            divisor_B = torch.full_like(length_B, config.max_new_tokens)
    return 1 / (divisor_B * len(length_B))


@dataclass(frozen=True)
class Experience:
    """A batch of answers with what learning from it needs."""

    rollouts: Rollouts
    old_logprob_BT: Float[Tensor, "B T"]
    """Under the policy before it learns from the batch: pi_old."""
    reference_logprob_BT: Float[Tensor, "B T"]
    weight_BT: Float[Tensor, "B T"]
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
                seed=derived_seed(seed, "grpo-answers", step),
                group_size=config.group_size,
            )
            if step == first_step and config.sampler_ratio_cap is None:
                check_sampler(policy, rollouts, config.micro_batch_tokens)
            experience = evaluate(config, policy, reference, rollouts)
            learning_rate = config.learning_rate * linear_factor(step, config.steps, config.warmup_steps)
            learned = learn(
                config, policy, optimizer, experience, learning_rate, derived_seed(seed, "grpo-minibatches", step)
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
    kl_B = k1(logprob_BT, reference_logprob_BT).sum(1)
    score_NG = rollouts.scores(config.missing_eos_score).view(-1, config.group_size)
    advantages = {"group_deviation": group_standardized_advantages, "none": group_centred_advantages}
    figures = objective_figures(rollouts, logprob_BT, kl_B) | {
        "group/reward_std": score_NG.std(1).mean(),
        "frac_reward_zero_std": (score_NG == score_NG[:, :1]).all(1).float().mean(),
    }
    return Experience(
        rollouts=rollouts,
        old_logprob_BT=logprob_BT,
        reference_logprob_BT=reference_logprob_BT,
        weight_BT=sampler_weights(logprob_BT, rollouts.sampler_logprob_BT, config.sampler_ratio_cap),
        advantage_B=advantages[config.advantage_scale](score_NG).flatten(),
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
    sums, norms, tokens = [], [], 0
    rows = experience.rollouts.rows
    for numbers in minibatches(len(rows), config.minibatch_size, config.inner_epochs, seed):
        sums.append(accumulate_gradients(config, policy, experience, numbers))
        [norm] = take_step(optimizer, learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm)
        norms.append(norm)
        tokens += sum(len(rows[number].response_ids) for number in numbers)
    total_F = torch.stack(sums).sum(0)
    figures: dict[str, Tensor | float] = dict(zip(_TOKEN_FIGURES, total_F[1:] / tokens, strict=True))
    figures["loss"] = total_F[0] / len(sums)
    figures["grad_norm"] = torch.stack(norms).mean()
    return figures


_TOKEN_FIGURES = ("clip_ratio/region_mean", "policy/approxkl_avg", "kl", "entropy", "val/ratio")


def accumulate_gradients(
    config: Config, policy: ResponseModel, experience: Experience, numbers: list[int]
) -> Float[Tensor, " F"]:
    """Add the gradients of a minibatch's loss; the loss, and sums over its tokens of `_TOKEN_FIGURES`, come back."""
    rollouts = experience.rollouts
    lengths = torch.tensor([float(len(rollouts.rows[number].response_ids)) for number in numbers])
    token_weight_B = token_weights(lengths.to(rollouts.ids_BT.device), config)
    sums = []
    for batch, weight in share(rollouts.batches(numbers, config.micro_batch_tokens)):
        ids_BT, mask_BT, place = rollouts.part([numbers[row] for row in batch])
        hidden_NH = policy.hidden(ids_BT[:, :-1], mask_BT)
        logprob_N, entropy_N = head_logprobs_with_entropy(
            hidden_NH, policy.head, ids_BT[:, 1:][mask_BT], policy.vocabulary_size
        )
        old_logprob_N, reference_logprob_N, weight_N = (
            values_BT[place][mask_BT]
            for values_BT in (experience.old_logprob_BT, experience.reference_logprob_BT, experience.weight_BT)
        )
        of_row_N = mask_BT.nonzero()[:, 0]
        advantage_N = experience.advantage_B[place[0]][of_row_N]
        loss_N = (
            token_weight_B[batch][of_row_N]
            * weight_N
            * grpo_loss(logprob_N, old_logprob_N, reference_logprob_N, advantage_N, config)
        )
        torch.autograd.backward(weight * loss_N.sum())
        with torch.no_grad():
            log_ratio_N = logprob_N - old_logprob_N
            ratio_N = log_ratio_N.exp()
            clipped_N = is_clipped(
                logprob_N, old_logprob_N, advantage_N, clip_low=config.clip_low, clip_high=config.clip_high
            )
            reference_kl_N = k3(logprob_N, reference_logprob_N)
            figures = (loss_N, clipped_N.float(), log_ratio_N.square() / 2, reference_kl_N, entropy_N, ratio_N)
            sums.append(weight * torch.stack([figure.sum() for figure in figures]))
    return total(torch.stack(sums).sum(0))
