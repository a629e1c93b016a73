"""The step of room 7: what a run found, gathered from its files, on one page."""

import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

import pasture
from pasture.core.errors import RecordError
from pasture.core.files import read_records
from pasture.core.records import Comparison, Completion, Instruction, Preference, WinRate
from pasture.core.run_folder import STEP_FILE
from pasture.core.seeds import uniform
from pasture.plan import ANNOTATORS, BOARD, DATA, SFT
from pasture.recipe import MEADOW
from pasture.report import summary
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
from pasture.steps import Outcome, Task
from pasture.steps.board_page import breakdowns, length_table
from pasture.steps.judge_titles import judge_title, judges_in, selecting_judge
from pasture.steps.training_curves import run_figures, trainings
from pasture.steps.validate import LABELS_PER_PAIR
from pasture.steps.ways import Way, run_curves, run_ways, unjudged_places

SAMPLE_COUNT = 8
_SELECTION = "5-evaluate/selection/"
_OUTCOMES = {"first": "loss", "second": "win", "tie": "tie", "unjudged": "unjudged"}
"""What a verdict means for the system, which stands second beside the reference."""


def page(task: Task) -> Outcome:
    """Write `index.html`, and every figure as SVG, PNG and CSV."""
    recipe = task.settings["recipe"]
    figures = _figures(task)
    content = ReportContent(
        title=recipe.get("title") or recipe["name"],
        testbed=testbed(recipe),
        warnings=(*board_warnings(task), *_missing_places(task)),
        baseline="sft" if SFT in task.inputs else "",
        leaderboards=_leaderboards(task),
        breakdowns=_breakdowns(task),
        figures=figures,
        samples=samples(task),
        annotators=annotator_tables(task),
        costs=_costs(task),
        facts=facts(recipe),
        words=own_words(recipe),
        recipe=tomli_w.dumps(recipe),
    )
    write_report(content, task.folder / "index.html")
    for figure in all_figures(content):
        save(figure, task.folder / "figures")
    return Outcome(details={"figures": len(figures), "samples": len(content.samples)})


def _boards(task: Task) -> Any:
    """What was ranked, by judge."""
    return _json(task.inputs[BOARD] / "leaderboard.json")


def _leaderboards(task: Task) -> tuple[Leaderboard, ...]:
    return tuple(
        Leaderboard(
            title=judge_title(judge),
            rows=tuple(WinRate.model_validate(row["win_rate"]) for row in board["rows"]),
            differences=tuple(Difference(**row) for row in board["differences"]),
        )
        for judge, board in _boards(task).items()
    )


def testbed(recipe: Mapping[str, Any]) -> str:
    """What a reader must know of the built-in world; nothing where the instructions are from elsewhere."""
    return summary.MEADOW if recipe["data"]["source"] == MEADOW else ""


def board_warnings(task: Task) -> tuple[str, ...]:
    """What the boards of a run say against their own numbers, once where several judges' say the same."""
    told = (warning for board in _boards(task).values() for warning in board.get("warnings", ()))
    return tuple(dict.fromkeys(told))


def _missing_places(task: Task) -> list[str]:
    """What the curves lack since none of it was judged."""
    return [
        f"{way.family}, judged by {judge_title(way.judge)}: {unjudged_places(way)}"
        for way in _ways(task)
        if way.unjudged
    ]


def _breakdowns(task: Task) -> tuple[Table, ...]:
    """What stands behind the first judge's leaderboard: rates by source and at equal length, shares.

    Of each other judge the rates at equal length.
    """
    (judge, board), *others = _boards(task).items()
    lengths = [
        _explained_above(length_table(judge_title(other), own["rows"]))
        for other, own in others
        if any(row["length_controlled"] for row in own["rows"])
    ]
    return (*breakdowns(judge_title(judge), board["rows"]), *lengths)


def _explained_above(table: Table) -> Table:
    """The table without the meanings of its columns, which one like it has told."""
    return table.model_copy(
        update={"columns": tuple(column.model_copy(update={"meaning": ""}) for column in table.columns)}
    )


def _figures(task: Task) -> tuple[Figure, ...]:
    selections = [name for name in task.inputs if name.startswith(_SELECTION)]
    recipe = task.settings["recipe"]
    picked = [_selection(selections, task.inputs, selecting_judge(recipe, {}))] if selections else []
    followed = run_curves(_ways(task), recipe["seed"])
    return (*picked, *followed, *run_figures(trainings(task.inputs), progress_names(recipe)))


def _ways(task: Task) -> list[Way]:
    return run_ways(task.inputs, task.settings["recipe"]["evaluate"]["judges"])


def progress_names(recipe: Mapping[str, Any]) -> dict[str, str]:
    """What the trainings that do not go on by steps go on by."""
    return {name: "round" for name, table in recipe["learn"].items() if "rounds" in table}


def _selection(names: Sequence[str], inputs: Mapping[str, Path], judge: str) -> Figure:
    """A panel for each method that leaves several policies to pick from."""
    methods = [name.removeprefix(_SELECTION) for name in names]
    panels = tuple(_picked(method, inputs[name]) for method, name in zip(methods, names, strict=True))
    return Figure(
        name="selection",
        title=f"Which step of {methods[0]} was picked" if len(methods) == 1 else "Which steps were picked",
        caption=f"Win rates on the validation split, judged by {judge}, against the demonstrations; the evaluation set "
        "plays no part in the choice. Step 0 is the model that training set out from. Where a line turns down, the "
        "reward is no longer what the judges want.",
        panels=panels,
    )


def _picked(method: str, folder: Path) -> Panel:
    step = _json(folder / "selection.json")["step"]
    rows = [
        {
            "step": int(rate.system.rsplit("@", 1)[1]),
            "rate": rate.rate,
            "low": rate.interval_low,
            "high": rate.interval_high,
        }
        for rate in read_records(folder / "win_rates.jsonl", WinRate)
    ]
    return Panel(
        title=f"{method}: win rate on the validation split",
        percent=True,
        series=(Series.of("win rate", rows, x="step", y="rate", low="low", high="high"),),
        marks=(Mark(x=step, label=f"picked: step {step}"),),
    )


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
    """What a reader needs to do it again: versions as they are installed here, threads where the recipe sets them."""
    packages = {name: importlib.metadata.version(name) for name in ("numpy", "torch") if importlib.util.find_spec(name)}
    return (
        Fact(name="Pasture", value=pasture.__version__),
        Fact(name="Python", value=platform.python_version()),
        *(Fact(name=name, value=version) for name, version in packages.items()),
        Fact(name="Seed", value=str(recipe["seed"])),
        *([Fact(name="Threads", value=str(recipe["threads"]))] if recipe.get("threads") else []),
    )


def own_words(recipe: Mapping[str, Any]) -> tuple[Fact, ...]:
    """The names that the recipe gave to systems, where they are not their method's."""
    words = []
    for name, table in recipe["learn"].items():
        method = table.get("method", name)
        if method.endswith(".py"):
            words.append(Fact(name=name, value=f"A method of this recipe's own, in the file {Path(method).name}."))
        elif method != name:
            words.append(Fact(name=name, value=f"The method {method} under this recipe's own name for it."))
    return tuple(words)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: not JSON ({error}).") from error
