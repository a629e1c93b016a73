"""Trainings on preferences in processes of their own, some of which kill themselves; started by its test.

Usage and output are those of killed.py.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pasture.learn import dpo, feedme, kto, reward_conditioning, simpo
from tests.learn import killed, toy

SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "max_tokens": 32,
    "held_out_count": 2,
    "save_every": 3,
    "checkpoint_steps": 2,
}


def _training(method: Any) -> Callable[..., None]:
    config = method.Config(**{name: value for name, value in SETTINGS.items() if name in method.Config.model_fields})

    def train(base: Path, value: Path, **end: Any) -> None:
        method.train(config, start=base, feedback=toy.separable_feedback(14), template=toy.TEMPLATE, **end)

    return train


TRAININGS = {
    method.__name__.rpartition(".")[2]: _training(method) for method in (dpo, simpo, kto, feedme, reward_conditioning)
}


if __name__ == "__main__":
    killed.TRAININGS = TRAININGS
    killed.main(*map(Path, sys.argv[1:]))
