"""The one event loop on which engines talk to services, and the way to it from anywhere.

It runs in a thread of its own. So a plain script, a thread and a notebook (which has a loop already) ask alike, and a
service's connections stay open from one call of `run` to the next.
"""

import asyncio
import atexit
import contextlib
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from itertools import islice
from types import FrameType
from typing import Any, Protocol, TypeVar

from pasture.core.errors import EngineError
from pasture.core.requests import Reply, Request

T = TypeVar("T")

DRAIN_SECONDS = 120.0
"""How long the end of a run waits for calls that are paid for and still in flight."""
WINDOW_PER_PLACE = 8
"""Replies that may wait for an earlier one, for each call in flight; bounds the memory behind a slow call."""
RECALLED_TOGETHER = 500
"""Requests that are looked up at once, at most."""


class RunStoppedError(EngineError):
    """The run ended before this request was sent."""


class Completes(Protocol):
    """What `in_order` needs of an engine."""

    @property
    def in_flight(self) -> int:
        """Calls that it can use at once."""
        ...

    async def complete(self, request: Request) -> Reply:
        """The reply to one request."""
        ...


Recall = Callable[[Sequence[Request]], Sequence[Reply | None]]
"""Looks up in the caller's own thread what needs no asking. None sends a request on to the engine, which has to look
for itself: once nothing of what was read together is known, the rest is not looked up."""


class _LoopThread:
    """The thread and its loop, made on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.runs: set[_Run] = set()

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="pasture engines", daemon=True).start()
                atexit.register(self._drain)
            return self._loop

    def _drain(self) -> None:
        """At the end of the program: let the calls in flight come home."""
        for run in list(self.runs):
            run.stop()
        for run in list(self.runs):
            run.wait()


_THREAD = _LoopThread()
_STOP: ContextVar[asyncio.Event | None] = ContextVar("stop", default=None)


def submit(work: Coroutine[Any, Any, T]) -> "Future[T]":
    """Start `work` on the engines' loop, from any other thread."""
    return asyncio.run_coroutine_threadsafe(work, _THREAD.get())


async def on_engine_loop(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; it runs on the engines' loop, whichever loop awaits it."""
    if asyncio.get_running_loop() is _THREAD.get():
        return await work
    return await asyncio.wrap_future(submit(work))


def check_not_stopped() -> None:
    """To be called before money is spent.

    Raises:
        RunStoppedError: if the run that this call belongs to is being ended.
    """
    stop = _STOP.get()
    if stop is not None and stop.is_set():
        raise RunStoppedError("the run was stopped before this request was sent; run it again to go on.")


async def pause(seconds: float) -> None:
    """Sleep, but no longer than the run lasts.

    Raises:
        RunStoppedError: if the run is ended meanwhile.
    """
    stop = _STOP.get()
    if stop is None:
        await asyncio.sleep(seconds)
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    check_not_stopped()


class _Run:
    """One call of `in_order`: its tasks live on the loop, its replies are read outside.

    The loop is started by the first request that has to be asked.
    """

    def __init__(self, engine: Completes, requests: Iterable[Request], recall: Recall | None) -> None:
        self._engine = engine
        self._numbered = enumerate(requests)
        self._recall = recall
        self._waiting: dict[int, Reply] = {}
        self._asked = self._flying = self._given = 0
        self._exhausted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: deque[tuple[int, Request]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._places = max(1, engine.in_flight)
        self._done: queue.SimpleQueue[tuple[int, Reply | BaseException]] = queue.SimpleQueue()

    def feed(self) -> bool:
        """Hand requests to the loop, as many again as are in flight; False once every reply was given."""
        while batch := self._read():
            if unknown := self._unknown(batch):
                self._flying += len(unknown)
                self._loop = self._loop or _THREAD.get()
                self._loop.call_soon_threadsafe(self._take, unknown)
            if not self._flying:
                break  # what is known is given out before more is read
        return not (self._exhausted and self._given == self._asked)

    def _read(self) -> list[tuple[int, Request]]:
        room = min(2 * self._places - self._flying, self._given + WINDOW_PER_PLACE * self._places - self._asked)
        most = room if self._recall is None else min(room, RECALLED_TOGETHER)
        batch = list(islice(self._numbered, max(0, most)))
        self._exhausted = self._exhausted or len(batch) < most
        self._asked += len(batch)
        return batch

    def _unknown(self, batch: list[tuple[int, Request]]) -> list[tuple[int, Request]]:
        """What has to be asked; what is known already waits for its turn from here on."""
        if self._recall is None:
            return batch
        known = self._recall([request for _, request in batch])
        if not any(known):
            self._recall = None  # the store may be busy writing, and calls in flight wait for new ones meanwhile
            return batch
        self._waiting |= {number: reply for (number, _), reply in zip(batch, known, strict=True) if reply is not None}
        return [item for item, reply in zip(batch, known, strict=True) if reply is None]

    def replies(self) -> Iterator[Reply]:
        """Replies whose turn it is, after waiting for at least one arrival if there is none."""
        if self._given not in self._waiting:
            for number, reply in _arrived(self._done):
                self._flying -= 1
                if isinstance(reply, BaseException):
                    raise reply
                self._waiting[number] = reply
        for _ in range(self._places):  # then look for free places again
            if self._given not in self._waiting:
                return
            self._given += 1
            yield self._waiting.pop(self._given - 1)

    def _take(self, batch: list[tuple[int, Request]]) -> None:
        self._ready += batch
        self._start()

    def _start(self) -> None:
        while self._ready and len(self._tasks) < self._places and not self._stop.is_set():
            self._idle.clear()
            task = asyncio.get_running_loop().create_task(self._one(*self._ready.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._landed)

    async def _one(self, number: int, request: Request) -> None:
        _STOP.set(self._stop)
        try:
            self._done.put((number, await self._engine.complete(request)))
        except BaseException as error:  # noqa: BLE001 - raised again where the replies are read
            self._done.put((number, error))

    def _landed(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._start()
        if not self._tasks:
            self._idle.set()

    def stop(self) -> None:
        """Begin nothing more."""
        if self._loop is None:
            self._stop.set()
            return
        self._loop.call_soon_threadsafe(self._ready.clear)
        self._loop.call_soon_threadsafe(self._stop.set)

    def wait(self) -> None:
        """Until the calls in flight have ended; those that take too long, or a second Ctrl-C, are cut off."""
        if self._loop is None:
            return
        settled = threading.Event()
        self._loop.call_soon_threadsafe(settled.set)  # after it, what was offered before has been seen
        try:
            settled.wait()
            self._idle.wait(DRAIN_SECONDS)
        finally:
            if not self._idle.is_set():
                self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._tasks])
                self._idle.wait(1.0)


def in_order(
    engine: Completes, requests: Iterable[Request], recall: Recall | None = None
) -> Generator[Reply, None, None]:
    """One reply for each request, in order, with up to `engine.in_flight` calls at once.

    Requests are read in the caller's own thread as places fall free; what `recall` knows takes no place. However it
    ends (an error, a closed iterator, Ctrl-C, SIGTERM, the end of the program), nothing new is asked and the calls in
    flight are awaited first.
    """
    run = _Run(engine, requests, recall)
    _THREAD.runs.add(run)
    try:
        with _sigterm_as_exit():
            while run.feed():
                yield from run.replies()
    finally:
        run.stop()
        run.wait()
        _THREAD.runs.discard(run)


def _arrived(done: "queue.SimpleQueue[T]") -> Iterator[T]:
    """At least one item, and all that have come by now."""
    yield done.get()
    with contextlib.suppress(queue.Empty):
        while True:
            yield done.get_nowait()


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """While a run lasts, SIGTERM unwinds the program instead of cutting it off, unless it is handled already."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    if ours:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
