"""A skip is no label: somebody who has not met the pair is asked, and what nobody is left for stays missing."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.events import Said
from pasture.annotate.campaign.quality import Agreement, annotator_quality
from pasture.annotate.campaign.state import Campaign
from pasture.annotate.page.owner import owners_view
from pasture.annotate.page.pages import Pages
from tests.annotate.people.campaigns import answer, ballot, do, label_all, make

WHY = "I do not read French."


def skip(campaign: Campaign, name: str) -> str:
    """Skip what is before `name`; the pair comes back."""
    return answer(campaign, name, "skip", reason=WHY).pair.comparison.id


def owners_page(campaign: Campaign) -> str:
    return Pages().owner(owners_view(campaign, Agreement(None, None, {}), {}), "f")


def waiting(campaign: Campaign, name: str) -> set[str]:
    return {item.pair.comparison.id for item in campaign.queue(name)}


def test_a_skip_is_no_label_and_the_pair_goes_to_somebody_who_has_not_met_it() -> None:
    campaign = make(4, ["ann", "ben"], overlap=1)
    pair = skip(campaign, "ann")
    assert campaign.missing_labels() == 4
    assert campaign.labels()[pair] == []
    assert [vote.reason for vote in campaign.answers()[pair]] == [WHY]
    assert pair not in waiting(campaign, "ann")
    assert pair in waiting(campaign, "ben")
    assert campaign.unassigned_labels() == 0
    label_all(campaign, ["ann", "ben"])
    assert campaign.missing_labels() == 0
    assert [vote.annotator for vote in campaign.labels()[pair]] == ["ben"]
    # By hand: two pairs each, of which ann skipped one, and ben labelled it in her place.
    figures = {name: annotator_quality(campaign, name) for name in ("ann", "ben")}
    assert {name: (one.labels, one.skipped) for name, one in figures.items()} == {"ann": (1, 1), "ben": (3, 0)}


def test_what_all_have_skipped_stays_missing_until_somebody_joins() -> None:
    campaign = make(1, ["ann", "ben"], overlap=1)
    first = "ann" if campaign.current("ann") else "ben"
    skip(campaign, first)
    skip(campaign, "ben" if first == "ann" else "ann")
    assert (campaign.missing_labels(), campaign.unassigned_labels()) == (1, 1)
    assert campaign.current("ann") is campaign.current("ben") is None
    assert not campaign.can_take_over("ann")
    do(campaign, acts.join(campaign, "cy"))
    assert campaign.unassigned_labels() == 0
    answer(campaign, "cy")
    assert campaign.missing_labels() == 0


def test_the_owners_page_says_when_nobody_is_left() -> None:
    campaign = make(1, ["ann", "ben"], overlap=1)
    assert "Nobody is left" not in owners_page(campaign)
    for name in ["ann", "ben"] if campaign.current("ann") else ["ben", "ann"]:
        skip(campaign, name)
    assert "Nobody is left to give 1 of them: whoever works here" in owners_page(campaign)
    do(campaign, acts.close(campaign))
    assert "Nobody is left" not in owners_page(campaign)


def test_a_skip_that_is_taken_back_brings_the_pair_back() -> None:
    campaign = make(6, ["ann", "ben", "cy"], overlap=2)
    before = {name: waiting(campaign, name) for name in campaign.annotators}
    skip(campaign, "ann")
    assert {name: waiting(campaign, name) for name in campaign.annotators} != before
    do(campaign, acts.undo(campaign, "ann", 1))
    assert {name: waiting(campaign, name) for name in campaign.annotators} == before
    label_all(campaign, list(campaign.annotators))
    assert {len(votes) for votes in campaign.labels().values()} == {2}


def test_a_pair_that_comes_in_by_a_skip_leaves_the_one_in_hand_where_it_is() -> None:
    campaign = make(40, ["ann", "ben"], overlap=1, repeat_share=0.5)
    for _ in range(10):
        answer(campaign, "ben")
    in_hand, before = ballot(campaign, "ben"), [item.id for item in campaign.queue("ben")]
    while campaign.current("ann") is not None:
        skip(campaign, "ann")
        assert [item.id for item in campaign.queue("ben")][: len(before)] == before
    came = [item.pair.comparison.id for item in campaign.queue("ben")][len(before) :]
    assert len(set(came)) == len(came) == 20  # her half, in the order in which it came, and none of it twice
    do(campaign, acts.vote(campaign, "ben", in_hand))
    assert next(reversed(campaign.annotators["ben"].votes)) == in_hand.item


def test_who_is_dropped_after_a_skip_leaves_nothing_behind() -> None:
    campaign = make(3, ["ann", "ben", "cy"], overlap=2)
    skip(campaign, "ann")
    do(campaign, acts.drop(campaign, "ann"))
    label_all(campaign, ["ben", "cy"])
    assert campaign.missing_labels() == 0
    assert all(sorted(campaign.holders(pair)) == ["ben", "cy"] for pair in campaign.pairs)


ACTS = st.tuples(st.integers(0, 3), st.sampled_from(["first", "skip", "skip", "undo", "take", "leave", "back", "drop"]))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 3), st.lists(ACTS, max_size=40))
def test_whatever_happens_every_pair_has_all_the_people_it_can_have(
    pairs: int, overlap: int, steps: list[tuple[int, str]]
) -> None:
    campaign = make(pairs, [f"p{n}" for n in range(4)], overlap=overlap)
    for number, what in steps:
        name = f"p{number}"
        one = campaign.annotators[name]
        if what in ("first", "skip") and campaign.current(name) is not None:
            said: Said = "skip" if what == "skip" else "first"
            answer(campaign, name, said, reason=WHY)
        elif what == "undo" and one.status == "working" and one.votes:
            do(campaign, acts.undo(campaign, name, one.turn))
        elif what == "take" and one.status == "working" and campaign.can_take_over(name) and not campaign.queue(name):
            do(campaign, acts.take_over(campaign, name))
        elif what == "leave" and one.status == "working":
            do(campaign, acts.leave(campaign, name))
        elif what == "back" and one.status == "left":
            do(campaign, acts.come_back(campaign, name))
        elif what == "drop":
            do(campaign, acts.drop(campaign, name))
    for pair, votes in campaign.labels().items():
        asked = [name for name in campaign.active if pair in waiting(campaign, name)]
        met = {vote.annotator for vote in campaign.answers()[pair]}
        strangers = set(campaign.active) - met - set(asked)
        assert not met & set(asked)
        assert not strangers or len(votes) + len(asked) >= overlap
    assert label_all(campaign, list(campaign.active)) >= 0
    assert campaign.missing_labels() == campaign.unassigned_labels()
