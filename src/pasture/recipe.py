"""What a run is asked to do: a TOML file, overrides from the command line, strict keys, every default written out."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pasture.annotate.choose import PoolSettings
from pasture.annotate.human import PeopleConfig
from pasture.annotate.own import AnnotatorFile
from pasture.core.errors import ModelError, RecipeError
from pasture.core.run_folder import is_free
from pasture.core.sections import check_section
from pasture.core.templates import TEMPLATES
from pasture.machine.launch import Sharding
from pasture.machine.tracker_settings import TrackerName
from pasture.models.hub_names import how_to_fetch
from pasture.models.sampler_config import SamplerConfig
from pasture.models.weights_config import Weights

Count = Annotated[int, Field(ge=1)]


MEADOW = "meadow"
BUILT_IN = "meadow-base"
UNTRAINED = "meadow-untrained"


class Section(BaseModel):
    """A table of a recipe: frozen, every key known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """Which instructions there are, and how many of each split."""

    source: str = MEADOW
    """`meadow`, or files: a path, a folder or `hub:ORG/NAME/FILES@REVISION`, as docs/data.md has them."""
    evaluation_source: str = ""
    """A file of instructions to evaluate on, with the outputs to compare with; else they come from `source`."""
    splits: Literal["counts", "paper"] = "counts"
    """Whether files are cut into as many as are asked for, or into the paper's sizes, of which the first are taken."""
    demonstrations: Literal["sft", "pretraining"] = "sft"
    """What supervised fine-tuning imitates: good answers, or the careless ones that the base model grew up with."""
    leave_out_long: bool = False
    """Whether prompts beyond a method's limit are left out of what it learns from; else the first is an error."""
    sft: Count = 10_000
    """How many demonstrations."""
    preference: Count = 10_000
    unlabeled: Count = 2_000
    validation: Count = 500
    evaluation: Count = 805
    live: Annotated[int, Field(ge=0)] = 0
    """Instructions of a second evaluation set, which is closer to what users ask; none are drawn by default."""
    leaks: Literal["refuse", "leave_out", "allow"] = "refuse"
    """What happens where an instruction to train or to choose on is nearly one to evaluate on: the run is refused, the
    instruction is left out of its split, or it stays. The step of the data counts them."""


class Model(Section):
    """The language model that everything starts from."""

    start: str = BUILT_IN
    """`meadow-base` (ships in the package), `meadow-untrained`, or the folder of any causal LM."""
    template: str = "plain"
    """How an instruction becomes a prompt: one of `pasture.core.templates.TEMPLATES`."""
    parameter_count: Annotated[float, Field(ge=1)] | None = None
    """How many weights it has, such as 6.7e9: what a plan reckons with while its folder is not here. No result
    depends on it, and where the folder is here its files are counted."""
    weights: Weights = Weights()
    """What is trained of it, by every method that does not say otherwise: all weights or adapters, in which type."""


class Sampling(SamplerConfig):
    """How the completions that people or the pool compare are drawn."""

    max_new_tokens: Count = 48


class Answering(Sampling):
    """How a finished system answers when it is evaluated."""

    temperature: Annotated[float, Field(ge=0.0)] = 0.7
    """The paper's."""


class Feedback(Section):
    """Who says which of two sampled completions is better, for training."""

    annotator: str = "pool"
    """The meadow's `people`, `pool`, `pool-N` (its first N raters) or `greedy`, or one of `pools`, `campaigns`
    or `annotators`."""
    label_flip_probability: Annotated[float, Field(ge=0.0, le=0.5)] = 0.25
    """Share of the pool's labels turned around by noise; people and files of one's own bring their own, and one greedy
    judge has none."""
    file: str = ""
    """Preferences that exist already, in place of an annotator's: people's, or another's; see docs/data.md."""
    labels: Annotated[tuple[str, ...], Field(min_length=1)] = ("preference",)
    """Columns of the file that hold labels, where its rows have `output_1` and `output_2`."""


class Selection(Section):
    """How a checkpoint is picked: on the validation split, never on the evaluation set."""

    annotator: str = "pool"
    label_flip_probability: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Noise would only blur the choice: the evaluation annotators of the paper carry none (section 3)."""


class Evaluation(Section):
    """Which systems are compared with which reference, and by whom."""

    reference: Literal["demonstrations"] = "demonstrations"
    judges: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], ...], Field(min_length=1)] = (
        "people",
        "pool",
    )
    people_votes: Annotated[int, Field(ge=1, le=16)] = 1
    """People who judge each comparison; the majority counts, and an even split is a tie."""
    curves: tuple[str, ...] = ()
    """Systems whose win rate is followed on the validation split, along the steps of training or over n."""
    curve_n: Annotated[int, Field(ge=1)] = 64
    """Answers to each instruction from which the curve of best-of-n is estimated, for every n up to this."""


class Baseline(Section):
    """A system that is not made here but judged beside those that are, as GPT-4 and LLaMA were in the paper."""

    writer: str = ""
    """One of the meadow's writers: `careful`, `hasty` or `found`; or else its answers are in files:"""
    evaluation: str = ""
    """A file of its answers to the evaluation instructions, as `pasture generate` and AlpacaEval leave them."""
    live: str = ""
    """Likewise to the live instructions; needed where there are some."""


Rate = Annotated[float, Field(gt=0)]


class Cards(Section):
    """The cards that a plan reckons time, room and price for; no result depends on them.

    Without this table a plan reckons for two cores.
    """

    count: Count = 1
    memory_gigabytes: Rate = 80.0
    """Of one card."""
    training_operations_per_second: Rate
    """Of one card in this program, training or reading: `python benchmarks/gpu.py` measures it."""
    drawing_operations_per_second: Rate
    """Of one card where answers are drawn: tokens a second times twice the weights."""
    usd_per_hour: Annotated[float, Field(ge=0)]
    """Of one card."""


class Arm(Section):
    """One way to make all systems of a study: whose labels they learn from, and under which settings."""

    title: str = ""
    """What the report calls it; its name where empty."""
    judge: str = "pool"
    """By whose judgement its systems are ranked and its curves are read."""
    systems: tuple[str, ...] | None = None
    """Which systems of the recipe it makes; None makes all."""
    change: dict[str, Any] = Field(default_factory=dict)
    """Tables and keys of the recipe that are different here."""


class Study(Section):
    """Many runs of one recipe, sharing every step that is the same: an arm for each kind of feedback, and seeds."""

    arms: Annotated[dict[str, Arm], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    simulation: str = "simulation"
    """The arm that stands for the simulator."""
    people: str = "people"
    """The arm that it is held against."""


class Recipe(Section):
    """A whole run, or with a table [study] a plan of many."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str = ""
    """Headline of the report; the name where empty."""
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Count | None = None
    """Threads for tensor work; None leaves torch its own choice, one per core."""
    trackers: tuple[TrackerName, ...] = ()
    """Who is told the metrics of trainings beside `metrics.jsonl`; no result depends on it: see docs/metrics.md."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    """Cards that a step which trains or samples takes on a cluster; parts of one where several steps share it."""
    processes: Count = 1
    """Processes that share each training, on cards one for each; results are the same but for rounding."""
    sharding: Sharding = "none"
    """With fsdp2 no process holds a whole model."""
    cards: Cards | None = None
    """What `pasture plan` reckons with in place of two cores."""
    data: Data = Data()
    model: Model = Model()
    sampling: Sampling = Sampling()
    answering: Answering = Answering()
    feedback: Feedback = Feedback()
    selection: Selection = Selection()
    evaluate: Evaluation = Evaluation()
    pools: dict[str, PoolSettings] = Field(default_factory=dict)
    """Language models that annotate, by the name that `feedback`, `selection` and `evaluate` call them."""
    campaigns: dict[str, PeopleConfig] = Field(default_factory=dict)
    """Campaigns of real people, likewise."""
    annotators: dict[str, AnnotatorFile] = Field(default_factory=dict)
    """Annotators that are Python files of the user's own, likewise."""
    learn: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings by system. The method is the one of that name, or what `method` says; each method checks its own."""
    baselines: dict[str, Baseline] = Field(default_factory=dict)
    """Systems that are not made here, by name."""
    systems: tuple[str, ...] | None = None
    """Which systems of `learn` to make, of a recipe that describes more; None makes all."""
    study: Study | None = None


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the TOML file at `path`, with `key=value` overrides such as `learn.ppo.steps=10` applied.

    Raises:
        RecipeError: naming the file and the key.
    """
    table = read_toml(path)
    for override in overrides:
        apply_override(table, override)
    return parse(table, str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file.

    Raises:
        RecipeError: if the file is missing or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such file. Recipes that come with Pasture lie in recipes/.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}.") from error


_COMPARISONS = "comparisons"
"""What was compared lies in a file of this name, beside one for each judge."""


def parse(table: Mapping[str, Any], origin: str) -> Recipe:
    """The recipe in `table`; `origin` names it in errors.

    Raises:
        RecipeError: at the first key that is unknown, missing or of a wrong value.
    """
    recipe = check_section(Recipe, table, origin, section="")
    if recipe.model.template not in TEMPLATES:
        names = ", ".join(sorted(TEMPLATES))
        raise RecipeError(f"{origin}: [model] template: no template {recipe.model.template!r}. Templates: {names}.")
    if recipe.sharding != "none" and recipe.processes == 1:
        raise RecipeError(f"{origin}: sharding shares the weights out among several processes: set processes too.")
    _check_annotators(recipe, origin)
    return recipe if recipe.systems is None else _with_systems(recipe, recipe.systems, origin)


def _check_annotators(recipe: Recipe, origin: str) -> None:
    """See that annotators of the user's own have names of their own."""
    tables: dict[str, Mapping[str, object]] = {
        "pools": recipe.pools,
        "campaigns": recipe.campaigns,
        "annotators": recipe.annotators,
    }
    names = Counter(name for table in tables.values() for name in table)
    for kind, table in tables.items():
        if _COMPARISONS in table:
            raise RecipeError(
                f"{origin}: [{kind}.{_COMPARISONS}]: no annotator can be called {_COMPARISONS!r}, as its labels lie in "
                "a file of its name, beside the one of what was compared. Choose another name."
            )
        for name in table:
            if names[name] > 1:
                raise RecipeError(f"{origin}: two of [pools], [campaigns] and [annotators] name {name!r}. Rename one.")


STAGES = ("sft", "reward_model")
"""What other methods build on; tables of these names are no systems of their own but for the SFT model."""


def _with_systems(recipe: Recipe, systems: Sequence[str], origin: str) -> Recipe:
    """The recipe as if it described these systems alone."""
    described = [name for name in recipe.learn if name not in STAGES]
    unknown = sorted(set(systems) - set(described))
    if unknown:
        raise RecipeError(
            f"{origin}: systems names {unknown[0]!r}, but there is no [learn.{unknown[0]}]. "
            f"Systems: {', '.join(described)}."
        )
    learn = {name: table for name, table in recipe.learn.items() if name in STAGES or name in systems}
    curves = tuple(name for name in recipe.evaluate.curves if name in systems)
    evaluate = recipe.evaluate.model_copy(update={"curves": curves})
    study = None if recipe.study is None else _of_systems(recipe.study, systems)
    return recipe.model_copy(update={"learn": learn, "evaluate": evaluate, "study": study, "systems": None})


def _of_systems(study: Study, systems: Sequence[str]) -> Study:
    """The study with its arms' own lists cut to these systems; an arm of others alone is left out."""
    arms = {}
    for name, arm in study.arms.items():
        kept = None if arm.systems is None else tuple(one for one in arm.systems if one in systems)
        if kept is None or kept or not arm.systems:
            arms[name] = arm.model_copy(update={"systems": kept})
    return study.model_copy(update={"arms": arms})


FREE_KEYS = (
    *("trackers", "processes", "sharding", "gpus", "cards"),
    *("model.parameter_count", "pools.*.max_usd", "pools.*.store"),
)
"""What a recipe may say otherwise when a run goes on in its folder: no step depends on it. A star is any one name, and
a table stands for all of its keys."""


def apply_override(table: dict[str, Any], override: str) -> None:
    """Put `override`, such as `learn.ppo.steps=20`, into `table`; its value is read as TOML, or else is a string.

    Raises:
        RecipeError: if it is no `key=value`, or a section on the way is a value.
    """
    name, separator, text = override.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        raise RecipeError(f"override {override!r}: expected key=value, such as seed=1 or learn.ppo.steps=20.")
    if not override.isprintable():
        raise RecipeError(f"override {override!r}: holds bytes or characters that a recipe cannot.")
    place = table
    for key in keys[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise RecipeError(f"override {override!r}: {key!r} is a value, not a section.")
    place[keys[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    """`text` as TOML reads it; anything else is taken as a string, so that paths need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def start_folder(start: str) -> Path:
    """The folder of the model that a recipe calls `start`: the built-in base model, or a folder of the user's.

    Raises:
        ModelError: if there is no such folder.
    """
    if start == BUILT_IN:
        return Path(str(files("pasture.world") / "base_model"))
    folder = Path(start)
    if not folder.is_dir():
        raise ModelError(
            f"model.start: {start!r} is no folder. Expected {BUILT_IN!r}, {UNTRAINED!r} or a folder that "
            f"save_pretrained wrote (config.json, model.safetensors, tokenizer.json).{how_to_fetch(start)}"
        )
    return folder


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a plain table with every default written out; absent values are left out."""
    table: dict[str, Any] = recipe.model_dump(mode="json", exclude_none=True)
    return table


def resolved_for_steps(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe without `FREE_KEYS`, for a step that shows it: another budget makes no other step of it."""
    return _without_free_keys(resolved(recipe))


def _without_free_keys(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        name: _without_free_keys(value, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in table.items()
        if not is_free(f"{prefix}{name}", FREE_KEYS)
    }
