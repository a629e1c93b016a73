"""Single pieces of a run on files of one's own: training, scoring and answering, without a recipe around them."""

import hashlib
import json
import logging
import shutil
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

import pasture
from pasture.core.deciding import deciding
from pasture.core.errors import RecipeError, RunFolderError
from pasture.core.files import fingerprint, read_json_lines, write_text
from pasture.core.own_file import OWN_FILE_SUFFIX, file_hash
from pasture.core.ports import Annotator, Progress, silent
from pasture.core.records import Completion, Instruction, Judgement
from pasture.core.sections import check_section
from pasture.core.templates import TEMPLATES
from pasture.data.answers import Answers
from pasture.generate.completions import LocalSystem
from pasture.learn import own_method
from pasture.learn.ensemble import first_reward_model, load_scorer
from pasture.learn.judging import AnnotatedEnvironment, Remembered
from pasture.learn.lookup import check_ratings, check_several, keywords_of, method_named
from pasture.learn.resume import CHECKPOINT_FOLDER, IDENTITY_FILE, METRICS_FILE, MODEL_FOLDER, claim, different
from pasture.learn.rollouts import Environment
from pasture.machine import memory
from pasture.machine.distributed import check_same, on_main
from pasture.machine.tracker_settings import TRACKERS_FOLDER, TrackerName, Tracking, check_trackers
from pasture.machine.trackers import tracked
from pasture.models.card import Card, Source, last_figures, source_of, write_card
from pasture.models.sampler_config import SamplerConfig
from pasture.plan.graph import folder_fingerprint
from pasture.steps.fit import fitting_ids

LOG = logging.getLogger("pasture.steps")
BEGUN_FILE = "begun.json"
FINISHED_FILE = "finished.json"
JUDGED_FOLDER = "judged"
_LEARNED = (CHECKPOINT_FOLDER, IDENTITY_FILE, JUDGED_FOLDER, MODEL_FOLDER)
"""One of these is in the folder of a training that has something to go on from."""


@dataclass(frozen=True)
class Training:
    """A method, and all that it is given."""

    method: str
    settings: Mapping[str, Any]
    """The method's own; the rest are its defaults."""
    start: Path
    template: str
    seed: int
    folder: Path
    demonstrations: Sequence[tuple[Instruction, Completion]] = ()
    feedback: Sequence[Judgement] = ()
    """What was said of pairs, or of answers alone where the method takes ratings."""
    instructions: Sequence[Instruction] = ()
    scorer: Path | None = None
    """Folder of the reward model that answers are scored with, where the method asks for it."""
    annotator: Annotator | None = None
    """Who judges a policy's own answers, where the method asks for one."""
    base: Path | None = None
    """The model before any fine-tuning, where the method asks for it."""
    trackers: tuple[TrackerName, ...] = ()
    """Who is told the metrics beside `metrics.jsonl`."""
    leave_out_long: bool = False
    """Whether rows with prompts beyond the method's limit are left out; else the first of them is an error."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What the files are called, by `demonstrations`, `feedback` and `instructions`."""


def check(method: str, settings: Mapping[str, Any], named: Collection[str]) -> None:
    """See that there is such a method, that the settings fit it, and that it has its data, before any file is read.

    `named` are the options that are there: demonstrations, feedback, instructions, scorer, judge, base.

    Raises:
        RecipeError: saying what does not fit, which file to name, or which option would do nothing.
    """
    module = _trainer(method)
    config = check_section(module.Config, settings, f"pasture train {method}")
    asked = keywords_of(module)
    for role in _roles(asked):
        if role not in named:
            raise _unnamed(method, role)
    used = _used(asked, config)
    idle = [option for option in named if option not in used]
    if idle:
        raise RecipeError(
            f"pasture train {method} with these settings makes no use of --{idle[0]}. Leave it out. What it learns "
            f"from is named by {', '.join(f'--{option}' for option in used)}."
        )


def _used(asked: Container[str], config: Any) -> list[str]:
    """The options of which a method with these keywords and settings makes use."""
    answers, by_annotator = "environment" in asked, _asks_annotator(config)
    taken = {
        "scorer": (answers and not by_annotator) or "value_start" in asked,
        "judge": answers and by_annotator,
        "base": "base" in asked and getattr(config, "fine_tune", "base") == "base",
    }
    return [*_roles(asked), *(option for option, is_taken in taken.items() if is_taken)]


def _asks_annotator(config: Any) -> bool:
    return bool(getattr(config, "judge", "scorer") == "annotator")


def learned_from(method: str) -> list[str]:
    """The options of `pasture train` that name what the method learns from.

    Raises:
        RecipeError: if there is no such method, or it trains nothing.
    """
    module = _trainer(method)
    asked = keywords_of(module)
    options = [f"--{role}" for role in _roles(asked)]
    if "environment" in asked:
        asks_annotator = "judge" in module.Config.model_fields
        options.append("--scorer (with judge=annotator, --judge)" if asks_annotator else "--scorer")
    return options


def config_of(method: str) -> type[BaseModel]:
    """The settings of a method, as it declares them.

    Raises:
        RecipeError: if there is no such method, or it trains nothing.
    """
    config: type[BaseModel] = _trainer(method).Config
    return config


def _trainer(method: str) -> Any:
    module = method_named(method)
    if not hasattr(module, "train"):
        raise RecipeError(f"{method} trains nothing. Name it in a recipe, as [learn.{method}].")
    return module


def train(training: Training, progress: Progress = silent) -> Path:
    """Train, and write a model card; the folder of the model comes back. What was finished is not done again.

    Raises:
        RecipeError: if a setting does not fit, or the method needs what is not given.
        DataError: if it learns from pairs and is given ratings.
        DependencyError: if a tracker is not installed.
        RunFolderError: if the folder holds another training, finished or not.
    """
    check_trackers(training.trackers)
    module = method_named(training.method)
    check_several(training.method, module)
    config = check_section(module.Config, training.settings, f"pasture train {training.method}")
    settings = config.model_dump(mode="json")
    if training.leave_out_long:
        training = _without_long(training, config)
    asked = keywords_of(module)
    check_ratings(training.method, module, training.feedback)
    sources = _sources(training, asked)
    facts = _facts(training, settings, sources)
    identity = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    model = training.folder / MODEL_FOLDER
    finished = _is_finished(training.folder, identity, facts)
    check_same((identity, finished), "inputs and --out")
    if not finished:
        on_main(lambda: _free_if_unused(training))
        claim(training.folder, identity, BEGUN_FILE, facts=facts)
        place = {"start": training.start, "folder": training.folder, "seed": training.seed, "progress": progress}
        tracking = _tracking(training, settings, identity)
        with (
            own_method.explained(training.method, training.folder),
            memory.explained(training.method, settings),
            tracked(tracking, training.folder),
        ):
            module.train(config, **place, **_given(training, asked, config))
        on_main(lambda: _close(training, settings, sources, identity))
    return model


def standing(folder: Path) -> Literal["new", "begun", "finished"]:
    """How far a training in this folder has come."""
    if (folder / FINISHED_FILE).exists():
        return "finished"
    return "begun" if any((folder / name).exists() for name in _LEARNED) else "new"


def _free_if_unused(training: Training) -> None:
    """Let a folder go to another training where the one that it was begun for failed before it learned anything.

    What a method of one's own keeps there is its own to know: it may be what was learned.
    """
    folder = training.folder
    no_result = {BEGUN_FILE, METRICS_FILE, TRACKERS_FOLDER, own_method.TRACEBACK_FILE}
    kept = {path.name for path in folder.glob("*")} - no_result
    if standing(folder) == "new" and not (kept and training.method.endswith(OWN_FILE_SUFFIX)):
        (folder / BEGUN_FILE).unlink(missing_ok=True)


def _tracking(training: Training, settings: Mapping[str, Any], identity: str) -> Tracking:
    return Tracking(
        names=training.trackers,
        folder=training.folder / TRACKERS_FOLDER,
        project="pasture",
        run=Path(training.method).stem,
        training=identity,
        settings={"method": training.method, "seed": training.seed, "template": training.template, **settings},
    )


def _close(training: Training, settings: Mapping[str, Any], sources: Mapping[str, Source], identity: str) -> None:
    write_card(training.folder / MODEL_FOLDER, _card(training, settings, sources))
    write_text(training.folder / FINISHED_FILE, json.dumps({"identity": identity}) + "\n")


def _without_long(training: Training, config: Any) -> Training:
    """The training on what fits; it warns of how much does not."""

    def fitting(instructions: list[Instruction]) -> set[str]:
        return fitting_ids(instructions, config, training.start, training.template)

    shown = fitting([one for one, _ in training.demonstrations])
    judged = fitting([row[0].instruction for row in training.feedback])
    asked = fitting(list(training.instructions))
    fit = replace(
        training,
        demonstrations=[row for row in training.demonstrations if row[0].id in shown],
        feedback=[row for row in training.feedback if row[0].instruction.id in judged],
        instructions=[one for one in training.instructions if one.id in asked],
    )
    for role in ("demonstrations", "feedback", "instructions"):
        long = len(getattr(training, role)) - len(getattr(fit, role))
        if long:
            LOG.warning("left out %d of %d rows to learn from: too long a prompt", long, len(getattr(training, role)))
    return fit


def _sources(training: Training, asked: Container[str]) -> dict[str, Source]:
    """The data that the method asks for, by what it is used for."""
    sources = {}
    for role in _roles(asked):
        rows = _required(training, role)
        records = [(one,) for one in rows] if role == "instructions" else rows
        sources[role] = source_of(training.names.get(role, role), records)
    return sources


def _roles(asked: Container[str]) -> list[str]:
    """The kinds of data that a method with these keywords learns from."""
    of_files = [role for role in ("demonstrations", "feedback") if role in asked]
    return [*of_files, "instructions"] if "environment" in asked else of_files


def _given(training: Training, asked: Container[str], config: Any) -> dict[str, Any]:
    """The arguments that the method's `train` asks for beside those of every method."""
    template = TEMPLATES[training.template]
    given: dict[str, Any] = {"template": template} if "template" in asked else {}
    given |= {role: getattr(training, role) for role in ("demonstrations", "feedback") if role in asked}
    if "environment" in asked and _asks_annotator(config):
        annotator = Remembered(_annotator(training), training.folder / JUDGED_FOLDER)
        given["environment"] = AnnotatedEnvironment(training.instructions, template, annotator)
    elif "environment" in asked:
        scorer = load_scorer(_scorer(training), template)
        scorer.check_prompts(training.instructions)
        given["environment"] = Environment(training.instructions, template, scorer)
    if "base" in asked:
        given["base"] = training.base
    if "value_start" in asked:
        given["value_start"] = first_reward_model(_scorer(training))
    return given


def _required(training: Training, role: str) -> Any:
    rows = getattr(training, role)
    if not rows:
        raise _unnamed(training.method, role)
    return rows


def _unnamed(method: str, role: str) -> RecipeError:
    return RecipeError(f"pasture train {method} learns from {role}: name a file with --{role}.")


def _scorer(training: Training) -> Path:
    if training.scorer is None:
        raise RecipeError(
            f"pasture train {training.method} learns from scores: name a reward model's folder, or a file of your own, "
            "with --scorer."
        )
    return training.scorer


def _annotator(training: Training) -> Annotator:
    if training.annotator is None:
        raise RecipeError(
            f'pasture train {training.method} with judge = "annotator" learns from judgements: name who judges with '
            "--judge."
        )
    return training.annotator


def _facts(training: Training, config: Mapping[str, Any], sources: Mapping[str, Source]) -> dict[str, Any]:
    """All that decides what is learned, as plain JSON."""
    own = training.method.endswith(OWN_FILE_SUFFIX)
    return {
        "method": training.method,
        **({"code": file_hash(Path(training.method))} if own else {}),
        "config": deciding(config),
        "start": folder_fingerprint(training.start),
        "scorer": _content(training.scorer) if training.scorer is not None else None,
        **({} if training.annotator is None else {"annotator": training.annotator.identity}),
        **({} if training.base is None else {"base": folder_fingerprint(training.base)}),
        "template": training.template,
        "seed": training.seed,
        "data": {role: source.sha256 for role, source in sources.items()},
    }


def _content(scorer: Path) -> str:
    return fingerprint(scorer) if scorer.is_file() else folder_fingerprint(scorer)


def _is_finished(folder: Path, identity: str, facts: Mapping[str, Any]) -> bool:
    path = folder / FINISHED_FILE
    if not path.exists():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}). Choose another folder with --out.") from error
    if found != identity:
        raise RunFolderError(
            f"{folder} holds a finished training with another method, model, data or settings."
            f"{different(folder / BEGUN_FILE, facts)} Choose another folder with --out, or remove it."
        )
    return True


def _card(training: Training, config: Mapping[str, Any], sources: Mapping[str, Source]) -> Card:
    annotators = sorted({row[-1].annotator for row in training.feedback})
    judge = ", ".join(annotators[:5]) + (" and others" if len(annotators) > 5 else "")
    return Card(
        method=training.method,
        settings=config,
        start=str(training.start),
        template=training.template,
        seed=training.seed,
        data=sources,
        judge=judge or (str(training.scorer) if training.scorer is not None else training.names.get("judge", "")),
        version=pasture.__version__,
        results=last_figures(training.folder / METRICS_FILE),
    )


def score(rows: Sequence[Answers], folder: Path, template: str) -> list[dict[str, float]]:
    """The score of every answer by a reward model or an ensemble, row by row, by the suffix of the answer's column.

    Raises:
        ModelError: if `folder` holds neither.
        DataError: if a prompt is too long for it.
    """
    scorer = load_scorer(folder, TEMPLATES[template])
    answers = [(row.instruction, completion) for row in rows for completion in row.by_suffix.values()]
    values = iter(scorer([one for one, _ in answers], [completion for _, completion in answers]))
    return [{suffix: next(values) for suffix in row.by_suffix} for row in rows]


def local_system(folder: Path, template: str, config: SamplerConfig) -> LocalSystem:
    """The model in `folder`, ready to answer instructions."""
    return LocalSystem(folder, TEMPLATES[template], config)


def claim_drawn(kept: Path, model: Path, asked: object) -> None:
    """Let `kept` hold answers of the model in a folder to what was `asked`, plain JSON; those of another call go.

    Raises:
        RunFolderError: if there is such a folder, of somebody else.
    """
    identity = hashlib.sha256(json.dumps([folder_fingerprint(model), asked], sort_keys=True).encode()).hexdigest()
    begun = kept / IDENTITY_FILE
    if kept.exists() and not begun.exists():
        raise RunFolderError(f"{kept} is in the way: answers are kept there until all are drawn. Move it.")
    if begun.exists() and read_json_lines(begun) != [{"identity": identity}]:
        shutil.rmtree(kept)
    claim(kept, identity)
