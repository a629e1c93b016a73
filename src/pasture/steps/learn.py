"""Steps of room 4: the stages that methods build on, and one step for each way in which methods learn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pasture.core.errors import DataError
from pasture.core.files import read_records, write_json_lines, write_records
from pasture.core.records import Comparison, Completion, Instruction, Judgement, Preference, Rating, Score, by_id
from pasture.core.statistics import standard_error_of_mean
from pasture.core.templates import TEMPLATES, PromptTemplate
from pasture.data.preferences import RATINGS_FILE
from pasture.learn import best_of_n as best_of_n_method
from pasture.learn import own_method
from pasture.learn import sft as sft_method
from pasture.learn.drift import drift
from pasture.learn.ensemble import LIST_FILE, EnsembleScorer, first_reward_model, load_scorer
from pasture.learn.judging import AnnotatedEnvironment, Remembered
from pasture.learn.lookup import check_ratings, check_several, method_named
from pasture.learn.own_scorer import OwnScorer
from pasture.learn.resume import MODEL_FOLDER
from pasture.learn.reward_model import ModelScorer
from pasture.learn.rollouts import Environment
from pasture.machine import memory
from pasture.models.load import save_model
from pasture.models.tiny import new_meadow_model, word_tokenizer
from pasture.recipe import start_folder
from pasture.steps import Outcome, Task
from pasture.steps.annotate import annotator_of, cost_of, counts
from pasture.steps.cards import write_step_card
from pasture.steps.fit import fitting_ids
from pasture.world.meadow import vocabulary
from pasture.world.words import END, PAD, UNKNOWN

SPECIAL_WORDS = (PAD, END, UNKNOWN)
DRIFTS = "drift.jsonl"


def new_model(task: Task) -> Outcome:
    """An untrained model of the meadow's make."""
    tokenizer = word_tokenizer([word for word in vocabulary() if word not in SPECIAL_WORDS])
    save_model(new_meadow_model(len(tokenizer), task.settings["seed"]), tokenizer, task.folder / "model")
    return Outcome()


def sft(task: Task) -> Outcome:
    """Imitate the demonstrations."""
    settings, data = task.settings, task.inputs["data"]
    split = settings["demonstrations"]
    instructions = read_records(data / f"{split}.jsonl", Instruction)
    demonstrations = read_records(data / f"{split}-demonstrations.jsonl", Completion)
    start = task.inputs["model"] / "model" if "model" in task.inputs else start_folder(settings["start"])
    pairs = list(zip(instructions, demonstrations, strict=True))
    fits = _fitting(task, instructions, sft_method, start)
    pairs = [pair for pair in pairs if pair[0].id in fits]
    with memory.explained("sft", settings["config"]):
        sft_method.train(
            sft_method.Config(**settings["config"]),
            start=start,
            demonstrations=pairs,
            template=_template(task),
            folder=task.folder,
            seed=settings["seed"],
            progress=task.progress,
        )
    begun = None if "model" in task.inputs else str(settings["start"])
    write_step_card(task, "sft", f"1-data/{split}.jsonl", pairs, start=begun)
    return Outcome(details={"demonstrations": len(pairs), **_left_out(demonstrations, pairs)})


def chosen(task: Task) -> Outcome:
    """Of each instruction's candidates, the one that the reward model likes best."""
    instructions = read_records(task.inputs["data"] / f"{task.settings['split']}.jsonl", Instruction)
    candidates = read_records(task.inputs["candidates"] / "completions.jsonl", Completion)
    scores = _scored(task, instructions, candidates)
    config = best_of_n_method.Config(**task.settings["config"])
    best = best_of_n_method.select(candidates, [score.value for score in scores], n=config.n)
    write_records(task.folder / "scores.jsonl", scores)
    write_records(
        task.folder / "completions.jsonl",
        [one.model_copy(update={"system": task.settings["system"], "seed": 0}) for one in best],
    )
    return Outcome(details={"n": config.n, "analytic_kl": best_of_n_method.analytic_kl(config.n)})


def score_answers(task: Task) -> Outcome:
    """The reward model's score of every answer that a method gave on its way, file by file."""
    instructions = read_records(task.inputs["data"] / "validation.jsonl", Instruction)
    paths = sorted(task.inputs["answers"].glob("*.jsonl"))
    for number, path in enumerate(paths):
        task.progress(number, len(paths))
        write_records(task.folder / path.name, _scored(task, instructions, read_records(path, Completion)))
    return Outcome(details={"files": len(paths)})


def drifts(task: Task) -> Outcome:
    """How far each checkpoint of a method, and the model that it began with, lies from that model."""
    instructions = read_records(task.inputs["data"] / "validation.jsonl", Instruction)
    start = task.inputs["model"] / "model"
    folders = {0: start} | {int(one.name): one for one in sorted((task.inputs["checkpoints"] / "steps").iterdir())}
    rows: list[dict[str, object]] = []
    for number, (progress, folder) in enumerate(folders.items()):
        task.progress(number, len(folders))
        limit, seed = task.settings["max_new_tokens"], task.settings["seed"]
        found_B = drift(folder, start, instructions, _template(task), max_new_tokens=limit, seed=seed)
        values = found_B.double().cpu().numpy()
        error = standard_error_of_mean(values) if len(values) > 1 else None
        rows.append({"progress": progress, "kl": values.mean(), "standard_error": error})
    write_json_lines(task.folder / DRIFTS, rows)
    return Outcome(details={"checkpoints": len(folders)})


def _scored(task: Task, instructions: list[Instruction], completions: list[Completion]) -> list[Score]:
    scorer = _scorer(task)
    by_id = {instruction.id: instruction for instruction in instructions}
    name = scorer.path.stem if isinstance(scorer, OwnScorer) else "reward_model"
    values = scorer([by_id[one.instruction_id] for one in completions], completions)
    return [
        Score(instruction_id=one.instruction_id, system=one.system, seed=one.seed, scorer=name, value=value)
        for one, value in zip(completions, values, strict=True)
    ]


def _scorer(task: Task) -> ModelScorer | EnsembleScorer | OwnScorer:
    """Who scores: a file of the user's own where the recipe names one, else the run's reward model."""
    if "scorer" in task.settings:
        return OwnScorer(Path(task.settings["scorer"]), task.settings["scorer_code"])
    return load_scorer(_scorer_folder(task), _template(task))


def _scorer_folder(task: Task) -> Path:
    """An ensemble lists its members in its step's own folder; a reward model lies in one of its own."""
    folder = task.inputs["scorer"]
    return folder if (folder / LIST_FILE).exists() else folder / "model"


def from_scores(task: Task) -> Outcome:
    """Learn against the reward model, on instructions that nothing else was trained on."""
    instructions = read_records(task.inputs["data"] / "unlabeled.jsonl", Instruction)
    fits = _fitting(task, instructions, _method(task), task.inputs["model"] / "model")
    fitting = [one for one in instructions if one.id in fits]
    scorer = _scorer(task)
    scorer.check_prompts(fitting)
    environment = Environment(fitting, _template(task), scorer)
    more = {"value_start": first_reward_model(_scorer_folder(task))} if task.settings["method"] == "ppo" else {}
    if task.settings["config"].get("fine_tune") == "base":
        more["base"] = task.inputs["base"] / "model" if "base" in task.inputs else start_folder(task.settings["start"])
    outcome = _train(task, environment=environment, **more)
    learned = [(one,) for one in environment.instructions]
    write_step_card(task, task.settings["method"], "1-data/unlabeled.jsonl", learned)
    return outcome


def from_judgements(task: Task) -> Outcome:
    """Learn from what an annotator says of the policy's own answers, on instructions that nothing else was trained on.

    Its verdicts stay in `judged/`, and what it was asked before a kill it is not asked again.
    """
    instructions = read_records(task.inputs["data"] / "unlabeled.jsonl", Instruction)
    fits = _fitting(task, instructions, _method(task), task.inputs["model"] / "model")
    asked = [one for one in instructions if one.id in fits]
    with annotator_of(task) as who:
        annotator = Remembered(who, task.folder / "judged")
        outcome = _train(task, environment=AnnotatedEnvironment(asked, _template(task), annotator))
    said = annotator.all()
    learned = [(one,) for one in asked]
    write_step_card(task, task.settings["method"], "1-data/unlabeled.jsonl", learned, judge=task.settings["annotator"])
    details = {**counts(annotator, said), **outcome.details}
    return Outcome(cost_usd=cost_of(said), details=details)


def from_preferences(task: Task) -> Outcome:
    """Learn from the labels themselves: a policy, or a reward model for others to learn from."""
    labels = _feedback(task)
    check_ratings(task.settings["method"], _method(task), labels)
    fits = _fitting(task, [row[0].instruction for row in labels], _method(task), task.inputs["model"] / "model")
    feedback = [row for row in labels if row[0].instruction.id in fits]
    outcome = _train(task, feedback=feedback, template=_template(task))
    write_step_card(task, task.settings["method"], "3-annotate/preference", feedback)
    return Outcome(details={"preferences": len(feedback), **_left_out(labels, feedback), **outcome.details})


def _train(task: Task, **what: Any) -> Outcome:
    settings = task.settings
    method = _method(task)
    check_several(settings["method"], method)
    name = settings["method"]
    with own_method.explained(name, task.folder), memory.explained(name, settings["config"]):
        method.train(
            method.Config(**settings["config"]),
            start=task.inputs["model"] / "model",
            folder=task.folder,
            seed=settings["seed"],
            progress=task.progress,
            **what,
        )
    steps = sorted(path.name for path in (task.folder / "steps").glob("*"))
    _check_left(settings, task.folder, steps)
    return Outcome(details={"saved_steps": len(steps)} if steps else {})


def _check_left(settings: Mapping[str, Any], folder: Path, steps: Sequence[str]) -> None:
    """See that a method left what later steps take up: one's own may have forgotten."""
    method, config = settings["method"], settings["config"]
    model = folder / MODEL_FOLDER
    if settings.get("code") and not (model / "config.json").is_file():
        what = "no config.json in the folder of its model" if model.is_dir() else "no model"
        raise DataError(
            f"{method}: its train left {what}. Let it write one to folder / {MODEL_FOLDER!r}, by save_model or "
            "save_pretrained."
        )
    if settings.get("code") and not any(model.glob("tokenizer*")):
        raise DataError(
            f"{method}: its train left a model without its tokenizer. Let it write both, by save_model(model, "
            f"tokenizer, folder / {MODEL_FOLDER!r})."
        )
    promised = "save_every" if "save_every" in config else "rounds" if config.get("rounds", 1) > 1 else None
    if promised and not steps:
        raise DataError(
            f"{method} saved no policy to pick from, as its setting {promised!r} promises. Let its train write copies "
            "to folder / 'steps' / '0020' and so on, or call the setting something else."
        )


def _method(task: Task) -> Any:
    return method_named(task.settings["method"], task.settings.get("code"))


def _fitting(task: Task, instructions: list[Instruction], method: Any, start: Path) -> set[str]:
    """Ids of the instructions to learn from: all, or those that leave room for an answer."""
    if not task.settings["leave_out_long"]:
        return {one.id for one in instructions}
    config = method.Config(**task.settings["config"])
    return fitting_ids(instructions, config, start, task.settings["template"])


def _left_out(rows: Sequence[object], kept: Sequence[object]) -> dict[str, int]:
    return {"left_out_long": len(rows) - len(kept)} if len(rows) > len(kept) else {}


def _feedback(task: Task) -> list[Judgement]:
    """Each label with what it is about; people may have given several for one comparison. Then ratings, if any."""
    comparisons = by_id(read_records(task.inputs["pairs"] / "comparisons.jsonl", Comparison))
    preferences = read_records(task.inputs["labels"] / "preferences.jsonl", Preference)
    rated = task.inputs["labels"] / RATINGS_FILE
    ratings = read_records(rated, Rating) if rated.exists() else []
    pairs = [(comparisons[preference.comparison_id], preference) for preference in preferences]
    return [*pairs, *((rating,) for rating in ratings)]


def _template(task: Task) -> PromptTemplate:
    return TEMPLATES[task.settings["template"]]
