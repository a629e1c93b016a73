"""Pools fitted to people; enumeration, drawn labels and people of known noise are the oracles."""

import itertools
import json

import numpy as np
import pytest

from pasture.core.errors import DataError
from pasture.core.statistics import Estimate, Floats, Interval
from pasture.validate.calibration import (
    Calibration,
    Half,
    _findings,
    calibrate,
    people_errors,
    pool_agreements,
    pool_errors,
    pool_shares,
    shares_of,
)
from pasture.validate.cross_annotations import CrossAnnotations


def annotations(labels: Floats, name: str = "people") -> CrossAnnotations:
    count = len(labels)
    nothing = np.zeros(count)
    return CrossAnnotations(
        annotator=name,
        pairs=tuple(f"pair {number}" for number in range(count)),
        labels=labels,
        length_first=nothing,
        length_second=nothing,
        list_first=nothing > 0,
        list_second=nothing > 0,
        asked=np.full(count, labels.shape[1]),
        systems=(None,) * count,
    )


def simulated(
    flips: float, count: int, seed: int = 0, weights: tuple[float, ...] = (0.25,) * 4
) -> tuple[CrossAnnotations, dict[str, Floats]]:
    """Four annotators who each follow the truth in other cases, and people who are drawn from them with flips."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 2, count)
    members = np.where(generator.random((4, count)) < [[0.95], [0.9], [0.85], [0.8]], truth, 1 - truth)
    who = generator.choice(4, (count, 4), p=weights)
    labels = members[who, np.arange(count)[:, None]]
    labels = np.where(generator.random(labels.shape) < flips, 1 - labels, labels).astype(np.float64)
    shares = {f"judge {number}": np.eye(3)[2 * member] for number, member in enumerate(members)}
    return annotations(labels), shares


def test_a_pairs_error_is_that_of_all_labels_written_out() -> None:
    shares = np.array([[0.5, 0.2, 0.3]])
    total = 0.0
    for labels in itertools.product((0, 1, 2), repeat=4):
        chance = np.prod([shares[0, label] for label in labels])
        total += chance * float(people_errors(np.array([labels]) / 2)[0])
    assert pool_errors(shares, 4)[0] == pytest.approx(total)


def test_three_against_one_err_as_counted_by_hand() -> None:
    # Three against one: each of the three agrees with the majority of its others (2 to 1), the one disagrees: 1 of 4.
    # Two against two: each has one friend and two opponents: all four err. Three and a tie: the tie is half off.
    labels = np.array([[1.0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0.5]])
    assert people_errors(labels).tolist() == [0.25, 1.0, 0.0, 0.125]


def test_an_even_split_of_the_others_is_half_an_error() -> None:
    # Three labels, two against one: each of the two sees one against one (half), the one sees two against it (whole).
    assert people_errors(np.array([[1.0, 1, 0]]))[0] == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_flips_turn_sides_and_leave_ties() -> None:
    shares = np.array([[[0.7, 0.2, 0.1]]])
    assert pool_shares(shares, np.ones(1), 0.25)[0] == pytest.approx([0.55, 0.2, 0.25])  # 0.7 * 0.75 + 0.1 * 0.25


def test_agreement_is_with_the_majority_of_people() -> None:
    shares = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    people = np.array([[0.0, 0, 1], [1, 0.5, 0]])  # the first; an even split, of which everyone is half off or right
    assert pool_agreements(shares, people) == pytest.approx([0.7 + 0.1, 0.2 + 0.4])


@pytest.fixture(scope="module")
def recovered() -> Calibration:
    people, members = simulated(flips=0.2, count=3000)
    return calibrate(people, members, 0)


def test_known_flips_are_found_again(recovered: Calibration) -> None:
    assert recovered.label_flip_probability == pytest.approx(0.2, abs=0.03)


def test_the_calibrated_pool_matches_people_on_the_half_it_never_saw(recovered: Calibration) -> None:
    assert recovered.matches
    assert abs(recovered.held_out.agreement_gap.value) <= 0.02
    assert abs(recovered.held_out.variance_gap.value) <= 0.02
    assert recovered.fitted.pair_count == recovered.held_out.pair_count == 1500
    # Without flips the same annotators agree far too well with people.
    assert recovered.uncalibrated.agreement_gap.value > 0.05
    assert sum(recovered.weights.values()) == pytest.approx(1)


def test_its_expected_figures_are_those_of_labels_that_are_drawn(recovered: Calibration) -> None:
    _, members = simulated(flips=0.2, count=3000)
    generator = np.random.default_rng(5)
    pool = pool_shares(
        np.stack(list(members.values())), np.array(list(recovered.weights.values())), recovered.label_flip_probability
    )
    drawn = (generator.random((40, 3000, 4)) < pool[:, 2, None]).astype(np.float64)
    assert pool_errors(pool, 4).mean() == pytest.approx(
        np.mean([people_errors(labels).mean() for labels in drawn]), abs=0.004
    )


def test_a_pool_of_poor_judges_is_said_not_to_reach_people() -> None:
    people, _ = simulated(flips=0.05, count=600)
    coins = {f"coin {seed}": np.eye(3)[2 * np.random.default_rng(seed).integers(0, 2, 600)] for seed in (7, 8, 9)}
    found = calibrate(people, coins, 0)
    assert not found.matches
    assert "no mixture of these annotators comes within 2 points" in found.findings[0]


def test_too_few_pairs_to_settle_are_called_too_few() -> None:
    people, members = simulated(flips=0.2, count=60, seed=3)
    found = calibrate(people, members, 0)
    text = " ".join(found.findings)
    assert "cannot be told from" in text or "would make the match surer" in text


def half(gap: Estimate) -> Half:
    return Half(1000, 0.66, 0.66 + gap.value, 0.34, 0.34, gap, Estimate(0.0, 0.01, Interval(-0.01, 0.01)))


def test_a_gap_that_may_be_within_two_points_is_not_said_to_be_chance() -> None:
    # By the numbers: -4.4 to -0.2 leaves out 0, so chance does not explain the gap, but it may be less than 2 points.
    fitted = half(Estimate(0.0, 0.01, Interval(-0.01, 0.01)))
    [open_one] = _findings(fitted, half(Estimate(-0.023, 0.011, Interval(-0.044, -0.002))), 0.1)
    assert open_one == (
        "on the held-out half the fit is off by -2.3 points (-4.4 to -0.2): whether it is within 2 points cannot be "
        "told from 1000 pairs."
    )
    [settled] = _findings(fitted, half(Estimate(-0.05, 0.011, Interval(-0.07, -0.03))), 0.1)
    assert settled.endswith("off by -5.0 points (-7.0 to -3.0). Chance does not explain it.")


def test_labels_become_shares_and_probabilities_stay_what_they_are() -> None:
    labels = np.array([[0.0, 0.5, 1.0, 1.0], [0.3, np.nan, np.nan, np.nan], [np.nan] * 4])
    shares = shares_of(annotations(labels), ["pair 0", "pair 1", "pair 2", "pair 9"])
    assert shares[0].tolist() == [0.25, 0.25, 0.5]
    assert shares[1] == pytest.approx([0.7, 0.0, 0.3])
    assert np.isnan(shares[2:]).all()


def test_the_result_is_json_and_the_same_every_time(recovered: Calibration) -> None:
    people, members = simulated(flips=0.2, count=3000)
    again = calibrate(people, members, 0)
    assert json.dumps(again.to_dict(), allow_nan=False) == json.dumps(recovered.to_dict(), allow_nan=False)


def test_what_cannot_be_calibrated_is_refused() -> None:
    people, members = simulated(flips=0.2, count=30)
    with pytest.raises(DataError, match="30 of 30 pairs have 4 labels of people"):
        calibrate(people, members, 0)
    with pytest.raises(DataError, match="at least one annotator"):
        calibrate(people, {}, 0)


@pytest.mark.slow
def test_pools_of_known_make_match_their_people_in_eight_cases_of_nine() -> None:
    makes = itertools.product((0.0, 0.1, 0.25), ((0.25,) * 4, (0.7, 0.1, 0.1, 0.1), (0.0, 0.0, 0.5, 0.5)))
    found = [
        calibrate(*simulated(flips=flips, count=4000, seed=seed, weights=weights), 0).matches
        for seed, (flips, weights) in enumerate(makes)
    ]
    assert sum(found) >= 8
