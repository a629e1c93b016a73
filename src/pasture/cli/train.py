"""`pasture train` and `pasture score`: one method, or one scorer, on files of one's own."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich.console import Console

from pasture.annotate.tables import require_target, write_rows
from pasture.cli import judges
from pasture.cli.method_settings import settings_list, settings_of
from pasture.cli.options import Track, spread
from pasture.cli.progress import shown_progress
from pasture.core.errors import DataError, RecipeError
from pasture.core.files import require_apart
from pasture.core.tables import read_rows
from pasture.core.templates import TEMPLATES
from pasture.data.answers import Answers, answers_of_row
from pasture.data.instructions import load_demonstrations, load_prompts
from pasture.data.preferences import FeedbackFile, load_feedback
from pasture.flow import training_module
from pasture.machine.launch import Sharding
from pasture.machine.tracker_settings import trackers_named
from pasture.recipe import BUILT_IN, apply_override, start_folder

_CAME_FROM = {
    "new": "",
    "begun": "Went on from what was there. ",
    "finished": "It was trained before, and nothing was done. ",
}
DATA_HELP = "JSON, JSONL, CSV or Parquet, a folder, or hub:ORG/NAME/FILES@REVISION; see docs/data.md."
Settings = Annotated[
    list[str] | None,
    typer.Argument(help="Settings of the method, such as beta=0.1 weights.lora.rank=16; --settings lists them."),
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template", help=f"{', '.join(TEMPLATES)}; what the model was trained with where absent, else chat."
    ),
]


@dataclass(frozen=True)
class How:
    """Options: how a model is asked, and which draws it takes."""

    template: Template = None
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of all draws.")] = 0


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(
        "train",
        epilog="Example: pasture train dpo beta=0.1 weights.lora.rank=16 --start models/sft --feedback pairs.jsonl",
    )(train)
    app.command("score", epilog="Example: pasture score runs/train/model pairs.jsonl --out scored.jsonl")(score)


@dataclass(frozen=True)
class Data:
    """Options: what is learned from."""

    title: ClassVar[str] = "Data"
    demonstrations: Annotated[str | None, typer.Option("--demonstrations", help=f"To imitate. {DATA_HELP}")] = None
    feedback: Annotated[str | None, typer.Option("--feedback", help=f"Preferences or ratings. {DATA_HELP}")] = None
    labels: Annotated[
        str, typer.Option("--labels", help="Columns of labels beside output_1 and output_2, with commas between.")
    ] = "preference"
    instructions: Annotated[str | None, typer.Option("--instructions", help=f"To answer. {DATA_HELP}")] = None
    scorer: Annotated[
        Path | None,
        typer.Option("--scorer", help="Folder of the reward model or the ensemble that scores, or a file of yours."),
    ] = None
    judge: Annotated[list[str] | None, typer.Option("--judge", help=judges.HELP)] = None
    base: Annotated[
        Path | None, typer.Option("--base", help="Folder of the model before any fine-tuning, for fine_tune=base.")
    ] = None
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, help="Rows to learn from, from the first; of pairs, with all labels of each."),
    ] = None
    leave_out_long: Annotated[
        bool, typer.Option("--leave-out-long", help="Leave out prompts beyond the method's limit, and say how many.")
    ] = False

    def read(self, console: Console) -> dict[str, Any]:
        """What the files hold, as `pasture.steps.alone.Training` takes it."""
        given: dict[str, Any] = {"scorer": self.scorer, "base": self.base, "leave_out_long": self.leave_out_long}
        if self.demonstrations is not None:
            split = load_demonstrations(self.demonstrations, self.count)
            given["demonstrations"] = list(zip(split.instructions, split.demonstrations, strict=True))
            _say_left_out(console, {"nothing to imitate": split.left_out})
        if self.feedback is not None:
            labels = tuple(self.labels.split(","))
            loaded = load_feedback(FeedbackFile(file=self.feedback, labels=labels, count=self.count))
            given["feedback"] = loaded.rows
            _say_left_out(console, loaded.left_out)
        if self.instructions is not None:
            given["instructions"] = load_prompts(self.instructions, self.count)
        return {**given, "names": self.names()}

    def names(self) -> dict[str, str]:
        """What the files that are named are called, by what they hold."""
        roles = ("demonstrations", "feedback", "instructions")
        return {role: getattr(self, role) for role in roles if getattr(self, role) is not None}

    def given(self) -> list[str]:
        """The options that name what is learned from, and from whom."""
        asked = {"scorer": self.scorer, "judge": self.judge, "base": self.base}
        return [*self.names(), *(option for option, value in asked.items() if value)]


@dataclass(frozen=True)
class Running:
    """Options: where the work goes, and who does it."""

    title: ClassVar[str] = "Running"
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Let METHOD or the scorer be a Python file.")] = False
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; the same command goes on in it.")] = Path(
        "runs/train"
    )
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, help="Processes that a launcher must have started; an error else."),
    ] = None
    track: Track = None
    sharding: Annotated[
        Sharding, typer.Option("--sharding", help="fsdp2: no process holds a whole model; docs/several_processes.md.")
    ] = "none"


@spread
def train(
    method: Annotated[str, typer.Argument(help="sft, reward_model, dpo, ppo and so on: a method, or a file of yours.")],
    settings: Settings = None,
    *,
    start: Annotated[str, typer.Option("--start", help="Folder of the model to begin with.")] = BUILT_IN,
    list_settings: Annotated[bool, typer.Option("--settings", help="List the method's settings, and leave.")] = False,
    data: Data,
    how: How,
    running: Running,
) -> None:
    """Train a model with one method, on files; a kill costs a few steps at most, and the same command goes on."""
    for file in filter(lambda one: one.endswith(".py"), (method, str(data.scorer))):
        if not running.allow_code:
            raise RecipeError(f"{file!r} would run as part of Pasture. Read it, then pass --allow-code.")
    if list_settings:
        _list_settings(method)
        return
    table: dict[str, Any] = {}
    for override in settings or ():
        apply_override(table, override)
    distributed = training_module("pasture.machine.distributed")
    on_cpu = table.get("device") == "cpu"
    with (
        distributed.processes(expected=running.processes, sharding=running.sharding, on_cpu=on_cpu),
        contextlib.ExitStack() as opened,
    ):
        console = Console(quiet=not distributed.is_main())
        alone = training_module("pasture.steps.alone")
        alone.check(method, table, data.given())
        begun = start_folder(start)
        training = alone.Training(
            method=method,
            settings=table,
            start=begun,
            template=chosen_template(how.template, begun),
            seed=how.seed,
            folder=running.out,
            trackers=trackers_named(running.track or ()),
            **data.read(console),
        )
        if data.judge:
            name, annotator = opened.enter_context(judges.open_judge(data.judge))
            training = replace(training, annotator=annotator, names={**training.names, "judge": name})
        before = alone.standing(running.out)
        model = alone.train(training, opened.enter_context(shown_progress(console, "training")))
        console.print(f"{_CAME_FROM[before]}Model and its card: {model}", soft_wrap=True, markup=False)


def _list_settings(method: str) -> None:
    alone = training_module("pasture.steps.alone")
    console = Console()
    console.print(f"{method} learns from {' and '.join(alone.learned_from(method))}.\n", markup=False, highlight=False)
    console.print(settings_list(settings_of(alone.config_of(method))))


def score(
    model: Annotated[Path, typer.Argument(help="Folder of a reward model or of an ensemble.")],
    answers: Annotated[Path, typer.Argument(help="Rows with answers or pairs, in any of the layouts of docs/data.md.")],
    *,
    template: Template = None,
    prefix: Annotated[str, typer.Option("--prefix", help="What the names of new columns begin with.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="ANSWERS.scored.jsonl where absent.")] = None,
) -> None:
    """Score every answer of a file with a reward model or an ensemble; of labelled pairs, say how often it agrees."""
    console = Console()
    if model.suffix == ".py":
        raise RecipeError(f"{model}: expected the folder of a reward model or of an ensemble.")
    alone = training_module("pasture.steps.alone")
    target = out or answers.with_name(f"{answers.name.split('.')[0]}.scored.jsonl")
    require_target(target)
    require_apart(target, answers)
    rows = read_rows(answers)
    if not rows:
        raise DataError(f"{answers}: expected answers to score, and it holds no rows.")
    found = [answers_of_row(row, f"{answers}: row {number}") for number, row in enumerate(rows, start=1)]
    taken = sorted({f"{prefix}score{suffix}" for one in found for suffix in one.by_suffix} & set().union(*rows))
    if taken:
        raise DataError(
            f"{answers} has a column {taken[0]!r} already, and it is not overwritten. Name a --prefix for new columns."
        )
    scores = alone.score(found, model, chosen_template(template, model))
    written = [
        {**row, **{f"{prefix}score{suffix}": value for suffix, value in values.items()}}
        for row, values in zip(rows, scores, strict=True)
    ]
    write_rows(target, written)
    _say_agreement(console, found, scores)
    console.print(f"Wrote {target}", soft_wrap=True, markup=False)


def chosen_template(named: str | None, folder: Path) -> str:
    """The template that is named, or that the model in `folder` was trained with, or that suits it.

    Raises:
        RecipeError: if there is none of that name.
    """
    if named is not None and named not in TEMPLATES:
        raise RecipeError(f"--template: no template {named!r}. Templates: {', '.join(TEMPLATES)}.")
    recorded = training_module("pasture.models.card").recorded_template(folder)
    suits = "plain" if folder == start_folder(BUILT_IN) else "chat"
    return str(named or recorded or suits)


def _say_left_out(console: Console, left_out: Any) -> None:
    for reason, count in left_out.items():
        if count:
            console.print(f"Left out {count:,} rows: {reason}.", markup=False)


def _say_agreement(console: Console, rows: list[Answers], scores: list[dict[str, float]]) -> None:
    judged = [(row.better, values) for row, values in zip(rows, scores, strict=True) if row.better is not None]
    if judged:
        agreed = sum(max(values, key=lambda suffix: values[suffix]) == better for better, values in judged)
        console.print(f"Agrees with {agreed:,} of {len(judged):,} labels ({agreed / len(judged):.1%}).")
