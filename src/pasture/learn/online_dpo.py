"""Online DPO: learn from preferences between two answers of the policy as it is now, judged as it goes.

At each step two answers to a prompt are drawn and a scorer, or an annotator, says which is better. With the margin
m = log pi(y_1|x)/pi_ref(y_1|x) - log pi(y_2|x)/pi_ref(y_2|x), summed over answer tokens, the policy minimizes the loss
of DPO, t loss(m) + (1 - t) loss(-m) with loss(m) = -log sigma(beta m), where t is 1 if y_1 was preferred, 0 if y_2, and
1/2 for a tie.

Source: Guo et al. 2024 (OAIF), Algorithm 1, https://arxiv.org/abs/2402.04792; the losses of Rafailov et
al. 2023, https://arxiv.org/abs/2305.18290, Azar et al. 2023 (IPO), https://arxiv.org/abs/2310.12036, and Zhao et al.
2023 (SLiC-HF), https://arxiv.org/abs/2305.10425

What differs:
1. The judge may be a scorer, a simulated annotator, a language model or people; the paper asked a language model.
2. A tie counts half for each side; several verdicts on one pair count their mean.
3. Pairs of equal text are not asked about; they and unjudged pairs teach nothing and are reported as shares.
4. Answers are drawn at temperature 1, from the policy as it is (the paper: 0.9).
5. The mean of a loss is over the judged pairs of a minibatch, however it is cut to fit into memory. Dropout is off.
6. How many pairs are judged differs from step to step. They are cut into minibatches as even as can be, so that no
   few that remain move the policy as far as all the others.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.ports import Progress
from pasture.core.seeds import derived_seed
from pasture.engines.rollout_settings import RolloutServerConfig
from pasture.formulas.divergence import k1
from pasture.formulas.logprobs import head_logprobs
from pasture.formulas.masks import row_sums
from pasture.formulas.preference_losses import MARGIN_LOSSES, preference_loss
from pasture.learn.drawing import Drawing
from pasture.learn.feedback import named_figures, pair_figures
from pasture.learn.judging import AnnotatedEnvironment, judge_pairs
from pasture.learn.resume import Resumable, fingerprint, keeps_copy
from pasture.learn.rollouts import (
    Answers,
    Environment,
    check_instructions,
    draw,
    minibatches,
    objective_figures,
    step_instructions,
    token_logprobs,
)
from pasture.learn.update import adamw, linear_factor, take_step
from pasture.machine.device import DeviceChoice, resolve_device
from pasture.machine.distributed import share, total
from pasture.models.batches import token_budget_batches
from pasture.models.encode import Encoder
from pasture.models.load import load_tokenizer, save_model
from pasture.models.response import ResponseModel
from pasture.models.sample import SamplerConfig
from pasture.models.trainable import load_trainable, reference_of
from pasture.models.weights_config import Weights


class Config(BaseModel):
    """Settings of online DPO."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(80, ge=1)
    """Batches of answers to learn from."""
    rollout_batch_size: int = Field(512, ge=2, multiple_of=2)
    """Answers drawn a step, two to a prompt."""
    minibatch_size: int = Field(128, ge=1)
    """Most pairs to one step of the optimizer; the judged ones are cut into as few and as even parts as can be."""
    inner_epochs: int = Field(1, ge=1)
    """Times that a batch of pairs is gone through."""
    learning_rate: float = Field(5e-7, gt=0)
    """The highest rate; it falls to 0 in a line over all steps."""
    warmup_steps: int = Field(5, ge=0)
    """First steps, in which the rate rises."""
    max_gradient_norm: float = Field(1.0, gt=0)
    judge: Literal["scorer", "annotator"] = "scorer"
    """Who says which of two answers is better: a reward model's scores, or the annotator that labels pairs in a run."""
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    """Of the margin between the log-ratios of two answers: DPO's own, IPO's, SLiC-HF's."""
    beta: float = Field(0.1, gt=0)
    """How much a log-ratio counts; a higher one keeps the policy nearer to the reference."""
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


def online_dpo_loss(
    first_logratio_P: Float[Tensor, " P"],
    second_logratio_P: Float[Tensor, " P"],
    first_preferred_P: Float[Tensor, " P"],
    config: Config,
) -> Float[Tensor, " P"]:
    """Loss of each pair; a log-ratio is log pi(y|x) - log pi_ref(y|x), summed over answer tokens."""
    loss = partial(MARGIN_LOSSES[config.loss], beta=config.beta)
    return preference_loss(loss, first_logratio_P - second_logratio_P, first_preferred_P)


@dataclass(frozen=True)
class Experience:
    """A batch of answers with what learning from its judged pairs needs."""

    answers: Answers
    pairs: list[int]
    """Numbers of the pairs to learn from; pair p is answers 2p and 2p + 1."""
    first_preferred: list[float]
    """Of each of these, 1, 0, 1/2 for a tie, or a mean of several verdicts."""
    reference_logprob_B: Float[Tensor, " B"]
    """Of each whole answer."""
    figures: dict[str, Tensor | float]


def train(
    config: Config,
    *,
    start: Path,
    environment: Environment | AnnotatedEnvironment,
    folder: Path,
    seed: int,
    progress: Progress,
) -> None:
    """Train the language model in `start`, which is the reference as well.

    `folder` then holds `model/`, `metrics.jsonl`, and a copy of the policy every `save_every` steps, `steps/0020/` and
    so on. Called again after a kill, it goes on from the last checkpoint to the same weights.

    Raises:
        DataError: if there are no instructions, or one is too long.
        ScorerError: if the scorer raises, or does not give one finite number for each answer.
        TrainingError: if a figure becomes NaN or infinite, or the annotator raises, leaves a comparison out, or judges
            none of a step's.
    """
    device, tokenizer = resolve_device(config.device), load_tokenizer(start)
    policy = ResponseModel(load_trainable(start, config.weights, tokenizer=tokenizer, device=device, seed=seed))
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
            numbers = step_instructions(len(prompts), config.rollout_batch_size // 2, step, seed)
            answers = draw(
                drawing.now(),
                encoder,
                [environment.instructions[number] for number in numbers],
                SamplerConfig(max_new_tokens=config.max_new_tokens),
                seed=derived_seed(seed, "online-dpo-answers", step),
                group_size=2,
            )
            experience = evaluate(config, reference, environment, answers)
            learning_rate = config.learning_rate * linear_factor(step, config.steps, config.warmup_steps)
            learned = learn(
                config, policy, optimizer, experience, learning_rate, derived_seed(seed, "online-dpo-minibatches", step)
            )
            figures = experience.figures | learned | {"learning_rate": learning_rate}
            run.log(step + 1, figures)
            if keeps_copy(step, config.save_every, config.steps):
                save_model(policy.model, tokenizer, folder / "steps" / f"{step + 1:04d}")
            if (step + 1) % config.checkpoint_steps == 0:
                run.checkpoint(step + 1)
            run.report(progress, step + 1, config.steps, **_shown(figures))
        run.finish(lambda target: save_model(policy.model, tokenizer, target))


def _shown(figures: dict[str, Tensor | float]) -> dict[str, Tensor | float]:
    names = {"reward": "score", "objective/kl": "kl", "loss": "loss"}
    return {short: figures[name] for name, short in names.items() if name in figures}


@torch.no_grad()
def evaluate(
    config: Config, reference: ResponseModel, environment: Environment | AnnotatedEnvironment, answers: Answers
) -> Experience:
    """Verdicts on a batch of answers, before anything is learned from it."""
    judged = judge_pairs(environment, answers)
    reference_logprob_BT = token_logprobs(reference, answers, config.micro_batch_tokens)
    kl_B = k1(answers.sampler_logprob_BT, reference_logprob_BT).sum(1)
    kept = [(pair, verdict) for pair, verdict in enumerate(judged.first_preferred) if verdict is not None]
    return Experience(
        answers=answers,
        pairs=[pair for pair, _ in kept],
        first_preferred=[verdict for _, verdict in kept],
        reference_logprob_B=reference_logprob_BT.sum(1),
        figures=objective_figures(answers, answers.sampler_logprob_BT, kl_B) | judged.figures,
    )


def learn(
    config: Config,
    policy: ResponseModel,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    learning_rate: float,
    seed: int,
) -> dict[str, Tensor | float]:
    """Go through the judged pairs `inner_epochs` times; means over pairs of what was met come back.

    Where there is no judged pair, nothing is learned and nothing comes back.
    """
    count = len(experience.pairs)
    if not count:
        return {}
    sums, norms = [], []
    for numbers in minibatches(count, config.minibatch_size, config.inner_epochs, seed):
        sums.append(accumulate_gradients(config, policy, experience, numbers))
        [norm] = take_step(optimizer, learning_rate=learning_rate, max_gradient_norm=config.max_gradient_norm)
        norms.append(norm)
    figures = named_figures(torch.stack(sums).sum(0), count * config.inner_epochs)
    figures["grad_norm"] = torch.stack(norms).mean()
    return figures


def accumulate_gradients(
    config: Config, policy: ResponseModel, experience: Experience, numbers: list[int]
) -> Float[Tensor, " F"]:
    """Add the gradients of a minibatch's mean loss per pair; sums over its pairs of `PAIR_FIGURES` come back.

    `numbers` count in `experience.pairs`.
    """
    answers = experience.answers
    sides = [(2 * experience.pairs[number], 2 * experience.pairs[number] + 1) for number in numbers]
    lengths = [2 * max(len(answers.rows[first]), len(answers.rows[second])) for first, second in sides]
    sums = []
    for batch, weight in share(token_budget_batches(lengths, config.micro_batch_tokens)):
        rows = [sides[pair][side] for side in (0, 1) for pair in batch]
        ids_BT, mask_BT, (row_B, _) = answers.part(rows)
        hidden_NH = policy.hidden(ids_BT[:, :-1], mask_BT)
        logprob_N = head_logprobs(hidden_NH, policy.head, ids_BT[:, 1:][mask_BT], policy.vocabulary_size)
        logratio_B = row_sums(logprob_N, mask_BT) - experience.reference_logprob_B[row_B]
        first_P, second_P = logratio_B[: len(batch)], logratio_B[len(batch) :]
        target_P = torch.tensor([experience.first_preferred[numbers[pair]] for pair in batch], device=first_P.device)
        loss_P = online_dpo_loss(first_P, second_P, target_P, config)
        torch.autograd.backward(weight * loss_P.sum() / len(numbers))
        sums.append(weight * pair_figures(loss_P, config.beta * first_P, config.beta * second_P, target_P))
    return total(torch.stack(sums).sum(0))
