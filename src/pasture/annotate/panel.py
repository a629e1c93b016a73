"""Who is asked, in which order and with what noise: read from a pool file, a TOML table for each judge."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from pasture.annotate.judge import Judge, JudgeDefinition, PairJudge
from pasture.annotate.noise import NOISES, MarginFlips, Noise, PerAnnotatorFlips
from pasture.annotate.render import Definition, Example, Prompt
from pasture.core.errors import RecipeError

Order = Literal["random", "both", "as-given"]
"""One order drawn for each pair; both orders, a disagreement being a tie; or the first always first."""

_HERE = Path(__file__).parent
D = TypeVar("D", bound=BaseModel)


class PoolFile(Definition):
    """A pool as it is written down."""

    title: str = ""
    order: Order = "random"
    noise: Noise | None = None
    judges_from: str | None = None
    """Name or path of a pool whose judges this one takes over, with those that it takes over itself."""
    judges: Mapping[str, JudgeDefinition] = {}


class _ExampleFile(Definition):
    example: tuple[Example, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Panel:
    """Judges that share the comparisons, one judge for each instruction."""

    name: str
    judges: Sequence[PairJudge]
    weights: Sequence[float]
    order: Order = "random"
    noise: Noise | None = None

    def __post_init__(self) -> None:
        names = [judge.name for judge in self.judges]
        twins = sorted({name for name in names if names.count(name) > 1})
        if twins:
            raise RecipeError(f"pool {self.name!r}: two judges are called {twins[0]!r}. Give one another name.")
        if isinstance(self.noise, MarginFlips) and not all(judge.gives_probability for judge in self.judges):
            mute = next(judge.name for judge in self.judges if not judge.gives_probability)
            raise RecipeError(
                f"pool {self.name!r}: margin noise needs a probability from every judge, and {mute!r} gives none. "
                "Use judges with reply = 'token', such as pool 'alpaca-eval-2', or another kind of noise."
            )
        if isinstance(self.noise, PerAnnotatorFlips):
            self._check_named(self.noise.probabilities, names)
        if self.order == "both" and self.noise is not None and self.noise.kind == "position":
            raise RecipeError(
                f"pool {self.name!r}: an annotator that leans to the first position, asked in both orders, leans "
                "nowhere. Choose order = 'random', or another kind of noise."
            )

    def _check_named(self, named: Iterable[str], names: Sequence[str]) -> None:
        stranger = next((each for each in named if each not in names), None)
        if stranger is not None:
            raise RecipeError(
                f"pool {self.name!r}: noise.probabilities names {stranger!r}, and no judge is called so."
                f"{_hint(stranger, names)} Judges: {', '.join(names)}."
            )

    @property
    def models(self) -> Sequence[str]:
        """The names of the models behind the judges, each once."""
        return list(dict.fromkeys(str(judge.identity["model"]) for judge in self.judges))

    @property
    def identity(self) -> Mapping[str, object]:
        """What its verdicts depend on, as plain JSON."""
        judges = {
            judge.name: {"weight": weight, **judge.identity}
            for judge, weight in zip(self.judges, self.weights, strict=True)
        }
        noise = self.noise.model_dump(mode="json") if self.noise else None
        return {"judges": judges, "order": self.order, "noise": noise}


def shipped_pools() -> list[str]:
    """Names of the pools that come with Pasture."""
    return sorted(path.stem for path in (_HERE / "pools").glob("*.toml"))


def load_panel(pool: str | Path, models: Sequence[str] = (), *, completions_as_chat: bool = False) -> Panel:
    """The panel of a shipped pool, by name, or of a pool file, by path.

    Judges that fix no model take one of `models` by their `model_place`; with fewer models than places, places start
    again at the first model. With `completions_as_chat`, texts to be continued are asked as one user turn, for services
    without a completion endpoint.

    Raises:
        RecipeError: naming file and key, if the pool is unknown, cannot be read, or does not fit `models`.
    """
    pool = str(pool)
    path = _path(pool, "pools", "pool")
    file = _read(path, PoolFile)
    judges = _judges_of(path, file)
    if not judges:
        raise RecipeError(f"{path}: expected at least one [judges.NAME] table.")
    places = max((each.model_place for each, _ in judges.values() if each.model is None), default=0)
    _check_models(pool, models, places)
    made = [
        _judge(title, each, each.model or models[(each.model_place - 1) % len(models)], folder, completions_as_chat)
        for title, (each, folder) in judges.items()
    ]
    return Panel(path.stem, made, [each.weight for each, _ in judges.values()], file.order, file.noise)


def _judges_of(path: Path, file: PoolFile, heirs: Sequence[Path] = ()) -> dict[str, tuple[JudgeDefinition, Path]]:
    """A pool's judges, those it takes over among them, each with the folder of the file that names it.

    `heirs` are the pools that take these judges over.
    """
    inherited: dict[str, tuple[JudgeDefinition, Path]] = {}
    if file.judges_from is not None:
        line = (*heirs, path.resolve())
        source = _path(file.judges_from, "pools", "pool", path.parent)
        if source.resolve() in line:
            circle = " -> ".join(each.name for each in (*line, source))
            raise RecipeError(f"{path}: judges_from leads back to a pool on its way: {circle}. Take one of them out.")
        inherited = _judges_of(source, _read(source, PoolFile), line)
    return {**inherited, **{title: (each, path.parent) for title, each in file.judges.items()}}


def _check_models(pool: str, models: Sequence[str], places: int) -> None:
    if places and not models:
        few, such = "one" if places == 1 else f"1 to {places}", ",".join(("large", "medium", "small")[:places])
        order = "" if places == 1 else ", in the order of their places"
        raise RecipeError(
            f"pool {pool!r} leaves the choice of models to you: name {few}{order}, such as --models {such}, or "
            f"--judge models={such} where the judge's settings are given so."
        )
    if len(models) > places:
        what = f"has places for {places} models" if places else "names its own models"
        raise RecipeError(f"pool {pool!r} {what}, got {len(models)}: {', '.join(models)}.")


def _judge(title: str, definition: JudgeDefinition, model: str, folder: Path, completions_as_chat: bool) -> Judge:
    prompt = load_prompt(definition.prompt, folder)
    if completions_as_chat and prompt.layout == "completion":
        prompt = prompt.model_copy(update={"layout": "one-turn"})
    examples: Sequence[Example] = ()
    if definition.shots:
        examples = _read(
            _path(definition.examples or prompt.examples, "prompts/examples", "set of examples", folder), _ExampleFile
        ).example
    return Judge(title, model, definition, prompt, examples)


def load_prompt(prompt: str, folder: Path = Path()) -> Prompt:
    """A shipped prompt, by name, or that of a TOML file, by a path that may be relative to `folder`."""
    return _read(_path(prompt, "prompts", "prompt", folder), Prompt)


def _path(name: str, kind: str, noun: str, folder: Path = Path()) -> Path:
    """Where `name` lies: a path if it ends in .toml, else the shipped file of that name."""
    if name.endswith(".toml"):
        return folder / name
    shipped = _HERE / kind / f"{name}.toml"
    known = sorted(path.stem for path in (_HERE / kind).glob("*.toml"))
    if name not in known:
        raise RecipeError(
            f"there is no {noun} {name!r}.{_hint(name, known)} Shipped: {', '.join(known)}; or give the path of a "
            ".toml file."
        )
    return shipped


def _read(path: Path, kind: type[D]) -> D:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such file.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}).") from error
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_explained(kind, error)}") from error


def _explained(kind: type[BaseModel], error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}, got {first['input']!r}."
    key, known = str(first["loc"][-1]), list(_fields_beside(kind, first["loc"]))
    return f"no key {where!r}.{_hint(key, known)} Keys: {', '.join(known)}."


def _fields_beside(kind: type[BaseModel], location: Sequence[int | str]) -> Sequence[str]:
    if len(location) == 1:
        return list(kind.model_fields)
    if location[0] == "judges":
        return list(JudgeDefinition.model_fields)
    if location[0] == "example":
        return list(Example.model_fields)
    return list(NOISES[str(location[1])].model_fields)


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
