"""A spending limit that is never passed: the worst case of a call is set aside before it is sent."""

import asyncio
from dataclasses import dataclass, field

from pasture.core.errors import BudgetError
from pasture.engines.loop import check_not_stopped


@dataclass
class Budget:
    """Dollars that all engines which share this object may spend together; to be used on the engines' loop alone."""

    limit_usd: float
    spent_usd: float = 0.0
    """What was billed; may start above 0, where a run goes on."""
    uncertain_usd: float = 0.0
    """The worst case of calls that broke off after they were sent: they may have been billed."""
    _reserved_usd: float = 0.0
    _waiting: list["asyncio.Future[None]"] = field(default_factory=list)

    async def reserve(self, worst_usd: float) -> None:
        """Set `worst_usd` aside; waits while only other calls in flight stand in the way.

        Raises:
            BudgetError: if it would not fit even if the calls in flight cost nothing.
        """
        while True:
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
        if uncertain:
            self.uncertain_usd += worst_usd
        else:
            self.spent_usd += cost_usd or 0.0
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _message(self, worst_usd: float) -> str:
        perhaps = f" and perhaps ${self.uncertain_usd:.4f} for calls that broke off" if self.uncertain_usd else ""
        return (
            f"stopped before the limit of ${self.limit_usd:.4f} would be passed: spent ${self.spent_usd:.4f}{perhaps}, "
            f"and the next request can cost up to ${worst_usd:.4f}. All answers so far are stored; "
            "raise the limit and run again to go on."
        )
