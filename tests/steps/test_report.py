"""The page of a run from the files of its steps."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pasture.core.files import write_json_lines, write_records, write_text
from pasture.core.ports import silent
from pasture.core.records import Comparison, Completion, Instruction, Preference, Verdict
from pasture.core.run_folder import STEP_FILE
from pasture.recipe import parse, resolved_for_steps
from pasture.steps import Task, evaluate, report

COUNT = 24
ASKED = [
    Instruction(id=f"i{number}", instruction=f"say {number}", source="x", split="evaluation") for number in range(COUNT)
]
RATES = {"sft": 8, "ppo": 14, "dpo": 11}
"""How many of the instructions each system wins, by every judge."""
JUDGES = ("people", "pool")
STEPS = (0, 2, 4)


class Run:
    """A run whose steps are put here one by one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inputs: dict[str, Path] = {}
        recipe = {"name": "tiny", "evaluate": {"judges": list(JUDGES)}}
        self.recipe = resolved_for_steps(parse(recipe, "tiny.toml"))

    def step(self, name: str) -> Path:
        folder = self.inputs[name] = self.root / name
        folder.mkdir(parents=True)
        write_text(folder / STEP_FILE, json.dumps({"seconds": 1.0, "cost_usd": 0.0, "details": {}}))
        return folder

    def judged(self, system: str, wins: int) -> None:
        """A system's answers, the longer the more they win, and what both judges said of them."""
        folder = self.step(f"3-annotate/evaluation/{system}")
        comparisons = [
            Comparison.of(
                one,
                Completion(instruction_id=one.id, text="as long", system="demonstrations", seed=0),
                Completion(instruction_id=one.id, text="word " * (1 + number % wins), system=system, seed=0),
            )
            for number, one in enumerate(ASKED)
        ]
        write_records(folder / "comparisons.jsonl", comparisons)
        for judge in JUDGES:
            verdicts: list[Verdict] = ["second" if number < wins else "first" for number in range(COUNT)]
            said = [
                Preference(comparison_id=one.id, annotator=judge, preferred=verdict, cost_usd=0.0)
                for one, verdict in zip(comparisons, verdicts, strict=True)
            ]
            write_records(folder / f"{judge}.jsonl", said)

    def board(self) -> None:
        settings = {"systems": list(RATES), "judges": list(JUDGES), "seed": 0, "length_control_draws": 20}
        inputs = {name: self.inputs[f"3-annotate/evaluation/{name}"] for name in RATES}
        evaluate.board(Task(self.step("5-evaluate/board"), inputs, settings, silent))

    def curve(self, credit: Mapping[str, Sequence[Sequence[float | None]]]) -> None:
        """PPO's way, with the credit of each instruction at each step by each judge."""
        folder = self.step("5-evaluate/curve/ppo")
        rows: list[dict[str, Any]] = [
            {"system": "ppo", "judge": judge, "progress": step, "credit": list(given)}
            for judge, places in credit.items()
            for step, given in zip(STEPS, places, strict=True)
        ]
        more = {"progress_name": "step", "kl": 0.1, "rate": None, "standard_error": None}
        write_json_lines(folder / "outcomes.jsonl", rows)
        write_json_lines(folder / "points.jsonl", [{**row, **more, "proxy": row["progress"] / 10} for row in rows])

    def page(self) -> str:
        folder = self.root / "page"
        folder.mkdir()
        report.page(Task(folder, self.inputs, {"recipe": self.recipe}, silent))
        return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path)
    write_records(made.step("1-data") / "evaluation.jsonl", ASKED)
    for system, wins in RATES.items():
        made.judged(system, wins)
    made.board()
    return made


def test_a_run_shows_every_pair_and_each_judges_rates_at_equal_length(run: Run) -> None:
    page = run.page()
    assert page.count("dpo over sft") == page.count("ppo over dpo") == page.count("ppo over sft") == len(JUDGES)
    assert "for the 3 pairs of this table" in page
    for title in ("people (hidden)", "simulated annotators"):
        assert f"<strong>Length and place, judged by {title}.</strong>" in page
    assert page.count("The win rate if its answers were as long as the reference&#39;s") == 1
    assert page.count('<th scope="col">At equal length</th>') == len(JUDGES)


def test_a_run_draws_the_way_of_a_method_by_people_and_pool(run: Run) -> None:
    # By hand: people 6, 18, 6 of 24, the pool 6, 12, 18; the first falls by half its instructions after step 2.
    people, pool = ([[1.0] * wins + [0.0] * (COUNT - wins) for wins in way] for way in ((6, 18, 6), (6, 12, 18)))
    run.curve({"people": people, "pool": pool})
    page = run.page()
    assert "Does ppo over-optimize its reward?" in page
    assert "people (hidden): down by 50.0 points after step 2." in page
    drawn = (run.root / "page/figures/overoptimization-ppo.csv").read_text().splitlines()
    rows = [line.split(",") for line in drawn if line.startswith("ppo: win rate over steps,point")]
    assert [(row[2], float(row[4]), float(row[5])) for row in rows] == [
        *(("people (hidden)", step, rate) for step, rate in zip(STEPS, (0.25, 0.75, 0.25), strict=True)),
        *(("simulated annotators", step, rate) for step, rate in zip(STEPS, (0.25, 0.5, 0.75), strict=True)),
    ]
    scored = [line.split(",") for line in drawn if line.startswith("ppo: win rate over its reward,point")]
    assert [float(row[4]) for row in scored] == [0.0, 0.2, 0.4] * 2


def test_a_place_that_nobody_judged_is_told_before_the_numbers(run: Run) -> None:
    known, unknown = [1.0] * 6 + [0.0] * 18, [None] * COUNT
    run.curve({"people": [known, known, unknown], "pool": [known, unknown, unknown]})
    page = run.page()
    assert "ppo, judged by people (hidden): nothing was judged at step 4, so 1 of 3 places" in page
    assert "so 2 of 3 places on its curve are left out, and too few are left to draw it." in page
