"""Text engines, each imported when it is asked for, so that no service's client slows or blocks the rest."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pasture.core.ports import Engine
from pasture.engines.settings import BatchSettings, EngineKind, LocalSettings, VllmSettings, checked_settings

if TYPE_CHECKING:
    from pasture.engines.budget import Budget


def open_engine(
    kind: EngineKind, settings: Mapping[str, Any] | None = None, *, budget: "Budget | None" = None
) -> Engine:
    """The engine of that kind; `settings` are the fields of its settings class.

    A budget binds what is paid for: `api`, `anthropic` and `batch`. Scripts and stores are made directly, by
    `ScriptedEngine` and `CachedEngine`.

    Raises:
        RecipeError: naming the field that does not fit, or the kinds there are.
        DependencyError: naming the extra that the kind needs.
    """
    checked = checked_settings(kind, settings or {})
    if isinstance(checked, LocalSettings):
        from pasture.engines.local import LocalEngine

        return LocalEngine(checked)
    if isinstance(checked, VllmSettings):
        from pasture.engines.vllm import VllmEngine

        return VllmEngine(checked)
    if isinstance(checked, BatchSettings):
        from pasture.engines.batch_files import BatchEngine

        return BatchEngine(checked, budget=budget)
    if kind == "anthropic":
        from pasture.engines.anthropic_api import anthropic_engine

        return anthropic_engine(checked, budget=budget)
    from pasture.engines.api import ApiEngine

    return ApiEngine(checked, budget=budget)
