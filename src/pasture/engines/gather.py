"""From single calls to batches, for engines that answer many requests at once or not at all."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pasture.core.requests import Reply, Request

Answer = Callable[[Sequence[Request]], Awaitable[Sequence[Reply]]]


class Gatherer:
    """Calls that wait together go to `answer` together, at most `most` of them, one batch at a time."""

    def __init__(self, answer: Answer, most: int, *, linger_seconds: float) -> None:
        self._answer = answer
        self._most = most
        self._linger_seconds = linger_seconds
        self._waiting: list[tuple[Request, asyncio.Future[Reply]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._arrived = 0

    async def complete(self, request: Request) -> Reply:
        """The reply, once the batch that it is part of was answered."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._arrived += 1
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            await self._until_no_more_come()
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                replies = await self._answer([request for request, _ in batch])
                for (_, future), reply in zip(batch, replies, strict=True):
                    if not future.done():
                        future.set_result(reply)
            except BaseException as error:  # noqa: BLE001 - handed to everyone who waits
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    async def _until_no_more_come(self) -> None:
        seen = -1
        while seen != self._arrived and len(self._waiting) < self._most:
            seen = self._arrived
            await asyncio.sleep(self._linger_seconds)
