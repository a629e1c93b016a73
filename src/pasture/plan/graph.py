"""Steps and the graph that they make: a content hash for each says what its result depends on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pasture.core.deciding import deciding, deciding_answers
from pasture.core.files import weights_fingerprint

WORK_VERSION = 8
"""Raised when a release changes what a step computes, so that older results are not taken for new ones."""


@dataclass(frozen=True)
class Step:
    """One piece of work with one folder of results."""

    name: str
    """Its folder in the run: room number and name, then what it is."""
    work: str
    """`room.function`, looked up in `pasture.steps`."""
    settings: Mapping[str, Any]
    """All that the work needs to know beside its inputs; plain JSON."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Step names by the role that they play as inputs."""
    units: float = 0.0
    """Size of the work in the unit of `pasture.estimate`."""


@dataclass(frozen=True)
class Plan:
    """The steps of a run in an order in which each comes after what it needs."""

    steps: tuple[Step, ...]
    keys: Mapping[str, str]
    """Content hash by step name."""
    views: Mapping[str, str] = field(default_factory=dict)
    """Where else in the folder a step is to be found, by path: each run of a study sees shared steps as its own."""


def assemble(steps: Sequence[Step]) -> Plan:
    """The plan of `steps`, which must be listed after what they need.

    A step's key hashes the work, the settings that its result depends on, and the keys of what it reads.
    Steps with the same key do the same work, in this run or in another.
    """
    keys: dict[str, str] = {}
    for step in steps:
        if step.name in keys:
            raise ValueError(f"two steps are called {step.name!r}")
        identity = {
            "version": WORK_VERSION,
            "work": step.work,
            "settings": _deciding(step.settings),
            "needs": {role: keys[name] for role, name in step.needs.items()},
        }
        keys[step.name] = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Plan(tuple(steps), keys)


def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a step's result depends on.

    How annotators are reached and what they may cost is none of it: their identities stand beside it. Nor is how much
    is computed at once.
    """
    parts = {"config": deciding, "decoding": deciding_answers}
    kept = {name: value for name, value in settings.items() if name != "own"}
    return {name: parts[name](value) if name in parts else value for name, value in kept.items()}


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over the names and fingerprints of a model folder's files."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    rows = [f"{path.relative_to(folder)} {weights_fingerprint(path)}" for path in files]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
