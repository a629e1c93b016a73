"""Which trackers there are, what they are told of a training, and whether they can be used here; free of torch."""

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from pasture.core.errors import DependencyError, RecipeError

TrackerName: TypeAlias = Literal["tensorboard", "trackio", "wandb"]
TRACKERS: tuple[TrackerName, ...] = get_args(TrackerName)
"""Each is called like the package that it needs, and like the extra of Pasture that brings it."""

TRACKERS_FOLDER = "trackers"
"""Beside the steps of a run, never in them: what trackers write has times in it."""

_WANDB_STAYS_HERE = ("offline", "dryrun", "disabled")


@dataclass(frozen=True)
class Tracking:
    """A training as trackers are to show it."""

    names: tuple[TrackerName, ...]
    folder: Path
    """Where trackers keep what they write on this machine."""
    project: str
    run: str
    """What the training is called within the project."""
    training: str
    """Hash of all that its result depends on: another training under the same name is another run."""
    settings: Mapping[str, Any]
    """Shown beside the run; plain JSON."""


def trackers_named(names: Sequence[str]) -> tuple[TrackerName, ...]:
    """The trackers of these names, each once.

    Raises:
        RecipeError: if there is none of a name.
    """
    unknown = [name for name in names if name not in TRACKERS]
    if unknown:
        raise RecipeError(f"there is no tracker {unknown[0]!r}. Trackers: {', '.join(TRACKERS)}.")
    return tuple(name for name in TRACKERS if name in names)


def check_trackers(names: Sequence[TrackerName], environment: Mapping[str, str] = os.environ) -> None:
    """See that the trackers can be used, before anything is trained.

    Raises:
        DependencyError: if the package of one is not installed.
        RecipeError: if Weights & Biases knows no account, or cannot be reached.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise DependencyError(
                f"tracking with {name} needs the package {name!r}, which is not installed. "
                f"It comes with: pip install 'pasture[{name}]'. metrics.jsonl is written without it."
            )
    if "wandb" in names and environment.get("WANDB_MODE", "online") not in _WANDB_STAYS_HERE:
        _check_login()


def _check_login() -> None:
    wandb = importlib.import_module("wandb")
    try:
        wandb.login()
    except wandb.Error as error:
        raise RecipeError(
            f"tracking with wandb: no login ({str(error).strip()}) Run wandb login, or set WANDB_API_KEY; or set "
            "WANDB_MODE=offline and send the runs later with wandb sync."
        ) from error
