"""The loop of the meadow at a size that takes seconds, run as users run it."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
LOOP = REPOSITORY / "recipes" / "meadow" / "loop.toml"

TINY = (
    "threads=1",
    "model.start=meadow-untrained",
    *("data.sft=48", "data.preference=40", "data.unlabeled=24", "data.validation=8", "data.evaluation=12"),
    *("sampling.max_new_tokens=8", "answering.max_new_tokens=8"),
    *("learn.sft.epochs=1", "learn.sft.batch_size=16", "learn.sft.checkpoint_steps=1", "learn.sft.held_out_count=8"),
    *("learn.reward_model.epochs=1", "learn.reward_model.batch_size=16", "learn.reward_model.held_out_count=8"),
    *("learn.reward_model.centring_count=8", "learn.reward_model.checkpoint_steps=1"),
    "learn.best_of_n.n=2",
    *("learn.ppo.steps=4", "learn.ppo.rollout_batch_size=8", "learn.ppo.minibatch_size=8", "learn.ppo.save_every=2"),
    *("learn.ppo.max_new_tokens=8", "learn.ppo.checkpoint_steps=1"),
)
"""Overrides of the loop's recipe. Every training saves a checkpoint after each step."""


def run(*arguments: str, program: str = "pasture", columns: int = 200) -> subprocess.CompletedProcess[str]:
    """What `python -m PROGRAM` with these arguments did; one thread, no terminal, nothing on its input."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": str(columns)}
    return subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def run_tiny(out: Path) -> subprocess.CompletedProcess[str]:
    """The tiny loop into the folder `out`."""
    return run("run", str(LOOP), *TINY, "--out", str(out))
