"""Text engines, each imported when it is asked for, so that no service's client slows or blocks the rest."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from pasture.core.errors import RecipeError
from pasture.core.ports import Engine

if TYPE_CHECKING:
    from pasture.engines.budget import Budget

EngineKind = Literal["api", "anthropic", "local", "vllm"]


def open_engine(
    kind: EngineKind, settings: Mapping[str, Any] | None = None, *, budget: "Budget | None" = None
) -> Engine:
    """The engine of that kind; `settings` are the fields of its settings class.

    A budget binds what is paid for: `api` and `anthropic`. Scripts and stores are made directly, by `ScriptedEngine`
    and `CachedEngine`.

    Raises:
        RecipeError: naming the field that does not fit, or the kinds there are.
        DependencyError: naming the extra that the kind needs.
    """
    try:
        match kind:
            case "api":
                from pasture.engines.api import ApiEngine, ApiSettings

                return ApiEngine(ApiSettings.model_validate(settings or {}), budget=budget)
            case "anthropic":
                from pasture.engines.anthropic_api import anthropic_engine
                from pasture.engines.api import ApiSettings

                return anthropic_engine(ApiSettings.model_validate(settings or {}), budget=budget)
            case "local":
                from pasture.engines.local import LocalEngine, LocalSettings

                return LocalEngine(LocalSettings.model_validate(settings or {}))
            case "vllm":
                from pasture.engines.vllm import VllmEngine, VllmSettings

                return VllmEngine(VllmSettings.model_validate(settings or {}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"engine {kind!r}: {where}: {first['msg']}. Correct its settings.") from error
    raise RecipeError(f"no engine {kind!r}. Kinds: api, anthropic, local, vllm.")
