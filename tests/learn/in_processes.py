"""Trainings of the toy by several processes at once; started with torchrun by their tests.

Usage: in_processes.py FOLDER BASE VALUE SHARDING METHOD... Each method is trained in FOLDER/METHOD.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from pasture.core.records import Completion, Instruction
from pasture.learn import dpo, ensemble, expert_iteration, ppo, resume, reward_model, rloo, sft, update
from pasture.learn.rollouts import Environment
from pasture.machine import distributed
from pasture.machine.launch import Sharding
from pasture.models.weights_config import Lora, Weights
from tests.learn import killed, killed_on_preferences, toy

ENSEMBLE = ensemble.Config(
    members=2, epochs=1, batch_size=4, learning_rate=1e-3, max_tokens=32, held_out_count=4, micro_batch_tokens=64
)
ADAPTERS = Weights(lora=Lora(rank=2), gradient_checkpointing=True)
COARSE = Weights(dtype="bfloat16")
ON_PAIRS: dict[str, Any] = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 5, "max_tokens": 32}


def spread(instructions: Sequence[Instruction], completions: Sequence[Completion]) -> list[float]:
    """A scorer that tells nearly all answers apart: of equals nothing is learned, and Adam makes steps of rounding."""
    return [
        sum(toy.WORDS.index(word) * 0.1**place for place, word in enumerate(one.text.split())) for one in completions
    ]


def environment() -> Environment:
    return Environment(toy.instructions(20), toy.TEMPLATE, spread)


def _with(weights: Weights) -> dict[str, Callable[..., None]]:
    return {
        "sft": lambda base, value, **end: sft.train(
            sft.Config(weights=weights, **ON_PAIRS), start=base, demonstrations=toy.demonstrations(13),
            template=toy.TEMPLATE, **end,
        ),
        "reward_model": lambda base, value, **end: reward_model.train(
            reward_model.Config(weights=weights, **ON_PAIRS), start=base, feedback=toy.separable_feedback(13),
            template=toy.TEMPLATE, **end,
        ),
        "dpo": lambda base, value, **end: dpo.train(
            dpo.Config(weights=weights, **ON_PAIRS), start=base, feedback=toy.separable_feedback(13),
            template=toy.TEMPLATE, **end,
        ),
        "ppo": lambda base, value, **end: ppo.train(
            ppo.Config(weights=weights, **killed.OWN_ANSWERS), start=base, value_start=value,
            environment=environment(), **end,
        ),
        "rloo": lambda base, value, **end: rloo.train(
            rloo.Config(weights=weights, group_size=4, **killed.OWN_ANSWERS), start=base,
            environment=environment(), **end,
        ),
    }  # fmt: skip


TRAININGS: dict[str, Callable[..., None]] = {
    **killed.TRAININGS,
    **killed_on_preferences.TRAININGS,
    "reward_model_ensemble": lambda base, value, **end: ensemble.train(
        ENSEMBLE, start=base, feedback=toy.separable_feedback(16), template=toy.TEMPLATE, **end
    ),
    **{f"{name}-adapters": training for name, training in _with(ADAPTERS).items()},
    **{f"{name}-bfloat16": training for name, training in _with(COARSE).items()},
}
"""Each training, given a base model, a reward model, and where and how to run."""


def check_sharing(sharding: Sharding) -> None:
    """From here on every optimizer is seen to hold parts of weights, or whole ones, as was asked for."""
    made = update.AdamWInFloat32.__init__

    def watched(self: Any, groups: Any, **settings: Any) -> None:
        parts = [isinstance(one, DTensor) for group in groups for one in group]
        assert parts
        assert all(part == (sharding == "fsdp2") for part in parts)
        made(self, groups, **settings)

    update.AdamWInFloat32.__init__ = watched  # type: ignore[method-assign]


def progress(last_step: int, done: int, total: int, **figures: float) -> None:
    if done == last_step:
        os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, base: Path, value: Path, methods: list[str], last_step: int = 0) -> None:
    torch.set_num_threads(1)
    resume.SECONDS_BETWEEN_REPORTS = 0.0
    expert_iteration.INSTRUCTIONS_A_FILE = 10
    killed.environment = environment
    for method in methods:
        TRAININGS[method](base, value, folder=folder / method, seed=0, progress=partial(progress, last_step))


def main(folder: str, base: str, value: str, sharding: Sharding, *methods: str) -> None:
    with distributed.processes(expected=2, sharding=sharding):
        check_sharing(sharding)
        train(Path(folder), Path(base), Path(value), list(methods), int(os.environ.get("LAST_STEP", "0")))


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
