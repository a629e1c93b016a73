"""One thread decides on what is on disk; several desks on one campaign agree."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.desk import Desk, begin
from pasture.annotate.campaign.events import EVENT, Event, Voted
from pasture.annotate.campaign.journal import SqliteJournal
from pasture.annotate.campaign.state import Campaign
from pasture.core.errors import DataError, StoreError
from tests.annotate.people.campaigns import ballot, new_desk, opening_events
from tests.annotate.people.conftest import OpenJournal


def vote_for(name: str):
    def decide(campaign: Campaign) -> Sequence[Event]:
        return acts.vote(campaign, name, ballot(campaign, name)) if campaign.current(name) else ()

    return decide


def done(campaign: Campaign) -> int:
    return sum(map(len, campaign.labels().values()))


def votes_on_disk(journal) -> list[Voted]:
    events = [EVENT.validate_json(entry.body) for entry in journal.read(0)]
    return [event for event in events if isinstance(event, Voted)]


def test_what_was_answered_is_on_disk(open_again: OpenJournal) -> None:
    journal = open_again(create=True)
    begin(journal, opening_events(5))
    watcher = open_again()
    with Desk(journal) as desk:
        for count in range(1, 4):
            assert desk.act(vote_for("ann"), done).result() == min(count, 2)  # her share: 5 pairs among 3
            assert len(votes_on_disk(watcher)) == min(count, 2)


def test_desks_of_two_servers_share_a_campaign_without_a_vote_lost_or_doubled(open_again: OpenJournal) -> None:
    names = [f"p{n}" for n in range(6)]
    first = open_again(create=True)
    begin(first, opening_events(30, names, overlap=3))
    desks = [Desk(first), Desk(open_again())]

    def work(name: str, number: int) -> None:
        for turn in range(15):
            desks[(number + turn) % 2].act(vote_for(name), done).result()

    threads = [threading.Thread(target=work, args=(name, number)) for number, name in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [desk.look(done).result() for desk in desks] == [90, 90]
    assert desks[0].look(Campaign.missing_labels).result() == 0
    for desk in desks:
        desk.close()
    votes = votes_on_disk(open_again())
    assert len({(vote.annotator, vote.comparison_id) for vote in votes}) == len(votes) == 90


def test_a_drop_by_another_process_is_seen_at_once(open_again: OpenJournal) -> None:
    begin(open_again(create=True), opening_events(6))
    with Desk(open_again()) as server, Desk(open_again()) as owner:
        server.act(vote_for("ann"), done).result()
        owner.act(lambda campaign: acts.drop(campaign, "ann"), done).result()
        assert server.look(done).result() == 0
        with pytest.raises(acts.RefusedError, match="not taking part"):
            server.act(lambda campaign: acts.vote(campaign, "ann", acts.Ballot("x", 0, "tie")), done).result()


def test_a_refusal_leaves_the_others_of_its_batch_alone(tmp_path: Path) -> None:
    with new_desk(tmp_path / "a.campaign", 30, ["p0", "p1"], overlap=1) as desk:
        futures = []
        for number in range(20):
            futures.append(desk.act(vote_for("p0" if number % 2 else "p1"), done))
            futures.append(desk.act(lambda campaign: acts.drop(campaign, "nobody"), done))
        assert max(future.result() for future in futures[::2]) == 20
        for future in futures[1::2]:
            with pytest.raises(DataError, match="no annotator 'nobody'"):
                future.result()


def test_what_was_cancelled_before_its_turn_does_not_happen_and_the_desk_goes_on(tmp_path: Path) -> None:
    is_at_it, go_on = threading.Event(), threading.Event()

    def slow(_: Campaign) -> None:
        is_at_it.set()
        go_on.wait(60)

    with new_desk(tmp_path / "a.campaign", 6) as desk:
        looking = desk.look(slow)
        is_at_it.wait(60)
        voting, counting = desk.act(vote_for("ann"), done), desk.look(done)
        assert voting.cancel()
        assert counting.cancel()
        go_on.set()
        looking.result(timeout=30)
        assert desk.look(done).result(timeout=30) == 0


class _FailingJournal(SqliteJournal):
    fails = False

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        with super().writing():
            yield
            if self.fails:
                raise StoreError("no room left")


def test_what_could_not_be_written_has_not_happened(tmp_path: Path) -> None:
    journal = _FailingJournal(tmp_path / "a.campaign", create=True)
    begin(journal, opening_events(6))
    with Desk(journal) as desk:
        desk.act(vote_for("ann"), done).result()
        journal.fails = True
        with pytest.raises(StoreError, match="no room"):
            desk.act(vote_for("ann"), done).result()
        journal.fails = False
        assert desk.look(done).result() == 1
        assert desk.act(vote_for("ben"), done).result() == 2


def test_a_closed_desk_says_so(tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "a.campaign")
    desk.close()
    desk.close()
    with pytest.raises(StoreError, match="closed"):
        desk.look(done)


def test_an_empty_journal_is_no_campaign(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "a.campaign", create=True)
    with pytest.raises(StoreError, match="holds no campaign"):
        Desk(journal)
    journal.close()
