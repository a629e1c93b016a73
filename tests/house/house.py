"""What there is in the package, and which of its modules need more than a plain installation brings."""

import fnmatch
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src" / "pasture"
PYPROJECT: Mapping[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))

ROOMS = ("data", "generate", "annotate", "learn", "evaluate", "validate", "report")

NEEDS_EXTRA: Mapping[str, tuple[str, ...]] = {
    "train": (
        "pasture.formulas.*",
        "pasture.generate.completions",
        "pasture.learn",
        "pasture.learn.*",
        "pasture.machine.*",
        "pasture.models.*",
        "pasture.steps.curves",
        "pasture.steps.alone",
        "pasture.steps.cards",
        "pasture.steps.fit",
        "pasture.steps.generate",
        "pasture.steps.learn",
        "pasture.engines.local*",
    ),
    "anthropic": ("pasture.engines.anthropic_api",),
    "vllm": ("pasture.engines.vllm*",),
    "people": (
        "pasture.annotate.page.gate",
        "pasture.annotate.page.pages",
        "pasture.annotate.page.prose",
        "pasture.annotate.page.serve*",
    ),
    "postgres": ("pasture.annotate.campaign.postgres",),
}
"""Patterns of modules that cannot be imported without an extra; everything else can, from a plain `pip install`."""

FREE_AFTER_ALL = (
    "pasture.machine.executor",
    "pasture.machine.launch",
    "pasture.machine.parents",
    "pasture.machine.ray_cluster",
    "pasture.machine.tracker_settings",
    "pasture.models.card",
    "pasture.models.hub_names",
    "pasture.models.request_queue",
    "pasture.models.sampler_config",
    "pasture.models.weights_config",
)
"""Modules that match a pattern above and need nothing."""


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def modules() -> list[str]:
    return [name_of(path) for path in files()]


def needed_extra(module: str) -> str | None:
    """The extra without which `module` cannot be imported; None where it can."""
    if module in FREE_AFTER_ALL:
        return None
    matching = (extra for extra, patterns in NEEDS_EXTRA.items() for p in patterns if fnmatch.fnmatch(module, p))
    return next(matching, None)
