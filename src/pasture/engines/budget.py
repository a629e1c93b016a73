"""A spending limit: the worst case of a call is set aside before it is sent, and what it cost is booked after it.

One process never passes it. Where several share a ledger, each sees what the others have booked but not what they have
in flight, so together they can pass it by those calls at most.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pasture.core.errors import BudgetError, RunFolderError
from pasture.core.files import unwritable
from pasture.engines.loop import check_not_stopped


class Booking(BaseModel):
    """A line of a ledger: what one call cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    spent_usd: Annotated[float, Field(ge=0.0)] = 0.0
    uncertain_usd: Annotated[float, Field(ge=0.0)] = 0.0
    """The worst case of a call that broke off."""


class Ledger:
    """What is spent of one pool's limit, a line for each call that was billed, by all processes that name the file.

    To be used on the engines' loop alone.
    """

    def __init__(self, folder: Path, pool: str) -> None:
        """Nothing is read or made yet."""
        self.pool = pool
        self.path = folder / f"{quote(pool, safe='')}.jsonl"
        self.spent_usd = 0.0
        self.uncertain_usd = 0.0
        self._taken_bytes = 0
        """How much of the file is in the sums: whole lines."""
        self._unwritten = b""

    def book(self, booking: Booking) -> None:
        """Write down what a call cost; what cannot be written now is kept for `catch_up`, which then says why."""
        if booking == Booking():
            return
        self._unwritten += booking.model_dump_json(exclude_defaults=True).encode() + b"\n"
        with contextlib.suppress(RunFolderError):
            self.catch_up()

    def catch_up(self) -> None:
        """Write what is not written, and add to the sums what anybody wrote since the last time.

        Raises:
            RunFolderError: if the file cannot be written or read, or holds something else.
        """
        try:
            if self._unwritten:
                self._append()
                return
            with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
                self._take_in(file)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _append(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # where nodes share a file system, appending alone loses lines
            self._take_in(file)
            file.truncate(self._taken_bytes)  # half a line is left where a process was killed amid it
            if file.write(self._unwritten) != len(self._unwritten):
                file.truncate(self._taken_bytes)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._unwritten = b""
            self._take_in(file)

    def _take_in(self, file: IO[bytes]) -> None:
        if file.seek(0, os.SEEK_END) < self._taken_bytes:  # somebody began it anew
            self._taken_bytes, self.spent_usd, self.uncertain_usd = 0, 0.0, 0.0
        file.seek(self._taken_bytes)
        text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        bookings = [self._read(line) for line in whole.splitlines()]
        self.spent_usd += sum(one.spent_usd for one in bookings)
        self.uncertain_usd += sum(one.uncertain_usd for one in bookings)
        self._taken_bytes += len(whole)

    def _read(self, line: bytes) -> Booking:
        try:
            return Booking.model_validate_json(line)
        except ValidationError as error:
            raise RunFolderError(
                f'{self.path}: expected lines such as {{"spent_usd":0.01}}, got {line[:80]!r}, so what was spent of '
                f"pool {self.pool!r} is not known. Mend or remove the line and run again."
            ) from error


@dataclass
class Budget:
    """Dollars that all engines which share this object may spend together; to be used on the engines' loop alone."""

    limit_usd: float
    ledger: Ledger | None = None
    """Whose sums count against the limit, and where the engines' spending is added; without one it counts from 0."""
    spent_usd: float = field(default=0.0, init=False)
    """What was billed."""
    uncertain_usd: float = field(default=0.0, init=False)
    """The worst case of calls that broke off after they were sent: they may have been billed."""
    _reserved_usd: float = field(default=0.0, init=False)
    _waiting: list["asyncio.Future[None]"] = field(default_factory=list, init=False)

    async def reserve(self, worst_usd: float) -> None:
        """Set `worst_usd` aside; waits while only other calls in flight stand in the way.

        Raises:
            BudgetError: if it would not fit even if the calls in flight cost nothing.
            RunFolderError: if the ledger cannot be kept.
        """
        while True:
            if self.ledger is not None:
                self.ledger.catch_up()
                self._copy_sums(self.ledger)
            free_usd = self.limit_usd - self.spent_usd - self.uncertain_usd
            if worst_usd > free_usd + 1e-12:
                raise BudgetError(self._message(worst_usd))
            if worst_usd <= free_usd - self._reserved_usd + 1e-12:
                self._reserved_usd += worst_usd
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
            check_not_stopped()

    def settle(self, worst_usd: float, cost_usd: float | None, *, uncertain: bool = False) -> None:
        """Give back what was set aside and book what the call cost; an uncertain one at its worst case."""
        self._reserved_usd -= worst_usd
        booking = Booking(uncertain_usd=worst_usd) if uncertain else Booking(spent_usd=cost_usd or 0.0)
        if self.ledger is None:
            self.spent_usd += booking.spent_usd
            self.uncertain_usd += booking.uncertain_usd
        else:
            self.ledger.book(booking)
            self._copy_sums(self.ledger)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _copy_sums(self, ledger: Ledger) -> None:
        self.spent_usd, self.uncertain_usd = ledger.spent_usd, ledger.uncertain_usd

    def _message(self, worst_usd: float) -> str:
        perhaps = f" and perhaps ${self.uncertain_usd:.4f} for calls that broke off" if self.uncertain_usd else ""
        spent, limit = f"spent ${self.spent_usd:.4f}{perhaps}", "the limit"
        if self.ledger is not None:
            pool = self.ledger.pool
            spent = f"this run has {spent} of pool {pool!r} ({self.ledger.path})"
            limit = f"max_usd of [pools.{pool}]"
        return (
            f"stopped before the limit of ${self.limit_usd:.4f} would be passed: {spent}, "
            f"and the next request can cost up to ${worst_usd:.4f}. All answers so far are stored; "
            f"raise {limit} and run again to go on."
        )
