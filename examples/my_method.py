"""A method of one's own: imitate those of the model's answers that beat the others to the same instruction.

Draw n answers to each instruction and score them. Keep an answer where its score is above the mean of the other n - 1
by more than `margin`: the advantage that RLOO weighs by, used to choose. Then fine-tune on what was kept. Unlike
expert iteration, an instruction to which all answers are alike teaches nothing, and one with two good answers teaches
twice.

One line adds it to a recipe, and it runs with `pasture run RECIPE --allow-code`:

    [learn.mine]
    method = "examples/my_method.py"
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field

from pasture.core.files import read_records, write_records
from pasture.core.ports import Progress
from pasture.core.records import Completion
from pasture.formulas.advantages import leave_one_out_advantages
from pasture.learn import sft
from pasture.learn.rollouts import Environment, checked_scores, draw
from pasture.machine.device import resolve_device
from pasture.models.encode import Encoder
from pasture.models.load import load_causal_lm, load_tokenizer
from pasture.models.sample import SamplerConfig

LEARNS_FROM = "scores"
"""`train` is handed instructions and a scorer; with "preferences" it would be handed labelled pairs."""


class Config(sft.Config):
    """Settings: those of the fine-tuning, and how its demonstrations are found. Recipes can set each of them."""

    n: int = Field(4, ge=2)
    """Answers drawn to each instruction."""
    margin: float = Field(0.5, ge=0)
    """By how much an answer must beat the mean of the others, in the scorer's units."""
    max_new_tokens: int = Field(48, ge=1)
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    """Fit for the meadow's small model; large ones want a hundredth of it."""


def better_than_others(completions: Sequence[Completion], scores: Sequence[float], config: Config) -> list[Completion]:
    """The answers worth imitating; those to one instruction stand side by side, `config.n` of each."""
    advantages = leave_one_out_advantages(torch.tensor(scores).reshape(-1, config.n)).flatten().tolist()
    judged = zip(completions, advantages, strict=True)
    return [one for one, advantage in judged if advantage > config.margin and one.text.strip()]


def train(
    config: Config, *, start: Path, environment: Environment, folder: Path, seed: int, progress: Progress
) -> None:
    """Train the model in `start`; `folder` then holds `kept.jsonl`, `metrics.jsonl` and `model/`.

    Called again after a kill, it goes on: what was kept lies in its file, and fine-tuning has its checkpoints.
    """
    kept = folder / "kept.jsonl"
    if not kept.exists():
        tokenizer = load_tokenizer(start)
        model = load_causal_lm(start, device=resolve_device(config.device), tokenizer=tokenizer)
        encoder = Encoder(tokenizer, environment.template, max_tokens=config.max_tokens)
        sampling = SamplerConfig(max_new_tokens=config.max_new_tokens)
        answers = draw(model, encoder, environment.instructions, sampling, seed=seed, group_size=config.n)
        scores = checked_scores(environment.scorer, answers.instructions, answers.completions)
        write_records(kept, better_than_others(answers.completions, scores, config))
    asked = {instruction.id: instruction for instruction in environment.instructions}
    sft.train(
        sft.Config(**config.model_dump(include=set(sft.Config.model_fields))),
        start=start,
        demonstrations=[(asked[one.instruction_id], one) for one in read_records(kept, Completion)],
        template=environment.template,
        folder=folder,
        seed=seed,
        progress=progress,
    )
