"""What a recipe takes from outside: its model and its data. What of it is here, and what stands for the rest in a plan.

A plan can be drawn up before a model of many gigabytes is fetched. In the keys of its steps a word stands for what is
not here, so that no result is ever taken for one of theirs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pasture.annotate.choose import chosen_annotator
from pasture.core.errors import DataError, ModelError, PastureError
from pasture.core.ports import Annotator
from pasture.data.hub import HUB, data_files, fingerprint_of
from pasture.plan.graph import Plan, Step, folder_fingerprint
from pasture.recipe import BUILT_IN, MEADOW, UNTRAINED, Recipe, start_folder

NOT_HERE = "not here"


@dataclass(frozen=True)
class Absent:
    """Something that a recipe names and that is not on this machine, as far as can be told without the network."""

    key: str
    """Of the recipe, such as `model.start`."""
    name: str
    """What the recipe calls it."""
    error: PastureError | None = None
    """Why no run can begin; None where the run itself fetches it."""


@dataclass(frozen=True)
class Outline:
    """A plan, whether or not all that it needs is here."""

    plan: Plan
    absent: tuple[Absent, ...]


def absent(recipe: Recipe, steps: Sequence[Step]) -> list[Absent]:
    """What the recipe names that `steps`, which are its own, will need and that is not here."""
    return [*_absent_model(recipe), *_absent_data(recipe), *_absent_judges(recipe, steps)]


def require_here(missing: Sequence[Absent]) -> None:
    """Raise the first of what keeps a run from beginning.

    Raises:
        ModelError: if a model's folder is not here.
        DataError: if a file is not here.
    """
    for one in missing:
        if one.error is not None:
            raise one.error


def start_fingerprint(recipe: Recipe) -> str:
    """What the files of the model to start from hold; nothing of one that is made, a word for one that is not here."""
    if recipe.model.start == UNTRAINED:
        return ""
    return NOT_HERE if _absent_model(recipe) else folder_fingerprint(start_folder(recipe.model.start))


def files_fingerprint(name: str) -> str:
    """What data files hold; a word where they are not here."""
    return NOT_HERE if _why_no_files(name) else fingerprint_of(name)


def identity_of(annotator: Annotator) -> Mapping[str, object]:
    """All that an annotator's verdicts depend on; a word for one whose model is not here."""
    return {NOT_HERE: True} if _why_no_identity(annotator) else annotator.identity


def _absent_model(recipe: Recipe) -> list[Absent]:
    start = recipe.model.start
    if start in (BUILT_IN, UNTRAINED):
        return []
    try:
        folder = start_folder(start)
    except ModelError as error:
        return [Absent("model.start", start, error)]
    lacking = [kind for kind in ("config.json", "*.safetensors") if not any(folder.rglob(kind))]
    if not lacking:
        return []
    broken = ModelError(
        f"model.start: the folder {start!r} holds no {' and no '.join(lacking)}, so it is not a whole model. Expected "
        "what save_pretrained writes (config.json, model.safetensors, tokenizer.json)."
    )
    return [Absent("model.start", start, broken)]


def _absent_data(recipe: Recipe) -> Iterator[Absent]:
    named = {"feedback.file": recipe.feedback.file}
    if recipe.data.source != MEADOW:
        named = {"data.source": recipe.data.source, "data.evaluation_source": recipe.data.evaluation_source, **named}
    for system, baseline in recipe.baselines.items():
        named |= {f"baselines.{system}.{split}": getattr(baseline, split) for split in ("evaluation", "live")}
    for key, name in named.items():
        if name.startswith(HUB):
            yield Absent(key, name)
        elif name and (error := _why_no_files(name)):
            yield Absent(key, name, error)


def _absent_judges(recipe: Recipe, steps: Sequence[Step]) -> Iterator[Absent]:
    asked = {name for step in steps for name in (step.settings.get("annotator"), *step.settings.get("judges", ()))}
    for name in sorted(asked & recipe.pools.keys()):
        if error := _why_no_identity(chosen_annotator(name, recipe.pools, seed=recipe.seed)):
            yield Absent(f"pools.{name}", _folder_of(recipe, name), error)


def _folder_of(recipe: Recipe, pool: str) -> str:
    settings = recipe.pools[pool]
    return str(settings.engine_settings.get("folder") or Path(*settings.models[:1]))


def _why_no_files(name: str) -> DataError | None:
    if name.startswith(HUB):
        return None
    try:
        data_files(name)
    except DataError as error:
        return error
    return None


def _why_no_identity(annotator: Annotator) -> ModelError | None:
    try:
        _ = annotator.identity
    except ModelError as error:
        return error
    return None
