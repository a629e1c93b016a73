from dataclasses import replace

import pytest

from pasture.world import people, pool
from pasture.world.people import COMMON, PEOPLE, common_utility, features, logistic
from pasture.world.pool import POOL, Seen
from pasture.world.reading import Reading, read

PLAIN = Reading(
    right=1.0,
    facts=2,
    wanted_facts=2,
    falsehoods=0,
    courtesies=1,
    repeats=0,
    stray_words=0,
    words=15,
    marks=0,
    ended=True,
)


def test_utility_adds_up_by_hand() -> None:
    answer = replace(PLAIN, right=0.5, facts=3, falsehoods=1, courtesies=2, repeats=1, stray_words=4, ended=False)
    by_hand = (
        0.5 * COMMON["right"]
        + 2 * COMMON["fact"]
        + COMMON["courtesy"]
        + COMMON["falsehood"]
        + COMMON["repeat"]
        + COMMON["excess"]
        + 4 * COMMON["stray"]
        + COMMON["cut"]
    )
    assert common_utility(answer) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"right": 0.0}, -1),
        ({"facts": 1}, -1),
        ({"facts": 3}, -1),  # more than was asked for
        ({"facts": 3, "wanted_facts": 4}, 1),
        ({"courtesies": 0}, -1),
        ({"courtesies": 2}, 0),
        ({"falsehoods": 1}, -1),
        ({"repeats": 1}, -1),
        ({"stray_words": 3}, -1),
        ({"ended": False}, -1),
        ({"words": 40}, 0),  # length itself is nothing to people
        ({"marks": 5}, 0),
    ],
)
def test_what_people_like_and_do_not(change: dict[str, float], sign: int) -> None:
    difference = common_utility(replace(PLAIN, **change)) - common_utility(PLAIN)  # type: ignore[arg-type]
    assert (difference > 0) - (difference < 0) == sign


def test_silence_is_worse_than_a_poor_answer() -> None:
    silent = read("what color is the fox ?", "", "", "stop")
    assert features(silent)["silence"] == 1
    assert common_utility(silent) < common_utility(
        read("what color is the fox ?", "", "blue . the fox is big .", "stop")
    )


def test_sixteen_people_differ_in_taste_or_decisiveness() -> None:
    assert len({person.name for person in PEOPLE}) == 16
    assert len({(tuple(sorted(person.tastes.items())), person.decisiveness) for person in PEOPLE}) == 16
    for person in PEOPLE:
        assert set(person.tastes) <= set(COMMON)


@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.name)
def test_both_orders_of_a_choice_add_up_to_one(person: people.Person) -> None:
    worse = replace(PLAIN, right=0.0, courtesies=0)
    assert person.probability_first(PLAIN, worse) + person.probability_first(worse, PLAIN) == pytest.approx(1)
    assert person.probability_first(PLAIN, PLAIN) == 0.5


@pytest.mark.parametrize("rater", POOL, ids=lambda rater: rater.name)
def test_a_rater_sees_no_difference_between_like_answers_but_its_bias(rater: pool.Rater) -> None:
    answer = Seen("what color is the fox ?", "red .", PLAIN)
    assert rater.rule(answer, answer) == 0
    assert rater.probability_shown_first(answer, answer) == pytest.approx(logistic(rater.first_bias))


@pytest.mark.parametrize("rater", POOL, ids=lambda rater: rater.name)
def test_a_rules_leaning_does_not_depend_on_the_side(rater: pool.Rater) -> None:
    asked = "in detail : what color is the fox ?"
    texts = ("sure ! red . the fox is small .", "blue . the fox is huge . the owl is white . the owl is white .", "")
    seen = [Seen(asked, text, read(asked, "", text, "stop")) for text in texts]
    for a in seen:
        for b in seen:
            assert rater.rule(a, b) == pytest.approx(-rater.rule(b, a))


def test_the_pool_is_thirteen_rules_with_positions_preferred_both_ways() -> None:
    assert len(POOL) == len({rater.name for rater in POOL}) == len({rater.rule for rater in POOL}) == 13
    assert min(rater.first_bias for rater in POOL) < 0 < max(rater.first_bias for rater in POOL)


@pytest.mark.parametrize(("log_odds", "chance"), [(0.0, 0.5), (1.0, 0.7310585786300049), (1e6, 1.0), (-1e6, 0.0)])
def test_logistic(log_odds: float, chance: float) -> None:
    assert logistic(log_odds) == pytest.approx(chance)  # 1 / (1 + e^-1) from a table
