"""Trainings of the toy by two processes; started with torchrun by their tests.

Usage: in_processes.py FOLDER BASE VALUE SHARDING:METHOD... Each is done in FOLDER/SHARDING/METHOD. With LAST_STEP in
the environment, the main process kills itself after that step; with FAILS, the second process fails where it scores.
"""

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch.distributed.tensor import DTensor

from pasture.core.records import Completion, Instruction
from pasture.learn import dpo, ensemble, expert_iteration, ppo, resume, reward_model, rloo, sft, update
from pasture.learn.rollouts import Environment
from pasture.machine import distributed, sharded
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
    joined = distributed.joined()
    if "FAILS" in os.environ and joined is not None and joined.number == 1:
        raise RuntimeError("the second scorer has fallen over")
    return [sum(value(word) * 0.1**place for place, word in enumerate(one.text.split())) for one in completions]


def value(word: str) -> int:
    return toy.WORDS.index(word) if word in toy.WORDS else len(toy.WORDS)


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


def watch_optimizers() -> None:
    """From here on every optimizer is seen to hold parts of weights, or whole ones, as was asked for."""
    made = update.AdamWInFloat32.__init__

    def watched(self: Any, groups: Any, **settings: Any) -> None:
        parts = [one for group in groups for one in group if isinstance(one, DTensor)]
        assert len(parts) == (sum(map(len, groups)) if sharded.is_asked_for() else 0)
        assert sum(one.to_local().numel() for one in parts) <= 0.6 * sum(one.numel() for one in parts)
        made(self, groups, **settings)

    update.AdamWInFloat32.__init__ = watched  # type: ignore[method-assign]


def progress(last_step: int, done: int, total: int, **figures: float) -> None:
    if done == last_step:
        os.kill(os.getpid(), signal.SIGKILL)


def train(method: str, base: Path, value: Path, folder: Path, last_step: int = 0) -> None:
    resume.SECONDS_BETWEEN_REPORTS = 0.0
    expert_iteration.INSTRUCTIONS_A_FILE = 10
    killed.environment = environment
    TRAININGS[method](base, value, folder=folder, seed=0, progress=partial(progress, last_step))


def threads_of_group() -> list[str]:
    """Threads of torch's group of processes, by name; none can be told apart where there is no /proc."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def main(folder: str, base: str, value: str, *jobs: str) -> None:
    torch.set_num_threads(1)
    watch_optimizers()
    with distributed.processes(expected=2):
        joined = distributed.joined()
        assert joined is not None
        for job in jobs:
            sharding, method = job.split(":")
            distributed._State.joined = dataclasses.replace(joined, sharding=cast("Sharding", sharding))
            place = Path(folder) / sharding / method
            train(method, Path(base), Path(value), place, int(os.environ.get("LAST_STEP", "0")))
    # One that outlives the group can need the interpreter while it ends, and then aborts the process.
    assert threads_of_group() == []


if __name__ == "__main__":
    main(*sys.argv[1:])
