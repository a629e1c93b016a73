"""Expert iteration: draw n answers to each prompt, keep the one that a scorer likes best, and imitate these.

A round minimizes -(1/N) sum log pi(y*_t | x, y*_<t) over the N tokens of y* = argmax score(x, y) among n draws
y ~ pi_old(.|x). More rounds draw from the policy that the round before has left.

Source: Dubois et al. 2023 (AlpacaFarm), https://arxiv.org/abs/2305.14387, after Silver et al. 2017,
https://doi.org/10.1038/nature24270; restarts as in Singh et al. 2023 (ReST-EM), https://arxiv.org/abs/2312.06585. The
paper's settings as defaults: one round, n = 16, on prompts that nothing else was trained on, then SFT as before.

What differs:
1. AlpacaFarm's answers were drawn with top-p 0.9 by a hidden default; here `top_p` says so, and is 1.
2. Winners that are empty teach nothing; they are left out and counted. A winner that was cut carries no end token.
3. Equal scores go to the answer drawn first.
"""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Literal, Self

from pydantic import Field, model_validator

from pasture.core.deciding import NO_PART_OF_THE_RESULT
from pasture.core.errors import RecipeError
from pasture.core.files import read_records, write_records
from pasture.core.ports import Progress
from pasture.core.records import Completion, Instruction, Record
from pasture.core.seeds import derived_seed
from pasture.engines.rollout_settings import RolloutServerConfig
from pasture.learn import best_of_n, sft
from pasture.learn.drawing import Drawing, OwnSampler
from pasture.learn.resume import METRICS_FILE, MODEL_FOLDER, claim, fingerprint
from pasture.learn.rollouts import Environment, check_instructions, checked_scores, draw
from pasture.machine.device import resolve_device
from pasture.machine.distributed import check_same, on_main
from pasture.machine.meter import MetricsLog
from pasture.models.encode import Encoder
from pasture.models.load import load_causal_lm, load_config, load_tokenizer, resting_dtype, within_context
from pasture.models.sample import SamplerConfig, check_room

INSTRUCTIONS_A_FILE = 256
"""Winners are kept in files of this many, so that a kill loses no more than the answers of one."""


class Config(sft.Config):
    """Settings of expert iteration: those of each round's supervised fine-tuning, and how its winners are found."""

    rounds: int = Field(1, ge=1)
    """Times that answers are drawn, chosen and imitated."""
    n: int = Field(16, ge=1)
    """Answers drawn to each instruction."""
    fine_tune: Literal["start", "latest", "base"] = "start"
    """What a round's fine-tuning begins with: the model that the first round drew from, the round before's, or the one
    that was there before any fine-tuning."""
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_prompt_tokens: int = Field(192, ge=1)
    max_new_tokens: int = Field(300, ge=1)
    rollouts: RolloutServerConfig | None = None
    """A server that draws the answers; None: the policy does, in this process."""

    @model_validator(mode="after")
    def _winners_are_imitated_whole(self) -> Self:
        drawn = self.max_prompt_tokens + self.max_new_tokens
        if drawn > self.max_tokens:
            raise ValueError(
                f"max_prompt_tokens + max_new_tokens = {drawn} is more than max_tokens = {self.max_tokens}: winners "
                "would be cut where they are imitated, and lose their end; raise max_tokens, or lower one of the two"
            )
        return self


class Winner(Record):
    """The best of the answers to one instruction, and what all of them scored."""

    completion: Completion
    scores: list[float]


def train(
    config: Config,
    *,
    start: Path,
    environment: Environment,
    folder: Path,
    seed: int,
    progress: Progress,
    base: Path | None = None,
) -> None:
    """Draw from the language model in `start`, and fine-tune it, or with `fine_tune = "base"` `base`, on the winners.

    `folder` then holds `model/`, `metrics.jsonl` with a row for each round, each round's policy as `steps/0001/` and so
    on, and each round's winners and fine-tuning in `rounds/01/`. Called again after a kill, it goes on to the same
    weights: from the last file of winners, or from the last checkpoint of the fine-tuning.

    Raises:
        DataError: if there are no instructions, one is too long, or all winners are empty.
        ScorerError: if the scorer raises, or does not give one finite number for each answer.
        RecipeError: if `base` is given and not asked for, or the other way round.
        RunFolderError: if `folder` was begun with another model, other data or other settings.
        TrainingError: if the loss becomes NaN or infinite.
    """
    _check_base(config, base)
    prompts = _prompts(config, environment, start, base or start)
    begun = [start] if base is None else [start, base]
    claim(folder, fingerprint(config.model_dump(exclude=NO_PART_OF_THE_RESULT), seed, prompts, folders=begun))
    done = len(list((folder / "steps").glob("*")))
    check_same(done, str(folder / "steps"))
    report = _Report(progress, config, len(prompts), rounds_done=done)
    with MetricsLog(folder / METRICS_FILE, after_step=done) as log:
        for number in range(done + 1, config.rounds + 1):
            latest = start if number == 1 else _policy_folder(folder, number - 1)
            place = folder / "rounds" / f"{number:02d}"
            source = Source(config, latest, start, environment)
            winners = draw_winners(source, place, derived_seed(seed, "round", number), report)
            demonstrations = [
                (instruction, winner.completion)
                for instruction, winner in zip(environment.instructions, winners, strict=True)
                if winner.completion.text.strip()
            ]
            sft.train(
                sft.Config(**{name: getattr(config, name) for name in sft.Config.model_fields}),
                start=latest if config.fine_tune == "latest" and number > 1 else base or start,
                demonstrations=demonstrations,
                template=environment.template,
                folder=place,
                seed=derived_seed(seed, "fine-tuning", number),
                progress=report.fine_tuning,
            )
            log.write(number, **figures(winners))
            report.rounds_done += 1
            # The last act of a round: where its policy stands, the round is done.
            on_main(partial(_move, place / MODEL_FOLDER, _policy_folder(folder, number)))
    last = _policy_folder(folder, config.rounds)
    on_main(lambda: shutil.copytree(last, folder / MODEL_FOLDER, dirs_exist_ok=True))


def _move(policy: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    policy.rename(target)


def _check_base(config: Config, base: Path | None) -> None:
    if (base is None) == (config.fine_tune == "base"):
        raise RecipeError(
            f"expert iteration: fine_tune = {config.fine_tune!r} and {'no base' if base is None else 'a base'} model "
            'do not go together. Name the model before any fine-tuning where fine_tune = "base", and only there.'
        )


def _prompts(config: Config, environment: Environment, start: Path, trained: Path) -> list[list[int]]:
    """The prompt of every instruction as tokens, once it is seen that the model to be trained, too, has room for it.

    Raises:
        DataError: if there are no instructions, or one is too long.
        ModelError: if the model that draws has no room for the longest and an answer.
    """
    template, instructions = environment.template, environment.instructions
    drawing = Encoder(load_tokenizer(start), template, max_tokens=config.max_prompt_tokens + 1)
    imitating = Encoder(load_tokenizer(trained), template, max_tokens=within_context(trained, config.max_tokens))
    prompts = check_instructions(drawing, instructions)
    check_instructions(imitating, instructions)
    check_room(load_config(start), max(map(len, prompts)), config.max_new_tokens)
    return prompts


def _policy_folder(folder: Path, number: int) -> Path:
    return folder / "steps" / f"{number:04d}"


class _Report:
    """Progress over all rounds, counted in files of winners and steps of fine-tuning."""

    def __init__(self, progress: Progress, config: Config, count: int, *, rounds_done: int) -> None:
        self.progress = progress
        self.rounds_done = rounds_done
        self.files = -(-count // INSTRUCTIONS_A_FILE)
        self.a_round = self.files + -(-max(1, count - config.held_out_count) // config.batch_size) * config.epochs
        self.total = self.a_round * config.rounds

    def drawn(self, files: int, **figures: float) -> None:
        self.progress(self.rounds_done * self.a_round + files, self.total, **figures)

    def fine_tuning(self, done: int, total: int, **figures: float) -> None:
        # Empty winners make for fewer steps than were counted on; the round then ends a little early.
        self.progress(self.rounds_done * self.a_round + self.files + done, self.total, **figures)


@dataclass(frozen=True)
class Source:
    """Who answers what in a round, and how."""

    config: Config
    policy: Path
    served: Path
    """The model that a server, where one draws, was started with."""
    environment: Environment


def draw_winners(source: Source, place: Path, seed: int, report: _Report) -> list[Winner]:
    """The best of n answers to each instruction, from the files in `place` as far as they are there.

    Raises:
        ScorerError: if the scorer raises, or does not give one finite number for each answer.
        EngineError: if answers come from a server, and it fails.
    """
    winners: list[Winner] = []
    with contextlib.ExitStack() as opened:
        policy: tuple[Encoder, OwnSampler] | None = None
        instructions = source.environment.instructions
        for number, begin in enumerate(range(0, len(instructions), INSTRUCTIONS_A_FILE)):
            path = place / "winners" / f"{number:05d}.jsonl"
            drawn = path.exists()
            check_same(drawn, str(path))
            if not drawn:
                policy = policy or _opened(source, place, opened)
                some = instructions[begin : begin + INSTRUCTIONS_A_FILE]
                best = best_answers(source, *policy, some, derived_seed(seed, "file", number))
                on_main(partial(write_records, path, best))
            found = read_records(path, Winner)
            winners += found
            report.drawn(number + 1, score=fmean(max(one.scores) for one in found))
    return winners


def _opened(source: Source, place: Path, opened: contextlib.ExitStack) -> tuple[Encoder, OwnSampler]:
    """The policy, loaded, and where a server draws, handed over."""
    config = source.config
    tokenizer = load_tokenizer(source.policy)
    device = resolve_device(config.device)
    dtype = resting_dtype(source.policy, device)
    policy = load_causal_lm(source.policy, dtype=dtype, device=device, tokenizer=tokenizer)
    encoder = Encoder(tokenizer, source.environment.template, max_tokens=config.max_prompt_tokens + 1)
    drawing = opened.enter_context(Drawing(config.rollouts, policy, encoder, place, start=source.served))
    longest = max(len(encoder.prompt(one)) for one in source.environment.instructions)
    drawing.check(longest, config.max_new_tokens)
    return encoder, drawing.now()


def best_answers(
    source: Source, encoder: Encoder, policy: OwnSampler, instructions: Sequence[Instruction], seed: int
) -> list[Winner]:
    """Of n answers to each instruction, the one that the scorer likes best."""
    config = source.config
    sampling = SamplerConfig(temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens)
    answers = draw(policy, encoder, instructions, sampling, seed=seed, group_size=config.n)
    scores = checked_scores(source.environment.scorer, answers.instructions, answers.completions)
    winners = []
    for number in range(len(instructions)):
        group = slice(number * config.n, (number + 1) * config.n)
        [best] = best_of_n.select(answers.completions[group], scores[group], n=config.n)
        winners.append(Winner(completion=best, scores=scores[group]))
    return winners


def figures(winners: Sequence[Winner]) -> dict[str, float]:
    """What is reported of a round's answers."""
    return {
        "reward": fmean(fmean(one.scores) for one in winners),
        "winners/reward": fmean(max(one.scores) for one in winners),
        "frac_reward_zero_std": fmean(min(one.scores) == max(one.scores) for one in winners),
        "winners/mean_length": fmean(one.completion.token_count or 0 for one in winners),
        "winners/clipped_ratio": fmean(one.completion.finish_reason != "stop" for one in winners),
        "winners/empty": fmean(not one.completion.text.strip() for one in winners),
    }
