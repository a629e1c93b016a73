"""Runs jobs that wait for one another in several processes of this machine, as soon as each one's turn has come.

A worker that dies takes its job with it and nothing else. Workers die with the process that started them. Where there
are cards, each worker sees one, dealt out in turn.
"""

import multiprocessing
import os
import queue
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, cast

from pasture.core.errors import TrainingError, WaitingError
from pasture.machine.parents import die_with

_LISTEN_SECONDS = 0.2
_CARDS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Job:
    """A piece of work with a name, and the names of the jobs that must be done before it."""

    name: str
    needs: frozenset[str]
    order: Any
    """What the worker is told; must be picklable."""
    cpus: float = 1.0
    gpus: float = 0.0


class Workers(AbstractContextManager["Workers"], Protocol):
    """Where jobs run."""

    count: int
    """Jobs at once."""

    def submit(self, job: Job) -> "Future[Any]":
        """Start the job; its result, or its error, comes with the future."""
        ...

    def messages(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """What jobs have said since the last time: job name and message; those that cannot speak say nothing."""
        ...


def walk(
    jobs: Sequence[Job],
    workers: Workers,
    *,
    started: Callable[[str], None],
    said: Callable[[str, tuple[Any, ...]], None],
    finished: Callable[[str, Any], None],
) -> None:
    """Run all jobs, the earlier in the list first where several could start.

    After an error no further job is started; those that run are waited for, and then the error is raised. A job that
    waits for people holds up what needs it and nothing else; what all of them miss is raised at the end.
    """
    left = {job.name: job for job in jobs}
    done: set[str] = set()
    running: dict[Future[Any], str] = {}
    failed: list[BaseException] = []
    known = set(left)
    while True:
        if all(isinstance(each, WaitingError) for each in failed):
            ready = [job for job in left.values() if not (job.needs & known) - done]
            for job in ready[: max(0, workers.count - len(running))]:
                del left[job.name]
                started(job.name)
                running[workers.submit(job)] = job.name
        if not running:
            break
        completed, _ = wait(running, timeout=_LISTEN_SECONDS, return_when=FIRST_COMPLETED)
        for name, message in workers.messages():
            said(name, message)
        for future in completed:
            name = running.pop(future)
            raised = future.exception()
            if raised is None:
                finished(name, future.result())
                done.add(name)
            else:
                failed.append(_explained(name, raised))
    if failed:
        raise _told(failed)


def _told(failed: Sequence[BaseException]) -> BaseException:
    """The first error; where nothing went wrong, all that is missing."""
    wrong = [each for each in failed if not isinstance(each, WaitingError)]
    return wrong[0] if wrong else WaitingError(*(one for each in failed for one in cast("WaitingError", each).missing))


def _explained(name: str, raised: BaseException) -> BaseException:
    """What a job raised, or what it means that its process is gone."""
    if not isinstance(raised, BrokenProcessPool):
        return raised
    error = TrainingError(
        f"the process that did {name} was killed, most likely for want of memory. "
        "What was finished stays; run again, with fewer workers if it was memory."
    )
    error.__cause__ = raised
    return error


class LocalWorkers:
    """Processes of this machine; each keeps what it has imported for its next job."""

    def __init__(self, count: int, do: Callable[[Any, Callable[..., None]], Any]) -> None:
        """`do(order, say)` does a job's order in a worker; it must be a function of a module."""
        self.count = count
        self._do = do
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._said: Any = context.Queue()
        # A pool of one for each: where a process of a larger pool dies, the pool ends all its others.
        self._pools = {
            self._stack.enter_context(
                ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(self._said, os.getpid(), card))
            ): _at_rest()
            for card in _dealt(_cards(), self.count)
        }
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:  # an interrupted job has nothing to wait for: it goes on from what it has saved
            for child in multiprocessing.active_children():
                child.kill()
        self._stack.close()
        self._said.close()

    def submit(self, job: Job) -> "Future[Any]":
        """Start the job in a process that has nothing to do; there must be one."""
        pool = next(pool for pool, last in self._pools.items() if last.done())
        self._pools[pool] = pool.submit(_work, self._do, job.name, job.order)
        return self._pools[pool]

    def messages(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """What workers have said."""
        while True:
            try:
                yield self._said.get_nowait()
            except queue.Empty:
                return


def _at_rest() -> "Future[Any]":
    """What a process that has had no job yet is waited for by."""
    future: Future[Any] = Future()
    future.set_result(None)
    return future


_VOICE: list[Any] = []
"""In a worker, the queue through which all its jobs speak."""


def _cards() -> list[str]:
    """The cards that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    told = os.environ.get(_CARDS)
    if told is not None:
        return [card for card in told.split(",") if card]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


def _dealt(cards: Sequence[str], count: int) -> list[str | None]:
    """A card for each of `count` workers, in turn; None where there is none to choose."""
    return [cards[number % len(cards)] if cards else None for number in range(count)]


def _begin(said: Any, parent: int, card: str | None) -> None:
    """In a worker: speak through `said`, see the one card alone, and die with the parent."""
    _VOICE.append(said)
    if card is not None:
        os.environ[_CARDS] = card
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    die_with(parent)


def _work(do: Callable[[Any, Callable[..., None]], Any], name: str, order: Any) -> Any:
    return do(order, lambda *message: _VOICE[0].put((name, message)))
