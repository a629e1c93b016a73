"""An engine that never pays twice for the same question: a store in front of any other engine."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from pydantic import ValidationError

from pasture.core.errors import EngineError, StoreError
from pasture.core.ports import Engine
from pasture.core.requests import Reply, Request
from pasture.core.store import Answer, AnswerStore, Claimed
from pasture.engines.loop import RunStoppedError, in_order, on_engine_loop, pause

LOG = logging.getLogger("pasture.engines")

FIRST_LOOK_SECONDS = 0.05
LAST_LOOK_SECONDS = 1.0
"""How often to look whether the other process that pays for a question has its answer; grows from first to last."""


@runtime_checkable
class KeepsPlaces(Protocol):
    """An engine that counts a call as in flight until its answer is kept, so that a kill loses no more than those."""

    async def complete_kept(self, request: Request, keep: Callable[[Reply], Awaitable[Reply]]) -> Reply:
        """What `keep` gives back for the reply."""
        ...


def stored_under(request: Request, salt: str = "") -> str:
    """The key of the answer to `request`, from an engine with that salt."""
    if not salt:
        return request.request_hash
    return hashlib.sha256(f"{salt}\n{request.request_hash}".encode()).hexdigest()


class CachedEngine:
    """`inner` behind `store`: what was answered before comes from the store, what is new is stored before it is used.

    A failure is stored too and comes back as it is, unless `retry_failed`. Where asking again
    ends in an error of the engine, the stored failure stands, and a warning says so once. What is raised otherwise (a
    missing key, a spent budget, a stop) is not stored. `salt` tells apart engines whose model name does not say which
    weights answer.
    """

    def __init__(self, inner: Engine, store: AnswerStore, *, salt: str = "", retry_failed: bool = False) -> None:
        self._inner = inner
        self._places = inner if isinstance(inner, KeepsPlaces) else None
        self._store = store
        self._salt = salt
        self._retry_failed = retry_failed
        self._has_warned = False

    @property
    def identity(self) -> Mapping[str, object]:
        """That of the engine which answers."""
        return self._inner.identity

    @property
    def in_flight(self) -> int:
        """As many as the engine behind it."""
        return self._inner.in_flight

    async def complete(self, request: Request) -> Reply:
        """The stored reply, or a new one once it is stored.

        Raises:
            StoreError: if the answer cannot be read or kept; nothing is asked after that.
        """
        return await on_engine_loop(self._complete(request))

    async def _complete(self, request: Request) -> Reply:
        key = stored_under(request, self._salt)
        wait = FIRST_LOOK_SECONDS
        while True:
            found = await self._claimed(key)
            if isinstance(found, Answer):
                return self._read(key, found)
            if found == "claimed":
                return await self._bought_or_failed_before(key, request)
            await pause(wait)
            wait = min(2 * wait, LAST_LOOK_SECONDS)

    async def _claimed(self, key: str) -> Answer | Claimed | None:
        """What the store says to a claim; a claim that nobody waits for any more is let go of."""
        claim = self._store.claim(key, retry_failed=self._retry_failed)
        try:
            return await asyncio.wrap_future(claim)
        except asyncio.CancelledError:
            claim.add_done_callback(lambda done: self._let_go(key, done))
            raise

    def _let_go(self, key: str, claim: "Future[Answer | Claimed | None]") -> None:
        if not claim.cancelled() and claim.exception() is None and claim.result() == "claimed":
            self._store.release(key)

    async def _bought_or_failed_before(self, key: str, request: Request) -> Reply:
        """A new answer; where there is none and the store holds a failure, that one."""
        try:
            return await self._buy(key, request)
        except RunStoppedError:
            raise
        except EngineError as error:
            before = await asyncio.to_thread(self._store.get, key) if self._retry_failed else None
            if before is None:
                raise
            if not self._has_warned:
                self._has_warned = True
                LOG.warning("What failed before failed again, and stays as it is stored. The first: %s", error)
            return self._read(key, before)

    async def _buy(self, key: str, request: Request) -> Reply:
        handed_over = False  # from then on the claim ends with the store's commit

        async def keep(reply: Reply) -> Reply:
            nonlocal handed_over
            handed_over = True
            return await self._kept(key, request, reply)

        try:
            if self._places is not None:
                return await self._places.complete_kept(request, keep)
            return await keep(await self._inner.complete(request))
        except BaseException:
            if not handed_over:
                await asyncio.shield(asyncio.wrap_future(self._store.release(key)))
            raise

    async def _kept(self, key: str, request: Request, reply: Reply) -> Reply:
        text = reply.to_json()
        put = self._store.put(key, request.canonical_json, text, failed=reply.failed)
        stored = await asyncio.shield(asyncio.wrap_future(put))
        if isinstance(stored, Answer) and stored.text != text:
            return self._read(key, stored)
        return reply

    def _read(self, key: str, answer: Answer) -> Reply:
        try:
            return Reply.model_validate_json(answer.text).model_copy(update={"from_store": True})
        except ValidationError as error:
            raise StoreError(
                f"{self._store.path}: the answer under key {key[:12]} was written by another version of Pasture "
                f"({error.error_count()} fields differ). Use that version, or name another store."
            ) from error

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """The replies in order, each stored before it comes; what is stored already is read here, many at a time."""
        return in_order(self, requests, self._recall)

    def _recall(self, requests: Sequence[Request]) -> list[Reply | None]:
        keys = [stored_under(request, self._salt) for request in requests]
        found = self._store.find(keys)
        spares = {key for key, answer in found.items() if not (answer.failed and self._retry_failed)}
        return [self._read(key, found[key]) if key in spares else None for key in keys]
