"""A panel with the engine that answers for it and the store that keeps what was answered, opened on first use."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from pasture.annotate.draws import ContentDraws, Draws
from pasture.annotate.panel import Panel
from pasture.annotate.pool import LLMPool
from pasture.annotate.quote import Quote, Rates, quote
from pasture.annotate.render import Definition
from pasture.core.errors import RecipeError
from pasture.core.ports import Engine, Progress, silent
from pasture.core.records import Comparison, Preference
from pasture.core.redaction import refuse_keys_in_addresses
from pasture.core.store import AnswerStore
from pasture.engines import open_engine
from pasture.engines.budget import Budget, Ledger
from pasture.engines.cached import CachedEngine, stored_under
from pasture.engines.scripted import ScriptedEngine
from pasture.engines.settings import EngineKind, EngineSettings, checked_settings, model_facts, store_salt


class Access(Definition):
    """How language models are reached, and what that may cost."""

    engine: EngineKind = "api"
    engine_settings: Mapping[str, Any] = {}
    """Fields of the engine's settings, such as `endpoints`, `in_flight` and `price` for a service."""
    store: Path = Path("answers.sqlite")
    """Where answers are kept and looked up."""
    max_usd: Annotated[float, Field(ge=0.0)] | None = None
    """Nothing is asked that could pass this: over all steps and tries of a run, or else in one start of a command. None
    for no limit."""

    @field_validator("engine_settings")
    @classmethod
    def _holds_no_key(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Also where nobody asks the models, since a run writes its whole recipe down."""
        refuse_keys_in_addresses(settings)
        return settings


class StoredPool:
    """An `Annotator` whose answers are stored before they are used.

    Settings are checked at once. A key is read, a model loaded and the store opened only when somebody is asked; they
    stay open until `close`. A model of one's own is told apart by its weights, a service's by its name alone, so an
    answer bought at one address serves at another.
    """

    def __init__(
        self,
        panel: Panel,
        access: Access | None = None,
        *,
        draws: Draws | None = None,
        sample: int = 0,
        retry_unjudged: bool = False,
        ledger: Ledger | None = None,
        progress: Progress = silent,
    ) -> None:
        """Nothing is opened yet; what `ledger` holds is gone of the limit already, the rest is as in `LLMPool`.

        Raises:
            RecipeError: naming what does not fit in the engine's settings.
        """
        self.panel = panel
        self.access = access or Access()
        self._draws: Draws = draws or ContentDraws()
        self._sample, self._retry_unjudged, self._progress = sample, retry_unjudged, progress
        self._ledger = ledger
        self._table = _engine_table(panel, self.access)
        self._checked: EngineSettings = checked_settings(self.access.engine, self._table)
        self._open = contextlib.ExitStack()
        self._pool: LLMPool | None = None

    @cached_property
    def identity(self) -> Mapping[str, object]:
        """What its verdicts depend on; needs neither key nor store."""
        facts = {"engine": {"kind": self.access.engine, **model_facts(self._checked)}}
        return {**self._asking(ScriptedEngine("")).identity, **facts}

    def annotate(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """One preference for each comparison, in order.

        Raises:
            EngineError: if the service cannot be asked.
            StoreError: if answers cannot be kept.
            BudgetError: before the limit would be passed.
        """
        return self.pool().annotate(comparisons)

    def pool(self) -> LLMPool:
        """The judges behind their store, open."""
        if self._pool is None:
            store = self._open.enter_context(AnswerStore(self.access.store))
            limit = self.access.max_usd
            budget = None if limit is None else Budget(limit, self._ledger)
            engine = open_engine(self.access.engine, self._table, budget=budget)
            if hasattr(engine, "close"):
                self._open.callback(engine.close)
            salt = store_salt(self._checked)
            self._pool = self._asking(CachedEngine(engine, store, salt=salt, retry_failed=self._retry_unjudged))
        return self._pool

    def quote(self, comparisons: Sequence[Comparison]) -> Quote:
        """Calls and costs of annotating; nothing is sent, and no key is needed."""
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(AnswerStore(self.access.store)) if self.access.store.exists() else None
            salt = store_salt(self._checked)
            return quote(
                self._asking(ScriptedEngine("")).requests(comparisons),
                Rates.of(self.access.engine, self._checked),
                lambda request: store is not None and self._is_answered(store, stored_under(request, salt)),
            )

    def _is_answered(self, store: AnswerStore, key: str) -> bool:
        """Whether the store's answer will do; a failure will not where failures are asked about again."""
        found = store.get(key)
        return found is not None and not (found.failed and self._retry_unjudged)

    def close(self) -> None:
        """Close connections and store; the next question opens them again."""
        self._pool = None
        self._open.close()

    def __enter__(self) -> "StoredPool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _asking(self, engine: Engine) -> LLMPool:
        return LLMPool(
            self.panel,
            engine,
            draws=self._draws,
            sample=self._sample,
            retry_unjudged=self._retry_unjudged,
            progress=self._progress,
        )


def _engine_table(panel: Panel, access: Access) -> dict[str, Any]:
    """The engine's settings; a model on this machine is the one that the panel names, unless they name another."""
    table = dict(access.engine_settings)
    key = {"local": "folder", "vllm": "model"}.get(access.engine)
    if key is None or key in table:
        return table
    if len(panel.models) > 1:
        raise RecipeError(
            f"engine {access.engine!r} holds one model, and pool {panel.name!r} asks {len(panel.models)}: "
            f"{', '.join(panel.models)}. Name one, or serve them and use engine 'api'."
        )
    return {key: panel.models[0], **table}
