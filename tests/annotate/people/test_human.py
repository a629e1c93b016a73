"""People as an annotator: a run makes a campaign, waits for it, and goes on with its labels."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pytest

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.address import new_campaign, open_journal
from pasture.annotate.campaign.desk import Desk
from pasture.annotate.campaign.events import Event, Said
from pasture.annotate.campaign.journal import CampaignExistsError, Entry, SqliteJournal
from pasture.annotate.campaign.state import Campaign, Item
from pasture.annotate.human import People, PeopleConfig
from pasture.core.errors import Missing, StoreError, WaitingError
from pasture.core.ports import Annotator
from tests.annotate.people.campaigns import ballot, comparison, opening_events

PAIRS = [comparison(number) for number in range(4)]


def act(address: str, decide: Callable[[Campaign], Sequence[Event]]) -> None:
    with Desk(open_journal(address)) as desk:
        desk.act(decide, lambda _: None).result()


def say(address: str, name: str, said: Said) -> None:
    act(address, lambda campaign: acts.vote(campaign, name, ballot(campaign, name, said)))


def vote(address: str, name: str) -> None:
    """Everything before an annotator, always for the comparison's own first."""

    def current(campaign: Campaign) -> Item | None:
        return campaign.current(name)

    while True:
        with Desk(open_journal(address)) as desk:
            item = desk.look(current).result()
        if item is None:
            return
        say(address, name, "first" if item.shown_first == "first" else "second")


def test_a_run_makes_the_campaign_says_what_is_missing_and_goes_on(address: str) -> None:
    people = People(PeopleConfig(campaign=address, annotators="ann,ben", overlap=2))
    assert isinstance(people, Annotator)
    with pytest.raises(WaitingError, match=r"8 of 8 labels are missing. Pairs left by annotator: ann 4, ben 4"):
        people.annotate(PAIRS)
    vote(address, "ann")
    with pytest.raises(WaitingError, match=r"4 of 8 labels .* ben 4\. .*people serve"):
        people.annotate(PAIRS)
    vote(address, "ben")
    said = people.annotate(PAIRS)
    assert [each.comparison_id for each in said] == [pair.id for pair in PAIRS for _ in range(2)]
    assert {each.preferred for each in said} == {"first"}
    assert people.annotate(PAIRS) == said
    with pytest.raises(acts.RefusedError, match="put to use"):  # what a run has taken stays what it is
        act(address, lambda campaign: acts.undo(campaign, "ann", 4))


def test_a_run_that_waits_goes_on_when_the_labels_come(tmp_path: Path) -> None:
    address = str(tmp_path / "a.campaign")
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int, **figures: float) -> None:
        seen.append((done, total))

    def sleep(seconds: float) -> None:
        vote(address, "ann")

    config = PeopleConfig(campaign="a.campaign", annotators="ann", wait_seconds=None)
    people = People(config, folder=tmp_path, sleep=sleep, progress=progress)
    assert len(people.annotate(PAIRS)) == 4
    assert seen == [(0, 4), (4, 4)]


def test_a_majority_is_one_preference_a_pair_with_the_share_of_its_votes(tmp_path: Path) -> None:
    address = str(tmp_path / "a.campaign")
    people = People(PeopleConfig(campaign=address, annotators="3", overlap=3, votes="majority"))
    with pytest.raises(WaitingError):
        people.annotate(PAIRS[:1])
    say(address, "a01", "tie")
    say(address, "a02", "tie")
    vote(address, "a03")
    (preference,) = people.annotate(PAIRS[:1])
    assert preference.preferred == "first"
    assert preference.probability_first == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert preference.evidence == {"votes": {"a01": "tie", "a02": "tie", "a03": "first"}}


def test_what_a_closed_campaign_lacks_is_unjudged_not_left_out(tmp_path: Path) -> None:
    address = str(tmp_path / "a.campaign")
    people = People(PeopleConfig(campaign=address))
    with pytest.raises(WaitingError):
        people.annotate(PAIRS)
    act(address, acts.close)
    said = people.annotate(PAIRS)
    assert [each.preferred for each in said] == ["unjudged"] * 4
    assert said[0].error == "nobody labelled this pair before the campaign was closed"


def test_a_campaign_of_other_pairs_is_an_error(tmp_path: Path) -> None:
    address = str(tmp_path / "a.campaign")
    new_campaign(address, opening_events(4))
    people = People(PeopleConfig(campaign=address))
    with pytest.raises(acts.RefusedError, match=r"lacks 1 of 1 pairs .*, and has 4 others"):
        people.annotate([comparison(99)])
    act(address, acts.close)
    with pytest.raises(acts.RefusedError, match=r"lacks 1 of 2 pairs .*, and is closed"):
        people.annotate([PAIRS[0], comparison(99)])


def test_steps_that_ask_at_the_same_time_share_one_campaign(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second finds no campaign, is about to make one, and the first is quicker."""
    first, second = (People(PeopleConfig(campaign=address, annotators="ann")) for _ in range(2))

    def too_late(self: People) -> bool:
        if self is second:
            with pytest.raises(WaitingError):
                first.annotate(PAIRS[:2])
        return False

    monkeypatch.setattr(People, "_exists", too_late)
    with pytest.raises(WaitingError, match=r"2 of 2 labels are missing\. Pairs left by annotator: ann 4"):
        second.annotate(PAIRS[2:])
    vote(address, "ann")
    monkeypatch.undo()
    assert [len(people.annotate(part)) for people, part in ((first, PAIRS[:2]), (second, PAIRS[2:]))] == [2, 2]


def test_what_several_steps_miss_of_one_campaign_is_added_up() -> None:
    error = WaitingError(Missing("a", 1, 2, "x"), Missing("b", 3, 3, "y"), Missing("a", 4, 8, "z"))
    assert str(error) == "campaign a: 5 of 10 labels are missing. z\ncampaign b: 3 of 3 labels are missing. y"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - its own; a worker sends it so


def test_a_run_that_asks_again_finds_the_same_people_and_its_earlier_labels(address: str) -> None:
    """As judges in a recipe are: asked about one system after the other."""
    people = People(PeopleConfig(campaign=address, annotators="ann,ben", overlap=2))
    said = []
    for part in (PAIRS[:2], PAIRS[1:]):
        with pytest.raises(WaitingError):
            people.annotate(part)
        vote(address, "ann")
        vote(address, "ben")
        said.append(people.annotate(part))
    assert [each.comparison_id for each in said[1]] == [pair.id for pair in PAIRS[1:] for _ in range(2)]
    assert people.annotate(PAIRS[:2]) == said[0]


def test_a_campaign_whose_making_fails_midway_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: SqliteJournal, key: str, body: str) -> Entry:
        if key == "begin/3":
            raise StoreError("no room left")
        return append(self, key, body)

    append = SqliteJournal.append
    monkeypatch.setattr(SqliteJournal, "append", full)
    with pytest.raises(StoreError, match="no room left"):
        new_campaign(str(tmp_path / "a.campaign"), opening_events(4))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    new_campaign(str(tmp_path / "a.campaign"), opening_events(4))
    assert [each.name for each in tmp_path.iterdir()] == ["a.campaign"]
    with pytest.raises(CampaignExistsError, match=r"a\.campaign is there already"):
        new_campaign(str(tmp_path / "a.campaign"), opening_events(4))
    assert [each.name for each in tmp_path.iterdir()] == ["a.campaign"]


def test_to_drop_an_annotator_is_to_be_other_people(address: str) -> None:
    people = People(PeopleConfig(campaign=address, annotators="2"))
    before = people.identity
    with pytest.raises(WaitingError):
        people.annotate(PAIRS)
    assert people.identity == before
    act(address, lambda campaign: acts.drop(campaign, "a01"))
    assert people.identity != before


def test_campaigns_of_one_name_in_two_folders_are_other_people_wherever_they_are_moved_to(tmp_path: Path) -> None:
    here = {name: People(PeopleConfig(campaign=f"{name}/labels.campaign"), folder=tmp_path) for name in PLACES}
    before = {name: people.identity for name, people in here.items()}
    assert before["students"] != before["experts"]
    for people in here.values():
        with pytest.raises(WaitingError):
            people.annotate(PAIRS)
    assert {name: people.identity for name, people in here.items()} == before
    (tmp_path / "students").rename(tmp_path / "moved")
    moved = People(PeopleConfig(campaign="moved/labels.campaign"), folder=tmp_path)
    assert moved.identity == before["students"]
    # Made by hand where the other lay, it is of other people again.
    (tmp_path / "students").mkdir()
    opened, *rest = opening_events(4)
    new_campaign(str(tmp_path / "students" / "labels.campaign"), [opened, *rest])
    assert here["students"].identity not in before.values()


PLACES = ("students", "experts")


def skip(address: str, name: str) -> None:
    act(address, lambda campaign: acts.vote(campaign, name, ballot(campaign, name, "skip", reason="French")))


@pytest.mark.parametrize("votes", ["all", "majority"])
def test_a_skip_is_no_label_and_a_run_waits_for_somebody_elses(address: str, votes: Literal["all", "majority"]) -> None:
    people = People(PeopleConfig(campaign=address, annotators="ann,ben", votes=votes))
    with pytest.raises(WaitingError):
        people.annotate(PAIRS)
    for _ in range(2):
        skip(address, "ann")
    with pytest.raises(WaitingError, match=r"4 of 4 labels are missing. Pairs left by annotator: ben 4"):
        people.annotate(PAIRS)
    vote(address, "ben")
    said = people.annotate(PAIRS)
    assert [each.preferred for each in said] == ["first"] * 4
    assert [each.comparison_id for each in said] == [pair.id for pair in PAIRS]


@pytest.mark.parametrize("votes", ["all", "majority"])
def test_what_everybody_skipped_is_said_and_unjudged_after_the_close(
    address: str, votes: Literal["all", "majority"]
) -> None:
    people = People(PeopleConfig(campaign=address, annotators="ann", votes=votes))
    with pytest.raises(WaitingError):
        people.annotate(PAIRS[:1])
    skip(address, "ann")
    with pytest.raises(WaitingError, match=r"1 of 1 labels are missing. Nobody is left to give 1 .*people add"):
        people.annotate(PAIRS[:1])
    act(address, acts.close)
    (said,) = people.annotate(PAIRS[:1])
    assert said.preferred == "unjudged"
    assert said.error == "nobody labelled this pair before the campaign was closed; skipped: French"
