"""What the owner sees: every annotator's figures, the agreement among them, the cost; reckoned when asked for."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pasture.annotate.campaign.desk import Desk
from pasture.annotate.campaign.export import labelled_rows
from pasture.annotate.campaign.quality import Agreement, AnnotatorQuality, all_quality
from pasture.annotate.campaign.state import Campaign

Standing = Callable[[Sequence[Mapping[str, object]]], Agreement]
"""Reckons the agreement in labelled rows; it lives outside this room."""


@dataclass(frozen=True)
class OwnersView:
    """The owner's page."""

    name: str
    closed: bool
    pairs: int
    overlap: int
    labels: int
    missing: int
    unassigned: int
    """How many of the missing labels nobody is left to give."""
    rows: Sequence[AnnotatorQuality]
    agreement: Agreement
    wage_usd_per_hour: float | None
    seconds_since_last: Mapping[str, float]
    """By annotator: how long ago they said something."""

    @property
    def has_gold(self) -> bool:
        """Whether anyone met a pair with a known answer."""
        return any(row.gold.of for row in self.rows)

    @property
    def has_repeats(self) -> bool:
        """Whether anyone met a pair again."""
        return any(row.repeated.of for row in self.rows)

    @property
    def has_round(self) -> bool:
        """Whether anyone has been through a first round."""
        return any(row.qualification is not None for row in self.rows)

    @property
    def cost_usd(self) -> float | None:
        """Of all annotators, dropped ones included: they were paid too."""
        costs = [row.cost_usd for row in self.rows if row.cost_usd is not None]
        return sum(costs) if costs else None

    @property
    def seconds(self) -> float:
        """Of all annotators' work."""
        return 3600 * sum(row.hours for row in self.rows)


class Owner:
    """Reckons in a thread of its own, once for each state of the campaign."""

    def __init__(self, desk: Desk, standing: Standing) -> None:
        self._desk, self._standing = desk, standing
        self._known: tuple[int, Agreement] | None = None
        self._lock = asyncio.Lock()

    async def seen(self) -> OwnersView:
        """The page as of now."""
        version, rows = await asyncio.wrap_future(
            self._desk.look(lambda campaign: (campaign.version, labelled_rows(campaign)))
        )
        async with self._lock:
            if self._known is None or self._known[0] != version:
                self._known = version, await asyncio.to_thread(self._standing, rows)
            agreement = self._known[1]
        return await asyncio.wrap_future(
            self._desk.look(lambda campaign: owners_view(campaign, agreement, self._desk.last_written_at))
        )


def owners_view(campaign: Campaign, agreement: Agreement, last_written_at: Mapping[str, float]) -> OwnersView:
    """The owner's page of a campaign whose agreement is known, and when each annotator last said something."""
    now = time.time()
    labels = campaign.labels()
    return OwnersView(
        name=campaign.opened.name,
        closed=campaign.closed,
        pairs=len(labels),
        overlap=campaign.settings.overlap,
        labels=sum(map(len, labels.values())),
        missing=campaign.missing_labels(),
        unassigned=0 if campaign.closed else campaign.unassigned_labels(),
        rows=all_quality(campaign),
        agreement=agreement,
        wage_usd_per_hour=campaign.settings.wage_usd_per_hour,
        seconds_since_last={name: max(0.0, now - at) for name, at in last_written_at.items()},
    )
