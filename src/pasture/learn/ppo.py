"""PPO: raise a scorer's reward of the policy's own answers, without straying far from where it began.

A token's reward is -beta * (log pi - log pi_ref), and the answer's score is added at its last token. Advantages A are
estimated with a value model; with rho = pi / pi_old the policy minimizes max(-A rho, -A clip(rho, 1 - e, 1 + e)).

Source: Schulman et al. 2017, Eq. 7, https://arxiv.org/abs/1707.06347; Ziegler et al. 2019, Eq. 2,
https://arxiv.org/abs/1909.08593; settings of Dubois et al. 2023 (AlpacaFarm), https://arxiv.org/abs/2305.14387, as
defaults.

What differs from AlpacaFarm's released code:
1. Masked positions count nowhere: whitening, losses, entropy and clip shares are over answer tokens, and a pad is never
   given a reward. AlpacaFarm averaged over pads, and whitening gave every pad a reward.
2. The divergence in the reward is k1, which may be negative for a token; `kl_estimator = "clamped_k1"` is AlpacaFarm's.
   Coefficients do not carry over between the two.
3. The value model starts as the reward model, head included; AlpacaFarm's head started at zero. With `value = "shared"`
   it is a head on the policy's trunk, begun at zero, in place of a second model.
4. In float32 the log-probabilities recorded while sampling are pi_old, compared with a forward pass at the start; in
   fewer bits they are computed again.
5. Policy and value gradients are clipped each on its own, so that a poor value model does not shrink the policy's step.
6. The mean of a loss is over the answer tokens of a minibatch, however it is cut to fit into memory. Dropout is off.
7. A scorer reads text; it needs not share the policy's tokenizer. A value model of its own reads tokens, so where it
   begins as the reward model, that must: `value = "shared"` is the way out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.errors import ModelError
from pasture.core.ports import Progress
from pasture.core.seeds import derived_seed
from pasture.engines.rollout_settings import RolloutServerConfig
from pasture.formulas.advantages import generalized_advantages, shaped_rewards
from pasture.formulas.divergence import clamped_k1, k1
from pasture.formulas.logprobs import head_logprobs_with_entropy
from pasture.formulas.masks import masked_mean, rescale, standardize
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
from pasture.machine.sharded import share_out_head
from pasture.models.batches import token_budget_batches
from pasture.models.encode import Encoder
from pasture.models.heads import ScalarModel
from pasture.models.load import load_tokenizer, save_model
from pasture.models.response import ResponseModel
from pasture.models.trainable import load_trainable, load_trainable_scalar, reference_of
from pasture.models.weights_config import Weights


class Config(BaseModel):
    """Settings of PPO."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(80, ge=1)
    """Batches of answers to learn from."""
    rollout_batch_size: int = Field(512, ge=1)
    """Answers drawn a step."""
    minibatch_size: int = Field(256, ge=1)
    """Most answers to one step of the optimizer; a batch is cut into as few and as even parts as can be."""
    inner_epochs: int = Field(2, ge=1)
    """Times that a batch of answers is gone through."""
    learning_rate: float = Field(1e-5, gt=0)
    """The highest rate of policy and value model; it falls to 0 in a line over all steps."""
    warmup_steps: int = Field(5, ge=0)
    """First steps, in which the rate rises."""
    adam_epsilon: float = Field(1e-5, gt=0)
    max_gradient_norm: float = Field(1.0, gt=0)
    kl_coefficient: float = Field(0.0067, ge=0)
    """beta; where the controller is adaptive, its first value."""
    kl_estimator: Literal["k1", "clamped_k1"] = "k1"
    """What a token's reward is lowered by: log pi - log pi_ref, or as much of it as is positive."""
    kl_controller: Literal["fixed", "adaptive"] = "fixed"
    """Whether beta stays, or follows the divergence towards `kl_target`."""
    kl_target: float = Field(6.0, gt=0)
    """Nats per answer that the adaptive controller aims at."""
    kl_gain: float = Field(0.1, gt=0)
    """How fast the adaptive controller reacts."""
    discount: float = Field(1.0, ge=0, le=1)
    """Gamma of the advantage estimates."""
    decay: float = Field(1.0, ge=0, le=1)
    """Lambda of the advantage estimates."""
    clip_range: float = Field(0.2, gt=0)
    """e, about the ratio of a token."""
    value_clip_range: float = Field(0.2, gt=0)
    """How far a value may move from what it was when the answer was drawn."""
    value_coefficient: float = Field(0.1, ge=0)
    """Weight of the value loss."""
    value: Literal["own", "shared"] = "own"
    """Whether the value model is a model of its own, begun as the reward model, or a head, begun at zero, on the
    policy's trunk: half the memory, and both losses pull at the trunk."""
    reward_whitening: Literal["none", "rescale"] = "rescale"
    """Whether token rewards are scaled to variance 1 about their mean in every batch."""
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
    def _a_server_is_allowed_for(self) -> Self:
        check_corrected(self.rollouts, self.sampler_ratio_cap)
        return self

    @model_validator(mode="after")
    def _a_shared_trunk_stays_as_it_is(self) -> Self:
        check_reward_place(self.reward, self.weights)
        return self


def value_loss(
    value_N: Float[Tensor, " N"], old_value_N: Float[Tensor, " N"], return_N: Float[Tensor, " N"], clip_range: float
) -> Float[Tensor, " N"]:
    """Half the squared error of each token's value, the larger of that of the value and of the value kept near the old.

    Source: openai/baselines ppo2/model.py (value clipping), as in Stiennon et al. 2020,
    https://arxiv.org/abs/2009.01325
    """
    near_N = old_value_N + (value_N - old_value_N).clamp(-clip_range, clip_range)
    return torch.maximum((value_N - return_N).square(), (near_N - return_N).square()) / 2


def adapted_coefficient(coefficient: float, kl: float, *, target: float, gain: float) -> float:
    """The next beta after a batch whose answers diverged by `kl` nats on average.

    Source: Ziegler et al. 2019, Section 2.2, https://arxiv.org/abs/1909.08593 (gain is K_beta)
    """
    error = min(max((kl - target) / target, -0.2), 0.2)
    return coefficient * (1 + gain * error)


@dataclass(frozen=True)
class Models:
    """The three models at work; the scorer is the environment's."""

    policy: ResponseModel
    value: ScalarModel
    reference: ResponseModel

    @property
    def shares_trunk(self) -> bool:
        """Whether the values are read off the policy's own states."""
        return self.value.backbone is self.policy.model.base_model

    @property
    def value_alone(self) -> nn.Module:
        """What of the value model is not the policy's: its head, or all of it."""
        return self.value.head if self.shares_trunk else self.value

    def token_values(
        self, ids_BT: Int[Tensor, "B T+1"], mask_BT: Bool[Tensor, "B T"], hidden_NH: Float[Tensor, "N H"]
    ) -> Float[Tensor, " N"]:
        """The value before each answer token was chosen; `hidden_NH` is what the policy computed of the same rows."""
        if self.shares_trunk and self.policy.takes_shortcut:
            value_N: Tensor = self.value.head(hidden_NH.float()).squeeze(-1) - self.value.offset
            return value_N
        return token_values(self.value, ids_BT, mask_BT)


@dataclass(frozen=True)
class Experience:
    """A batch of answers with what learning from it needs; every tensor but the weights is 0 at masked entries."""

    rollouts: Rollouts
    old_logprob_BT: Float[Tensor, "B T"]
    """Under the policy before it learns from the batch: pi_old."""
    weight_BT: Float[Tensor, "B T"]
    """pi_old over what the sampler drew from, capped: 1 where the sampler is the policy."""
    value_BT: Float[Tensor, "B T"]
    advantage_BT: Float[Tensor, "B T"]
    return_BT: Float[Tensor, "B T"]
    kl: float
    """Mean over answers of the summed k1 divergence from the reference, in nats."""
    figures: dict[str, Tensor | float]


def train(
    config: Config,
    *,
    start: Path,
    value_start: Path,
    environment: Environment,
    folder: Path,
    seed: int,
    progress: Progress,
) -> None:
    """Train the language model in `start`, a value model of its own begun as the reward model in `value_start`.

    `folder` then holds `model/`, `metrics.jsonl`, and a copy of the policy every `save_every` steps, `steps/0020/` and
    so on. Called again after a kill, it goes on from the last checkpoint to the same weights.

    Raises:
        DataError: if there are no instructions, or one is too long.
        ModelError: if the reward model cannot share the policy's trunk where it is told to, or is of another tokenizer
            and a value model is to begin as it.
        ScorerError: if the scorer raises, or does not give one finite number for each answer.
        TrainingError: if a figure becomes NaN or infinite, or sampling and training disagree about log-probabilities.
    """
    device, tokenizer = resolve_device(config.device), load_tokenizer(start)
    policy = load_trainable(start, config.weights, tokenizer=tokenizer, device=device, seed=seed)
    environment = placed(environment, policy, config.reward)
    value = value_model(config, policy, tokenizer, value_start, derived_seed(seed, "value"))
    models = Models(ResponseModel(policy), value, reference_of(policy, start, config.weights, tokenizer=tokenizer))
    encoder = Encoder(tokenizer, environment.template, max_tokens=config.max_prompt_tokens + 1)
    prompts = check_instructions(encoder, environment.instructions)
    optimizer = adamw(policy, models.value_alone, epsilon=config.adam_epsilon)
    settings = config.model_dump(exclude=NO_PART_OF_THE_RESULT)
    identity = fingerprint(settings, seed, prompts, modules=[policy, models.value_alone])
    with (
        Resumable(folder, {"policy": policy, "value": models.value_alone}, optimizer, identity=identity) as run,
        Drawing(config.rollouts, policy, encoder, folder, start=start) as drawing,
    ):
        drawing.check(max(map(len, prompts)), config.max_new_tokens)
        first_step, numbers = run.resume()
        kl_coefficient = numbers.get("kl_coefficient", config.kl_coefficient)
        for step in range(first_step, config.steps):
            asked = step_instructions(len(prompts), config.rollout_batch_size, step, seed)
            draws = derived_seed(seed, "ppo-answers", step)
            rollouts = collect(
                drawing.now(), encoder, environment, asked, max_new_tokens=config.max_new_tokens, seed=draws
            )
            if step == first_step and config.sampler_ratio_cap is None:
                check_sampler(models.policy, rollouts, config.micro_batch_tokens)
            experience = evaluate(config, models, rollouts, kl_coefficient)
            learning_rate = config.learning_rate * linear_factor(step, config.steps, config.warmup_steps)
            learned = learn(
                config, models, optimizer, experience, learning_rate, derived_seed(seed, "ppo-minibatches", step)
            )
            run.log(step + 1, experience.figures | learned | {"learning_rate": learning_rate})
            kl_coefficient = _next_coefficient(config, kl_coefficient, experience.kl)
            if keeps_copy(step, config.save_every, config.steps):
                save_model(policy, tokenizer, folder / "steps" / f"{step + 1:04d}")
            if (step + 1) % config.checkpoint_steps == 0:
                run.checkpoint(step + 1, kl_coefficient=kl_coefficient)
            run.report(progress, step + 1, config.steps, score=experience.figures["reward"], kl=experience.kl)
        run.finish(lambda target: save_model(policy, tokenizer, target))


def value_model(
    config: Config, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, value_start: Path, seed: int
) -> ScalarModel:
    """The model of values as training begins with it: one of its own, or a head on the policy's trunk.

    Raises:
        ModelError: if one of its own would misread the tokens of `tokenizer`, the policy's.
    """
    if config.value == "shared":
        value = ScalarModel.on_trunk_of(policy)
        share_out_head(value.head.to(policy.device))
        return value
    check_vocabulary(tokenizer, value_start)
    return load_trainable_scalar(value_start, config.weights, device=policy.device, seed=seed)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, value_start: Path) -> None:
    """See that every token of the policy's tokenizer has the same id in that of the value model, which may know more.

    Raises:
        ModelError: if one has not.
    """
    own, theirs = tokenizer.get_vocab(), load_tokenizer(value_start).get_vocab()
    other = [token for token, number in own.items() if theirs.get(token) != number]
    if other:
        raise ModelError(
            f"{value_start}: expected a reward model with the policy's tokenizer, as the value model that begins as it "
            f"reads the policy's tokens; found that {len(other)} of the policy's {len(own)} tokens, such as "
            f'{min(other)!r}, have another id there or none. Name one with that tokenizer, or set value = "shared".'
        )


def _next_coefficient(config: Config, coefficient: float, kl: float) -> float:
    if config.kl_controller == "fixed":
        return coefficient
    return adapted_coefficient(coefficient, kl, target=config.kl_target, gain=config.kl_gain)


def token_values(model: ScalarModel, ids_BT: Tensor, mask_BT: Tensor) -> Float[Tensor, " N"]:
    """The value before each answer token was chosen: read one token earlier, where that token is predicted."""
    hidden_BTH = model.backbone(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state
    value_N: Tensor = model.head(hidden_BTH[mask_BT].float()).squeeze(-1) - model.offset
    return value_N


@torch.no_grad()
def evaluate(config: Config, models: Models, rollouts: Rollouts, kl_coefficient: float) -> Experience:
    """Rewards, values and advantages of a batch of answers, before anything is learned from it."""
    mask_BT = rollouts.mask_BT
    logprob_BT = old_logprobs(models.policy, rollouts, config.micro_batch_tokens, config.sampler_ratio_cap)
    weight_BT = sampler_weights(logprob_BT, rollouts.sampler_logprob_BT, config.sampler_ratio_cap)
    reference_logprob_BT = token_logprobs(models.reference, rollouts, config.micro_batch_tokens)
    value_BT = rollouts.spread(lambda ids, mask: token_values(models.value, ids, mask), config.micro_batch_tokens)
    divergence = {"k1": k1, "clamped_k1": clamped_k1}[config.kl_estimator]
    divergence_BT = divergence(logprob_BT, reference_logprob_BT)
    reward_BT = shaped_rewards(rollouts.scores(config.missing_eos_score), divergence_BT, mask_BT, kl_coefficient)
    whitened_BT = rescale(reward_BT, mask_BT) if config.reward_whitening == "rescale" else reward_BT
    advantage_BT = generalized_advantages(whitened_BT, value_BT, mask_BT, discount=config.discount, decay=config.decay)
    kl_B = k1(logprob_BT, reference_logprob_BT).sum(1)
    figures = objective_figures(rollouts, logprob_BT, kl_B) | {
        "objective/rlhf_reward": reward_BT.sum(1).mean(),
        "objective/kl_coef": kl_coefficient,
        "val/mean": masked_mean(value_BT, mask_BT),
    }
    return Experience(
        rollouts=rollouts,
        old_logprob_BT=logprob_BT,
        weight_BT=weight_BT,
        value_BT=value_BT,
        advantage_BT=standardize(advantage_BT, mask_BT),
        return_BT=advantage_BT + value_BT,
        kl=float(kl_B.mean()),
        figures=figures,
    )


def learn(
    config: Config,
    models: Models,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    learning_rate: float,
    seed: int,
) -> dict[str, Tensor | float]:
    """Go through a batch of answers `inner_epochs` times; means over answer tokens of what was met come back."""
    count = len(experience.rollouts.rows)
    sums, tokens, policy_norms, value_norms = [], [], [], []
    for numbers in minibatches(count, config.minibatch_size, config.inner_epochs, seed):
        token_count = sum(len(experience.rollouts.rows[number].response_ids) for number in numbers)
        sums.append(accumulate_gradients(config, models, experience, numbers, token_count))
        tokens.append(token_count)
        policy_norm, value_norm = take_step(
            optimizer, learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm
        )
        policy_norms.append(policy_norm)
        value_norms.append(value_norm)
    means = torch.stack(sums).sum(0) / sum(tokens)
    figures: dict[str, Tensor | float] = dict(zip(_TOKEN_FIGURES, means, strict=True))
    figures["loss"] = means[0] + config.value_coefficient * means[1]
    figures["grad_norm"] = torch.stack(policy_norms).mean()
    figures["val/grad_norm"] = torch.stack(value_norms).mean()
    return figures


_TOKEN_FIGURES = (
    "loss/policy_avg",
    "loss/value_avg",
    "clip_ratio/region_mean",
    "clip_ratio/value_mean",
    "policy/approxkl_avg",
    "entropy",
    "val/ratio",
)


def accumulate_gradients(
    config: Config, models: Models, experience: Experience, numbers: list[int], token_count: int
) -> Float[Tensor, " F"]:
    """Add the gradients of a minibatch's mean loss per token; sums over its tokens of `_TOKEN_FIGURES` come back."""
    rollouts = experience.rollouts
    policy = models.policy
    sums = []
    lengths = [len(rollouts.rows[number]) for number in numbers]
    for batch, weight in share(token_budget_batches(lengths, config.micro_batch_tokens)):
        ids_BT, mask_BT, place = rollouts.part([numbers[row] for row in batch])
        hidden_NH = policy.hidden(ids_BT[:, :-1], mask_BT)
        logprob_N, entropy_N = head_logprobs_with_entropy(
            hidden_NH, policy.head, ids_BT[:, 1:][mask_BT], policy.vocabulary_size
        )
        value_N = models.token_values(ids_BT, mask_BT, hidden_NH)
        old_logprob_N, old_value_N = experience.old_logprob_BT[place][mask_BT], experience.value_BT[place][mask_BT]
        advantage_N, return_N = experience.advantage_BT[place][mask_BT], experience.return_BT[place][mask_BT]
        surrogate_N = clipped_surrogate(
            logprob_N, old_logprob_N, advantage_N, clip_low=config.clip_range, clip_high=config.clip_range
        )
        policy_loss_N = experience.weight_BT[place][mask_BT] * surrogate_N
        value_loss_N = value_loss(value_N, old_value_N, return_N, config.value_clip_range)
        loss = (policy_loss_N.sum() + config.value_coefficient * value_loss_N.sum()) / token_count
        torch.autograd.backward(weight * loss)
        with torch.no_grad():
            log_ratio_N = logprob_N - old_logprob_N
            clipped_N = is_clipped(
                logprob_N, old_logprob_N, advantage_N, clip_low=config.clip_range, clip_high=config.clip_range
            )
            figures = (
                policy_loss_N,
                value_loss_N,
                clipped_N.float(),
                ((value_N - old_value_N).abs() > config.value_clip_range).float(),
                log_ratio_N.square() / 2,
                entropy_N,
                log_ratio_N.exp(),
            )
            sums.append(weight * torch.stack([figure.sum() for figure in figures]))
    return total(torch.stack(sums).sum(0))
