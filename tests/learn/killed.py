"""Trainings of the toy in processes of their own, some of which kill themselves; started by test_resume.

Usage: killed.py FOLDER BASE VALUE. For each method it trains in FOLDER/METHOD-whole undisturbed, and in
FOLDER/METHOD-killed three times: twice it kills itself with SIGKILL, so that nothing can be put in order first. Each
call is a fork of this process, which has imported torch and not used it. Prints the exit codes by method, as JSON; what
the second kill left is copied to FOLDER/METHOD-left.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from pasture.core.records import Comparison, Preference
from pasture.learn import expert_iteration, grpo, online_dpo, ppo, quark, resume, reward_model, rloo, sft
from pasture.learn.judging import AnnotatedEnvironment, Remembered
from pasture.learn.rollouts import Environment
from tests.learn import toy

SFT = sft.Config(epochs=3, batch_size=4, learning_rate=1e-3, max_tokens=32, held_out_count=4, checkpoint_steps=2)
REWARD = reward_model.Config(epochs=3, batch_size=4, learning_rate=1e-3, max_tokens=32, checkpoint_steps=2)
PPO = ppo.Config(
    steps=6,
    rollout_batch_size=8,
    minibatch_size=4,
    learning_rate=1e-3,
    kl_controller="adaptive",
    max_prompt_tokens=16,
    max_new_tokens=8,
    save_every=3,
    checkpoint_steps=2,
)
OWN_ANSWERS: dict[str, Any] = {
    "steps": 6,
    "rollout_batch_size": 8,
    "minibatch_size": 4,
    "learning_rate": 1e-3,
    "max_prompt_tokens": 16,
    "max_new_tokens": 8,
    "save_every": 3,
    "checkpoint_steps": 2,
}


# Two files of winners and five steps of training a round: the kills fall after the first file and after the third step.
EXPERT = expert_iteration.Config(
    rounds=2,
    n=2,
    epochs=1,
    batch_size=4,
    learning_rate=1e-3,
    max_tokens=32,
    checkpoint_steps=2,
    max_prompt_tokens=16,
    max_new_tokens=8,
)


def environment() -> Environment:
    return Environment(toy.instructions(20), toy.TEMPLATE, toy.count_liked)


class Billing:
    """Prefers the answer with more liked words, and writes down every comparison that it is asked about."""

    identity: ClassVar = {"annotator": "billing"}

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        with self.ledger.open("a") as file:
            file.writelines(f"{comparison.id}\n" for comparison in comparisons)
        first_wins = [
            one.first.text.split().count(toy.LIKED) >= one.second.text.split().count(toy.LIKED) for one in comparisons
        ]
        return [
            Preference(comparison_id=one.id, annotator="billing", preferred="first" if first else "second")
            for one, first in zip(comparisons, first_wins, strict=True)
        ]


def _judged(folder: Path) -> AnnotatedEnvironment:
    annotator = Remembered(Billing(folder.with_suffix(".ledger")), folder / "judged")
    return AnnotatedEnvironment(toy.instructions(20), toy.TEMPLATE, annotator)


TRAININGS: dict[str, Callable[..., None]] = {
    "sft": lambda base, value, **end: sft.train(
        SFT, start=base, demonstrations=toy.demonstrations(16), template=toy.TEMPLATE, **end
    ),
    "reward_model": lambda base, value, **end: reward_model.train(
        REWARD, start=base, feedback=toy.separable_feedback(16), template=toy.TEMPLATE, **end
    ),
    "ppo": lambda base, value, **end: ppo.train(PPO, start=base, value_start=value, environment=environment(), **end),
    "ppo_shared": lambda base, value, **end: ppo.train(
        PPO.model_copy(update={"value": "shared"}), start=base, value_start=value, environment=environment(), **end
    ),
    "rloo": lambda base, value, **end: rloo.train(
        rloo.Config(group_size=4, **OWN_ANSWERS), start=base, environment=environment(), **end
    ),
    "grpo": lambda base, value, **end: grpo.train(
        grpo.Config(group_size=4, **OWN_ANSWERS), start=base, environment=environment(), **end
    ),
    "online_dpo": lambda base, value, **end: online_dpo.train(
        online_dpo.Config(**OWN_ANSWERS), start=base, environment=environment(), **end
    ),
    "quark": lambda base, value, **end: quark.train(
        quark.Config(train_on="all", pool_steps=3, **OWN_ANSWERS), start=base, environment=environment(), **end
    ),
    "online_dpo_annotator": lambda base, value, folder, **end: online_dpo.train(
        online_dpo.Config(judge="annotator", **OWN_ANSWERS),
        start=base,
        environment=_judged(folder),
        folder=folder,
        **end,
    ),
    "expert_iteration": lambda base, value, **end: expert_iteration.train(
        EXPERT, start=base, environment=environment(), **end
    ),
}
"""Each method's training, given a base model, a reward model, and where and how to run."""


def train(method: str, base: Path, value: Path, folder: Path, last_step: int) -> None:
    def progress(done: int, total: int, **figures: float) -> None:
        if done == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    TRAININGS[method](base, value, folder=folder, seed=0, progress=progress)


def exit_code(method: str, base: Path, value: Path, folder: Path, last_step: int) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        train(method, base, value, folder, last_step)
        code = 0
    except BaseException:  # noqa: BLE001 -- a fork must not run on into the parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


def main(folder: Path, base: Path, value: Path) -> None:
    torch.set_num_threads(1)
    resume.SECONDS_BETWEEN_REPORTS = 0.0
    expert_iteration.INSTRUCTIONS_A_FILE = 10
    codes = {}
    for method in TRAININGS:
        killed = folder / f"{method}-killed"
        codes[method] = [exit_code(method, base, value, folder / f"{method}-whole", 0)]
        # Step 1 is before the first checkpoint, step 5 between the second and the third.
        codes[method] += [exit_code(method, base, value, killed, last_step) for last_step in (1, 5)]
        shutil.copytree(killed, folder / f"{method}-left")
        codes[method].append(exit_code(method, base, value, killed, 0))
    print(json.dumps(codes))  # noqa: T201


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
