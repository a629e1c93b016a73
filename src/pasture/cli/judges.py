"""The judge that `--judge` names: the meadow's raters for nothing, or a pool of language models behind a service."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from pasture.annotate.draws import ContentDraws
from pasture.annotate.own import AnnotatorFile, OwnAnnotator
from pasture.annotate.panel import Order, Panel, load_panel, shipped_pools
from pasture.annotate.raters import MeadowPeople, MeadowPool
from pasture.annotate.stored import Access, StoredPool
from pasture.cli.asking import Service
from pasture.core.errors import RecipeError
from pasture.core.own_file import OWN_FILE_SUFFIX, file_hash
from pasture.core.ports import Annotator, Progress, silent

MEADOW = ("meadow-people", "meadow-pool")
"""Judges that need neither service nor key, and judge the meadow's instructions alone."""

_OWN_KEYS = ("seed", "allow_code")
_MEADOW_KEYS = {"meadow-people": ("seed", "votes"), "meadow-pool": ("seed", "votes", "label_flip_probability")}
"""People bring their own noise."""
_POOL_KEYS = (
    "models", "engine", "base_url", "api_key_env", "price", "price_unknown_ok", "budget_usd", "store", "seed", "order",
    "retry_unjudged",
)  # fmt: skip
_ENGINE = "engine."
"""What settings of the engine begin with, such as `engine.device=cuda`."""

HELP = (
    f"Who judges: {', '.join(MEADOW)}, a pool ({', '.join(shipped_pools())}), a pool's TOML file, or a Python file "
    "with a function prefer(comparisons, seed) (with allow_code=true). Repeat for its "
    f"settings, KEY=VALUE: {', '.join(_POOL_KEYS)}, {_ENGINE}KEY."
)


@contextlib.contextmanager
def open_judge(values: Sequence[str], progress: Progress = silent) -> Iterator[tuple[str, Annotator]]:
    """The name and the annotator that `values` describe: a name, and settings as KEY=VALUE in any order.

    A pool's answers are stored in the file `store` (answers.sqlite) before they are used, so the same question is
    paid for once. `progress` is told of every question that a pool has answered.

    Raises:
        RecipeError: if there is not exactly one name, or a setting is unknown to this judge or not the number it needs.
    """
    names = [value for value in values if "=" not in value]
    if len(names) != 1:
        raise RecipeError(f"--judge: expected one judge's name, got {len(names)}: {names}. {HELP}")
    name = names[0]
    own = name.endswith(OWN_FILE_SUFFIX)
    known = _OWN_KEYS if own else _MEADOW_KEYS.get(name, _POOL_KEYS)
    settings = dict(value.split("=", 1) for value in values if "=" in value)
    of_engine = tuple(key for key in settings if key.startswith(_ENGINE) and known is _POOL_KEYS)
    unknown = [key for key in settings if key not in (*known, *of_engine)]
    if unknown:
        raise RecipeError(f"--judge {name}: no setting {unknown[0]!r}. Settings: {', '.join(known)}.")
    seed = _whole_number(settings, "seed", 0)
    if own:
        yield Path(name).stem, _own(name, settings, seed)
        return
    if name in MEADOW:
        yield name, _meadow(name, settings, seed)
        return
    panel = load_panel(name, [model for model in settings.get("models", "").split(",") if model])
    panel = _ordered(panel, settings.get("order", panel.order))
    again = _yes(settings, "retry_unjudged")
    access, draws = _access(settings), ContentDraws(seed)
    with StoredPool(panel, access, draws=draws, retry_unjudged=again, progress=progress) as pool:
        yield name, pool


def _own(file: str, settings: dict[str, str], seed: int) -> OwnAnnotator:
    if not _yes(settings, "allow_code"):
        raise RecipeError(f"{file!r} would run as part of Pasture. Read it, then pass --judge allow_code=true.")
    annotator = OwnAnnotator(Path(file).stem, AnnotatorFile(file=file, code=file_hash(Path(file))), seed=seed)
    annotator.check()
    return annotator


def _access(settings: dict[str, str]) -> Access:
    """How the pool's models are reached, as the options of `pasture annotate` would say it."""
    service = Service(
        engine=settings.get("engine"),
        base_url=[settings["base_url"]] if "base_url" in settings else None,
        api_key_env=settings.get("api_key_env"),
        settings=[f"{key.removeprefix(_ENGINE)}={value}" for key, value in settings.items() if key.startswith(_ENGINE)],
        price=settings.get("price"),
        price_unknown_ok=_yes(settings, "price_unknown_ok"),
        max_usd=_number(settings, "budget_usd", 0.0) if "budget_usd" in settings else None,
        store=Path(settings.get("store", "answers.sqlite")),
    )
    return service.access(None)


def _ordered(panel: Panel, order: str) -> Panel:
    found = next((known for known in get_args(Order) if known == order), None)
    if found is None:
        raise RecipeError(f"--judge {panel.name}: order {order!r} is none of {', '.join(get_args(Order))}.")
    return replace(panel, order=found)


def _meadow(name: str, settings: dict[str, str], seed: int) -> Annotator:
    votes = _whole_number(settings, "votes", 1)
    if name == "meadow-people":
        return MeadowPeople(seed=seed, votes=votes)
    # Evaluation asks the pool without label noise, as the paper does: noise is for training labels.
    return MeadowPool(seed=seed, votes=votes, label_flip_probability=_number(settings, "label_flip_probability", 0.0))


def _yes(settings: dict[str, str], key: str) -> bool:
    said = settings.get(key, "false")
    if said not in ("true", "false"):
        raise RecipeError(f"--judge: {key} must be true or false, got {said!r}.")
    return said == "true"


def _number(settings: dict[str, str], key: str, default: float) -> float:
    try:
        return float(settings.get(key, default))
    except ValueError as error:
        raise RecipeError(f"--judge: {key} must be a number, got {settings[key]!r}.") from error


def _whole_number(settings: dict[str, str], key: str, default: int) -> int:
    value = _number(settings, key, default)
    if not value.is_integer():
        raise RecipeError(f"--judge: {key} must be a whole number, got {settings[key]!r}.")
    return int(value)
