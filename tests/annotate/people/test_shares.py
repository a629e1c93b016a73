"""Who labels what: as many annotators a pair as wanted, even shares, also after someone has gone."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pasture.annotate.campaign import acts
from pasture.annotate.campaign.shares import check_overlap
from pasture.annotate.campaign.state import Campaign
from pasture.core.errors import DataError
from tests.annotate.people.campaigns import answer, do, label_all, make


def shares(campaign: Campaign) -> dict[str, int]:
    return {name: campaign.share_of(name) for name in campaign.annotators}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 7), st.data())
def test_every_pair_has_its_annotators_and_shares_differ_by_one_at_most(pairs: int, count: int, data) -> None:
    overlap = data.draw(st.integers(1, count))
    campaign = make(pairs, [f"p{n}" for n in range(count)], overlap=overlap)
    for pair in campaign.of_role("work"):
        holders = campaign.holders(pair.comparison.id)
        assert len(holders) == len(set(holders)) == overlap
    sizes = shares(campaign).values()
    assert sum(sizes) == pairs * overlap
    assert max(sizes) - min(sizes) <= 1


def test_everyone_meets_everyone_so_that_all_agreements_can_be_measured() -> None:
    # 120 pairs by 3 of 6: 15 couples share 360 meetings; by chance each about 24.
    campaign = make(120, [f"p{n}" for n in range(6)], overlap=3)
    met: Counter[tuple[str, ...]] = Counter()
    for pair in campaign.of_role("work"):
        one, two, three = sorted(campaign.holders(pair.comparison.id))
        met.update([(one, two), (one, three), (two, three)])
    assert len(met) == 15
    assert min(met.values()) >= 8


def test_the_plan_follows_from_the_secret_alone() -> None:
    plans = [make(20, overlap=2, secret=secret) for secret in ("a" * 64, "a" * 64, "b" * 64)]
    held = [[plan.holders(pair.comparison.id) for pair in plan.of_role("work")] for plan in plans]
    assert held[0] == held[1] != held[2]


def test_what_one_who_leaves_has_not_done_goes_to_the_others() -> None:
    campaign = make(30, [f"p{n}" for n in range(5)], overlap=2)
    for _ in range(4):
        answer(campaign, "p0")
    do(campaign, acts.leave(campaign, "p0"))
    assert campaign.share_of("p0") == 4
    others = [size for name, size in shares(campaign).items() if name != "p0"]
    assert sum(others) == 60 - 4
    assert max(others) - min(others) <= 1
    label_all(campaign, ["p1", "p2", "p3", "p4"])
    assert campaign.missing_labels() == 0
    assert {len(votes) for votes in campaign.labels().values()} == {2}


def test_who_comes_back_gets_an_even_share_again() -> None:
    campaign = make(40, [f"p{n}" for n in range(4)], overlap=1)
    do(campaign, acts.leave(campaign, "p0"))
    assert campaign.share_of("p0") == 0
    do(campaign, acts.come_back(campaign, "p0"))
    assert set(shares(campaign).values()) == {10}
    label_all(campaign, list(campaign.annotators))
    assert campaign.missing_labels() == 0


def test_answers_of_the_dropped_are_wanted_again_from_others() -> None:
    campaign = make(12, [f"p{n}" for n in range(4)], overlap=3)
    label_all(campaign, ["p0"])
    assert campaign.share_of("p0") == 9
    do(campaign, acts.drop(campaign, "p0"))
    assert campaign.share_of("p0") == 0
    assert campaign.missing_labels() == 36
    label_all(campaign, ["p1", "p2", "p3"])
    assert campaign.missing_labels() == 0
    assert all({vote.annotator for vote in votes} == {"p1", "p2", "p3"} for votes in campaign.labels().values())


def test_with_too_few_left_every_pair_gets_all_the_labels_it_can() -> None:
    campaign = make(10, ["p0", "p1", "p2"], overlap=3)
    do(campaign, acts.drop(campaign, "p0"))
    label_all(campaign, ["p1", "p2"])
    assert campaign.missing_labels() == 10
    assert {len(votes) for votes in campaign.labels().values()} == {2}


def test_who_is_done_can_take_over_from_who_does_not_come() -> None:
    campaign = make(20, ["p0", "p1"], overlap=1)
    label_all(campaign, ["p0"])
    assert campaign.missing_labels() == 10
    while campaign.can_take_over("p0"):
        do(campaign, acts.take_over(campaign, "p0"))
        label_all(campaign, ["p0"])
    assert campaign.missing_labels() == 0
    assert campaign.annotators["p0"].taken_over == 10
    assert campaign.current("p1") is None


def test_nobody_labels_a_pair_twice_by_taking_over() -> None:
    campaign = make(6, ["p0", "p1"], overlap=2)
    label_all(campaign, ["p0"])
    assert not campaign.can_take_over("p0")
    with pytest.raises(acts.RefusedError, match="Nothing is left"):
        acts.take_over(campaign, "p0")


def test_the_pair_in_hand_is_the_last_to_be_given_away() -> None:
    campaign = make(16, ["p0", "p1"], overlap=1)
    label_all(campaign, ["p0"])
    in_hand = campaign.current("p1")
    do(campaign, acts.take_over(campaign, "p0"))
    assert campaign.share_of("p0") == 8 + 5
    assert campaign.current("p1") == in_hand


def test_more_labels_a_pair_than_annotators_is_an_error() -> None:
    with pytest.raises(DataError, match="at least 3 annotators for 3 labels a pair, got 2"):
        check_overlap(3, ["ann", "ben"])
