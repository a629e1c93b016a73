"""One thread through which everything in a campaign goes, so that what is decided rests on all that came before.

It takes whatever has gathered, decides each in turn, commits it all together and only then answers: fifty votes that
arrive at once cost one flush of the disk, and none is confirmed before it.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pasture.annotate.campaign.events import EVENT, Event, Undone, Voted
from pasture.annotate.campaign.journal import CampaignExistsError, Entry, Journal
from pasture.annotate.campaign.state import Campaign
from pasture.core.errors import StoreError

T = TypeVar("T")
Decision = Callable[[Campaign], Sequence[Event]]
"""What follows from the campaign as it stands; raises where nothing may."""
_BATCH = 200


@dataclass
class _Job(Generic[T]):
    look: Callable[[Campaign], T]
    decide: Decision | None = None
    done: "Future[T]" = field(default_factory=Future)


class Desk:
    """A campaign that many threads and processes use at once."""

    def __init__(self, journal: Journal) -> None:
        """Read the journal.

        Raises:
            StoreError: if it holds no campaign or cannot be read.
        """
        self._journal = journal
        self._campaign: Campaign | None = None
        self._position = 0
        self.last_written_at: dict[str, float] = {}
        """When each annotator last said something, in seconds since 1970."""
        self._catch_up()
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="campaign", daemon=True)
        self._thread.start()

    def look(self, at: Callable[[Campaign], T]) -> "Future[T]":
        """What `at` sees in the campaign as it stands; it must change nothing and keep nothing."""
        return self._submit(_Job(at))

    def act(self, decide: Decision, look: Callable[[Campaign], T]) -> "Future[T]":
        """Have the events that `decide` decides happen; what `look` sees after them comes back once they are on disk.

        What `decide` raises comes out of the future, and nothing has happened; nor has it where `cancel` succeeds.
        """
        return self._submit(_Job(look, decide))

    def close(self) -> None:
        """Finish what was asked for and let go of the journal."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            self._thread.join()

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _submit(self, job: _Job[T]) -> "Future[T]":
        if self._closed:
            raise StoreError("the campaign's store is closed.")
        self._jobs.put(job)
        return job.done

    def _serve(self) -> None:
        going = True
        while going:
            jobs = [self._jobs.get()]
            with contextlib.suppress(queue.Empty):
                while len(jobs) < _BATCH:
                    jobs.append(self._jobs.get_nowait())
            going = None not in jobs
            self._perform([job for job in jobs if job is not None and job.done.set_running_or_notify_cancel()])
        self._journal.close()

    def _perform(self, jobs: Sequence[_Job[Any]]) -> None:
        outcomes: list[tuple[_Job[Any], Any, Exception | None]] = []
        try:
            if any(job.decide for job in jobs):
                with self._journal.writing():
                    campaign = self._catch_up()
                    outcomes = [self._done(job, campaign) for job in jobs]
            else:
                campaign = self._catch_up()
                outcomes = [self._done(job, campaign) for job in jobs]
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, or waits for ever
            # Events that were taken in are not on disk: forget them and read again.
            self._campaign, self._position = None, 0
            outcomes = [(job, None, error) for job in jobs]
        for job, result, failure in outcomes:
            if failure is not None:
                job.done.set_exception(failure)
            else:
                job.done.set_result(result)

    def _done(self, job: _Job[Any], campaign: Campaign) -> tuple[_Job[Any], Any, Exception | None]:
        events: Sequence[Event] = ()
        try:
            events = job.decide(campaign) if job.decide else ()
        except Exception as error:  # noqa: BLE001 - the decision's own, for who asked
            return job, None, error
        for event in events:
            self._take_in(self._journal.append(_key(event, campaign, self._position), event.to_json()))
        try:
            return job, job.look(campaign), None
        except Exception as error:  # noqa: BLE001 - as above
            return job, None, error

    def _catch_up(self) -> Campaign:
        """The campaign with all that the journal holds."""
        for entry in self._journal.read(self._position):
            self._take_in(entry)
        if self._campaign is None:
            raise StoreError("the journal holds no campaign. Make one with: pasture people new")
        return self._campaign

    def _take_in(self, entry: Entry) -> None:
        event = EVENT.validate_json(entry.body)
        if self._campaign is None:
            self._campaign = Campaign.replayed([event])
        else:
            self._campaign.apply(event)
        self._position = entry.position
        if isinstance(event, Voted | Undone):
            self.last_written_at[event.annotator] = entry.written_at


def begin(journal: Journal, events: Sequence[Event]) -> None:
    """Write the first events of a campaign into an empty journal, all or none.

    Raises:
        CampaignExistsError: if it is not empty.
    """
    with journal.writing():
        if journal.read(0):
            raise CampaignExistsError("there is a campaign of this name already. Name another.")
        for number, event in enumerate(events):
            journal.append(f"begin/{number}", event.to_json())


def _key(event: Event, campaign: Campaign, position: int) -> str:
    """Unique by what may happen once: a turn of an annotator passes once, whoever writes it down."""
    if isinstance(event, Voted | Undone):
        return f"turn/{event.annotator}/{campaign.annotators[event.annotator].turn}"
    return f"{event.kind}/{position + 1}"
