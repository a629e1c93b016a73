"""The step of room 7: what a run found, gathered from its files, on one page."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

import pasture
from pasture.core.errors import RecordError
from pasture.core.files import read_json_lines, read_records
from pasture.core.records import Comparison, Completion, Instruction, Preference, WinRate
from pasture.core.run_folder import STEP_FILE
from pasture.core.seeds import uniform
from pasture.plan import ANNOTATORS, BOARD, DATA, REWARD_MODEL, SFT
from pasture.report.content import (
    Answer,
    Column,
    Difference,
    Fact,
    Figure,
    Judgement,
    Leaderboard,
    Mark,
    Panel,
    ReportContent,
    Sample,
    Series,
    StepCost,
    Table,
)
from pasture.report.figures import all_figures, save
from pasture.report.page import write_report
from pasture.report.summary import MEADOW
from pasture.steps import Outcome, Task
from pasture.steps.board_page import breakdowns
from pasture.steps.evaluate import judge_title, judges_in
from pasture.steps.validate import LABELS_PER_PAIR

SAMPLE_COUNT = 8
_OUTCOMES = {"first": "loss", "second": "win", "tie": "tie", "unjudged": "unjudged"}
"""What a verdict means for the system, which stands second beside the reference."""


def page(task: Task) -> Outcome:
    """Write `index.html`, and every figure as SVG, PNG and CSV."""
    recipe = task.settings["recipe"]
    figures = _figures(task)
    content = ReportContent(
        title=recipe.get("title") or recipe["name"],
        testbed=MEADOW,
        baseline="sft" if SFT in task.inputs else "",
        leaderboards=_leaderboards(task),
        breakdowns=_breakdowns(task),
        figures=figures,
        samples=samples(task),
        annotators=annotator_tables(task),
        costs=_costs(task),
        facts=facts(recipe),
        recipe=tomli_w.dumps(recipe),
    )
    write_report(content, task.folder / "index.html")
    for figure in all_figures(content):
        save(figure, task.folder / "figures")
    return Outcome(details={"figures": len(figures), "samples": len(content.samples)})


def _leaderboards(task: Task) -> tuple[Leaderboard, ...]:
    boards = _json(task.inputs[BOARD] / "leaderboard.json")
    return tuple(
        Leaderboard(
            title=judge_title(judge),
            rows=tuple(WinRate.model_validate(row["win_rate"]) for row in board["rows"]),
            differences=tuple(Difference(**row) for row in board["differences"]),
        )
        for judge, board in boards.items()
    )


def _breakdowns(task: Task) -> tuple[Table, ...]:
    """What stands behind the first judge's leaderboard: rates by source and at equal length, shares."""
    judge, board = next(iter(_json(task.inputs[BOARD] / "leaderboard.json").items()))
    return tuple(breakdowns(judge_title(judge), board["rows"]))


def _figures(task: Task) -> tuple[Figure, ...]:
    selections = [name for name in task.inputs if name.startswith("5-evaluate/selection/")]
    figures = [_selection(task, name.rsplit("/", 1)[1]) for name in selections]
    if "4-learn/ppo" in task.inputs:
        figures.append(_ppo_curves(_metrics(task.inputs["4-learn/ppo"])))
    training = _training_panels(task)
    if training:
        figures.append(
            Figure(name="training", title="Imitating and scoring", panels=training, caption="Before PPO begins.")
        )
    return tuple(figures)


def _selection(task: Task, method: str) -> Figure:
    folder = task.inputs[f"5-evaluate/selection/{method}"]
    rates = read_records(folder / "win_rates.jsonl", WinRate)
    picked = _json(folder / "selection.json")["step"]
    rows = [
        {
            "step": int(rate.system.rsplit("@", 1)[1]),
            "rate": rate.rate,
            "low": rate.interval_low,
            "high": rate.interval_high,
        }
        for rate in rates
    ]
    series = Series.of("simulated annotators", rows, x="step", y="rate", low="low", high="high")
    panel = Panel(
        title="Win rate on the validation split",
        percent=True,
        series=(series,),
        marks=(Mark(x=picked, label=f"picked: step {picked}"),),
        note="Step 0 is the model that training set out from. Where the line turns down, the reward is no longer "
        "what the judges want.",
    )
    return Figure(
        name=f"selection-{method.replace('_', '-')}",
        title=f"Which {method.upper()} step was picked",
        caption="Judged by the simulated annotators without label noise, against the demonstrations; the evaluation "
        "set plays no part in the choice.",
        panels=(panel,),
    )


_EARLIER_NAMES = {"objective/scores": "reward", "policy/entropy": "entropy"}
"""What figures were called in folders of trainings that are as good as today's."""


def _metrics(folder: Path) -> list[dict[str, object]]:
    rows = read_json_lines(folder / "metrics.jsonl")
    return [{_EARLIER_NAMES.get(name, name): value for name, value in row.items()} for row in rows]


def _ppo_curves(rows: list[dict[str, object]]) -> Figure:
    panels = (
        Panel(title="Reward model's score", series=(Series.of("score", rows, x="step", y="reward"),)),
        Panel(title="KL to the SFT model, nats an answer", series=(Series.of("KL", rows, x="step", y="objective/kl"),)),
        Panel(
            title="Answer length, tokens", series=(Series.of("length", rows, x="step", y="completions/mean_length"),)
        ),
        Panel(title="Entropy, nats a token", series=(Series.of("entropy", rows, x="step", y="entropy"),)),
    )
    return Figure(name="ppo", title="How PPO went", caption="Means over each step's rollouts.", panels=panels)


def _training_panels(task: Task) -> tuple[Panel, ...]:
    panels = []
    for name, title in ((SFT, "SFT loss, nats a token"), (REWARD_MODEL, "Reward model's loss, nats a pair")):
        if name in task.inputs:
            rows = _metrics(task.inputs[name])
            panels.append(Panel(title=title, series=(Series.of("loss", rows, x="step", y="loss"),)))
    return tuple(panels)


def samples(task: Task) -> tuple[Sample, ...]:
    """A few evaluation instructions, drawn by content, with what every system answered."""
    systems = {
        name.rsplit("/", 1)[1]: folder
        for name, folder in task.inputs.items()
        if name.startswith("3-annotate/evaluation/")
    }
    instructions = read_records(task.inputs[DATA] / "evaluation.jsonl", Instruction)
    chosen = sorted(instructions, key=lambda one: uniform(0, "report-sample", one.id))[:SAMPLE_COUNT]
    answers: dict[str, list[Answer]] = {one.id: [] for one in chosen}
    references: dict[str, Completion] = {}
    for folder in systems.values():
        judgements = _judgements(folder)
        for comparison in read_records(folder / "comparisons.jsonl", Comparison):
            if comparison.instruction.id in answers:
                references[comparison.instruction.id] = comparison.first
                answers[comparison.instruction.id].append(
                    Answer(completion=comparison.second, judgements=judgements[comparison.id])
                )
    return tuple(
        Sample(instruction=one, answers=(Answer(completion=references[one.id]), *answers[one.id])) for one in chosen
    )


def _judgements(folder: Path) -> Mapping[str, tuple[Judgement, ...]]:
    found: dict[str, tuple[Judgement, ...]] = {}
    for judge in judges_in(folder):
        for preference in read_records(folder / f"{judge}.jsonl", Preference):
            verdict = Judgement.model_validate(
                {"judge": judge_title(judge), "outcome": _OUTCOMES[preference.preferred]}
            )
            found[preference.comparison_id] = (*found.get(preference.comparison_id, ()), verdict)
    return found


_ANNOTATOR_COLUMNS = (
    Column(title="Annotator"),
    Column(
        title="Agrees with people",
        format="percent",
        meaning="One label with the majority of people's; for people themselves, one with the majority of the others'.",
    ),
    Column(title="Bias", format="percent", meaning="How far the majority of its labels is from people's majority."),
    Column(title="Variance", format="percent", meaning="How far one label is from the majority of its others."),
    Column(title="Prefers longer", format="percent", meaning="Among answers of clearly different length."),
    Column(title="Prefers first", format="percent", meaning="The answer shown or listed first; 50% is no leaning."),
)


def annotator_tables(task: Task) -> tuple[Table, ...]:
    """How people and pool agree with people, where the run has looked into it."""
    if ANNOTATORS not in task.inputs:
        return ()
    reports = _json(task.inputs[ANNOTATORS] / "annotators.json")
    figures = ("agreement", "bias", "variance", "prefer_longer", "prefer_first")
    return (
        Table(
            title="How the annotators compare",
            caption=f"{reports[0]['pair_count']:,} pairs of the SFT model's answers, {LABELS_PER_PAIR} labels each. "
            "AlpacaFarm's people agreed with each other's majority in 66% of cases, its pool in 65%.",
            columns=_ANNOTATOR_COLUMNS,
            rows=tuple(
                (row["annotator"], *(None if row[name] is None else row[name][0] for name in figures))
                for row in reports
            ),
        ),
    )


def _costs(task: Task) -> tuple[StepCost, ...]:
    costs = []
    for name, folder in task.inputs.items():
        record = _json(folder / STEP_FILE)
        costs.append(StepCost(step=name, seconds=record["seconds"], cost_usd=record["cost_usd"]))
    return tuple(costs)


def facts(recipe: Mapping[str, Any]) -> tuple[Fact, ...]:
    """What a reader needs to do it again."""
    return (
        Fact(name="Pasture", value=pasture.__version__),
        Fact(name="Python", value=platform.python_version()),
        Fact(name="Seed", value=str(recipe["seed"])),
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: not JSON ({error}).") from error
