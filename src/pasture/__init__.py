"""Pasture: a simulator for methods that learn from human feedback.

What a program of one's own needs can be imported from here (docs/python.md lists it) and is loaded when it is first
asked for; `__init__.pyi` says the same to editors and type checkers.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "pasture.core.errors": ("PastureError",),
    "pasture.core.files": ("read_records", "write_records"),
    "pasture.core.ports": ("Annotator", "Engine", "Scorer", "silent"),
    "pasture.core.records": ("Comparison", "Completion", "Instruction", "Preference", "Rating", "Score", "WinRate"),
    "pasture.core.templates": ("TEMPLATES",),
    "pasture.data.instructions": ("load_demonstrations", "load_prompts"),
    "pasture.data.load": ("load_split",),
    "pasture.data.preferences": ("FeedbackFile", "load_feedback"),
    "pasture.generate.pairs": ("against_reference", "sample_pairs"),
    "pasture.annotate.entry": ("Columns", "annotate_head2head", "annotate_pairs", "annotate_samples"),
    "pasture.annotate.human": ("People", "PeopleConfig"),
    "pasture.annotate.panel": ("load_panel",),
    "pasture.annotate.raters": ("MeadowPeople", "MeadowPool"),
    "pasture.annotate.stored": ("Access", "StoredPool"),
    "pasture.evaluate.board": ("build_board",),
    "pasture.evaluate.length_control": ("length_control",),
    "pasture.evaluate.outcomes": ("Outcomes", "outcomes_of"),
    "pasture.evaluate.table": ("board_table",),
    "pasture.evaluate.win_rate": ("paired_difference", "summarize_all"),
    "pasture.validate.rank_correlation": ("rank_correlation",),
    "pasture.report.content": ("Leaderboard", "ReportContent"),
    "pasture.report.page": ("write_report",),
    "pasture.steps.board_page": ("leaderboard_of",),
    "pasture.flow": ("run_recipe",),
    "pasture.models.sampler_config": ("SamplerConfig",),
}
"""Public names by the module that they live in."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'pasture' has no attribute {name!r}; docs/python.md lists what it has")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
