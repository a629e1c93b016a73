"""Steps of room 3: who prefers what."""

import contextlib
from collections.abc import Iterator, Mapping

from pasture.annotate.named import Annotators, named_annotator
from pasture.core.files import read_records, write_records
from pasture.core.ports import Annotator
from pasture.core.records import Comparison, Completion, Instruction, Preference
from pasture.generate.pairs import against_reference
from pasture.steps import Outcome, Task

LABELS = "preferences.jsonl"


@contextlib.contextmanager
def annotator_of(task: Task) -> Iterator[Annotator]:
    """Who labels, by the settings that `pasture.plan.settings.label_settings` made; closed when the block ends."""
    settings = task.settings
    who = named_annotator(
        settings["annotator"],
        Annotators.model_validate(settings["own"]),
        seed=settings["seed"],
        label_flip_probability=settings["label_flip_probability"],
        ledgers=task.ledgers,
        progress=task.progress,
    )
    with _closing(who):
        yield who


def label(task: Task) -> Outcome:
    """A preference for each comparison, for training."""
    comparisons = read_records(task.inputs["pairs"] / "comparisons.jsonl", Comparison)
    with annotator_of(task) as who:
        preferences = who.annotate(comparisons)
    write_records(task.folder / LABELS, preferences)
    return Outcome(cost_usd=cost_of(preferences), details=counts(who, preferences))


def judge_checkpoints(task: Task) -> Outcome:
    """Each checkpoint's validation answers against the demonstrations."""
    preferences: list[Preference] = []
    paths = sorted(task.inputs["answers"].glob("*.jsonl"))
    with annotator_of(task) as who:
        for number, path in enumerate(paths):
            task.progress(number, len(paths))
            comparisons = _against_demonstrations(task, "validation", read_records(path, Completion))
            write_records(task.folder / f"{path.stem}-comparisons.jsonl", comparisons)
            labels = who.annotate(comparisons)
            write_records(task.folder / f"{path.stem}-preferences.jsonl", labels)
            preferences += labels
    return Outcome(cost_usd=cost_of(preferences), details=counts(who, preferences))


def judge_curve(task: Task) -> Outcome:
    """All answers that a method gave on its way, against the demonstrations, by every judge of the recipe.

    Each judge's labels of each file of answers are written when they are complete.
    """
    paths = sorted(task.inputs["answers"].glob("*.jsonl"))
    preferences: list[Preference] = []
    with contextlib.ExitStack() as stack:
        judges = {name: stack.enter_context(_closing(judge)) for name, judge in _judges(task).items()}
        for number, path in enumerate(paths):
            task.progress(number, len(paths))
            comparisons = _against_demonstrations(task, "validation", read_records(path, Completion))
            for name, judge in judges.items():
                labels = judge.annotate(comparisons)
                write_records(task.folder / f"{path.stem}-{name}.jsonl", labels)
                preferences += labels
    return Outcome(cost_usd=cost_of(preferences), details={"asked": len(preferences)})


def judge_system(task: Task) -> Outcome:
    """A system's answers against the demonstrations, by every judge of the recipe."""
    answers = read_records(task.inputs["answers"] / "completions.jsonl", Completion)
    comparisons = _against_demonstrations(task, task.settings["split"], answers)
    write_records(task.folder / "comparisons.jsonl", comparisons)
    details = {}
    costs = []
    for name, judge in _judges(task).items():
        with _closing(judge):  # before the next one may load a model
            preferences = judge.annotate(comparisons)
        write_records(task.folder / f"{name}.jsonl", preferences)
        details[name] = counts(judge, preferences)
        costs.append(cost_of(preferences))
    return Outcome(cost_usd=_sum(costs), details=details)


def _judges(task: Task) -> dict[str, Annotator]:
    settings = task.settings
    return {
        name: named_annotator(
            name,
            Annotators.model_validate(settings["own"][name]),
            seed=settings["seed"],
            people_votes=settings["people_votes"],
            ledgers=task.ledgers,
            progress=task.progress,
        )
        for name in settings["judges"]
    }


@contextlib.contextmanager
def _closing(who: Annotator) -> Iterator[Annotator]:
    """The same, and closed when the block ends where it can be: a pool then gives back its store and its model."""
    with contextlib.ExitStack() as stack:
        if hasattr(who, "close"):
            stack.callback(who.close)
        yield who


def _against_demonstrations(task: Task, split: str, answers: list[Completion]) -> list[Comparison]:
    data = task.inputs["data"]
    instructions = read_records(data / f"{split}.jsonl", Instruction)
    demonstrations = read_records(data / f"{split}-demonstrations.jsonl", Completion)
    return against_reference(instructions, demonstrations, answers)


def counts(who: Annotator, preferences: list[Preference]) -> Mapping[str, object]:
    """Who judged, and how often what came out."""
    return {
        "judge": dict(who.identity),
        "asked": len(preferences),
        "unjudged": sum(preference.preferred == "unjudged" for preference in preferences),
        "flipped_by_noise": sum(preference.flipped_by_noise for preference in preferences),
    }


def cost_of(preferences: list[Preference]) -> float | None:
    """Dollars in all; None where a price is unknown."""
    return _sum([preference.cost_usd for preference in preferences])


def _sum(costs: list[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
