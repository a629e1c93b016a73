"""Two steps of a run that ask one pool at a dollar a call; `python -m tests.flows.spending FOLDER N` dies in call N."""

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pasture.annotate import stored
from pasture.core.files import write_records
from pasture.core.records import Completion, Instruction
from pasture.core.requests import Reply, Request
from pasture.core.run_folder import RunFolder
from pasture.engines.budget import Budget
from pasture.engines.loop import in_order, on_engine_loop
from pasture.flow import Order, do_step
from pasture.generate.pairs import sample_pairs
from pasture.plan import Step
from pasture.steps.together import Several
from tests.annotate.judging import RuleEngine, prefers_good

INSTRUCTIONS = [
    Instruction(id=f"i{number}", instruction=f"say {number}", source="test", split="evaluation") for number in range(30)
]
LABEL, JUDGE = "3-annotate/preference", "3-annotate/evaluation/mine"


class PricedEngine(RuleEngine):
    """A service that takes a dollar for each call, as the budget lets it; `closed` says whether it was let go."""

    def __init__(self, budget: Budget | None, dies_amid: int = 0) -> None:
        super().__init__(prefers_good)
        self.budget, self.dies_amid, self.closed = budget, dies_amid, False

    @property
    def in_flight(self) -> int:
        return 1

    async def complete(self, request: Request) -> Reply:
        return await on_engine_loop(self._paid(request))

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        return in_order(self, requests)

    def close(self) -> None:
        self.closed = True

    async def _paid(self, request: Request) -> Reply:
        assert self.budget is not None
        await self.budget.reserve(1.0)
        reply = self._answer(request)
        if len(self.asked) == self.dies_amid:
            os.kill(os.getpid(), signal.SIGKILL)
        self.budget.settle(1.0, 1.0)
        return reply.model_copy(update={"cost_usd": 1.0})


def make_inputs(folder: Path) -> None:
    """What the two steps read, as finished steps of the run in `folder`."""
    run = RunFolder(folder)
    with run.held():
        data = run.workspace("1-data", "data")
        write_records(data / "evaluation.jsonl", INSTRUCTIONS)
        write_records(data / "evaluation-demonstrations.jsonl", _said("bad", "demonstrations"))
        _publish(run, "1-data")
        write_records(run.workspace("2-generate/mine", "mine") / "completions.jsonl", _said("good", "mine"))
        _publish(run, "2-generate/mine")
        drawn = [one.model_copy(update={"seed": seed}) for seed in (0, 1) for one in _said(f"bad {seed}", "sft")]
        pairs = run.workspace("2-generate/pairs", "pairs")
        write_records(pairs / "comparisons.jsonl", sample_pairs(INSTRUCTIONS, drawn))
        _publish(run, "2-generate/pairs")


def _said(text: str, system: str) -> list[Completion]:
    return [Completion(instruction_id=one.id, text=f"{text} {one.id}", system=system, seed=0) for one in INSTRUCTIONS]


def _publish(run: RunFolder, name: str) -> None:
    run.publish(name, seconds=0.0, cost_usd=0.0, details={})


def do(folder: Path, name: str, max_usd: float) -> None:
    """One of the two steps; thirty pairs are six calls of it, five pairs a call."""
    pool = {"pool": "greedy", "models": ["m"], "max_usd": max_usd, "store": str(folder / "answers.sqlite")}
    shared: dict[str, Any] = {"seed": 0}
    own = {"pools": {"judges": pool}}
    needs: Mapping[str, str]
    if name == LABEL:
        settings = {**shared, "annotator": "judges", "own": own, "label_flip_probability": 0.0}
        work, needs = "annotate.label", {"pairs": "2-generate/pairs"}
    else:
        settings = {**shared, "judges": ["judges"], "own": {"judges": own}, "people_votes": 1, "split": "evaluation"}
        work, needs = "annotate.judge_system", {"data": "1-data", "answers": "2-generate/mine"}
    step = Step(name, work, settings, needs)
    do_step(Order(folder, step, work.partition(".")[2], None, Several(1)), lambda *_, **__: None)


def main(folder: Path, dies_amid: int) -> None:
    """Both steps, until the call that kills."""
    with patch.object(stored, "open_engine", lambda *_, budget: PricedEngine(budget, dies_amid)):
        for name in (LABEL, JUDGE):
            do(folder, name, max_usd=10.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
