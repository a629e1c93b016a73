"""What the steps of a plan do: each opens its inputs, lets one room work, and writes one folder.

This is where rooms meet. `pasture.flow` imports the modules late, so that only steps that need torch load it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pasture.core.ports import Progress
from pasture.core.records import Verdict

SECOND_WINS: Mapping[Verdict, float] = {"first": 0.0, "second": 1.0, "tie": 0.5, "unjudged": math.nan}
"""What a verdict is worth to the second side, where a system stands beside its reference."""
ANSWERS = "completions.jsonl"
"""Where a step leaves a system's answers."""
LEDGERS = "spent"
"""Where in its folder a run keeps what it has spent of each pool."""


@dataclass(frozen=True)
class Task:
    """What a step is handed."""

    folder: Path
    """Where to write; what an interrupted try left is still there."""
    inputs: Mapping[str, Path]
    """Folders of finished steps by role."""
    settings: Mapping[str, Any]
    progress: Progress
    ledgers: Path | None = None
    """Where the run keeps what it has spent of each pool; None where no run does."""


@dataclass(frozen=True)
class Outcome:
    """What a step hands back beside its files."""

    cost_usd: float | None = 0.0
    """None where a price was unknown."""
    details: Mapping[str, object] = field(default_factory=dict)
    """Plain JSON for the manifest."""
