"""Corrections by human labels find people's rate from a biased judge, with intervals that hold."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from pasture.core.errors import DataError
from pasture.core.statistics import Interval
from pasture.evaluate.human_corrected import CorrectedRate, corrected_rates, prediction_powered, rogan_gladen
from pasture.evaluate.outcomes import Outcomes, answers_of
from tests.evaluate.pairs import outcomes

TRUTH, SENSITIVITY, SPECIFICITY = 0.4, 0.85, 0.7


def labelled(
    rng: np.random.Generator, count: int = 1000, labels: int = 150, skill: tuple[float, float] | None = None
) -> tuple[Outcomes, Outcomes]:
    """A judge who errs at known rates on all instructions, and people's labels on the first `labels` of them."""
    sensitivity, specificity = skill or (SENSITIVITY, SPECIFICITY)
    people = rng.random(count) < TRUTH
    judge = np.where(people, rng.random(count) < sensitivity, rng.random(count) > specificity)
    return outcomes(judge.astype(float)), outcomes(people[:labels].astype(float), judge="people")


def both(judge: Outcomes, people: Outcomes, seed: int) -> list[CorrectedRate]:
    return [prediction_powered(judge, people), rogan_gladen(judge, people, seed)]


def test_coverage_is_nominal_where_the_judge_alone_is_always_wrong():
    rng = np.random.default_rng(0)
    covered, widths, trials = np.zeros(2), np.zeros(3), 400
    for trial in range(trials):
        results = both(*labelled(rng), seed=trial)
        covered += [result.interval.low <= TRUTH <= result.interval.high for result in results]
        widths += [result.interval.high - result.interval.low for result in results] + [
            results[0].human_interval.high - results[0].human_interval.low
        ]
    # benchmarks/evaluate.py runs ten times as many; two standard errors of 400 are 2.2 points.
    assert (covered / trials >= 0.928).all(), covered / trials
    assert (covered / trials <= 0.972).all(), covered / trials
    assert widths[0] < 0.9 * widths[2]  # worth its while: narrower than the labels alone


def test_the_judges_own_rate_is_far_off_and_the_corrected_ones_are_not():
    results = both(*labelled(np.random.default_rng(1), count=20_000, labels=4000), seed=0)
    for result in results:
        # By hand: the judge says win at 0.4 * 0.85 + 0.6 * 0.3 = 0.52.
        assert result.judge_rate == pytest.approx(0.52, abs=0.02)
        assert result.rate == pytest.approx(TRUTH, abs=3 * result.standard_error)
        assert result.standard_error < 0.012
        assert (result.labelled, result.unlabelled) == (4000, 16_000)


def test_by_hand_on_a_small_table():
    # Labelled: people win 10 of 20; the judge says win on 8 of these 10 and on 2 of the other 10.
    people = np.repeat([1.0, 0.0], 10)
    judge = np.concatenate([[1.0] * 8 + [0.0] * 2, [1.0] * 2 + [0.0] * 8, [1.0] * 12 + [0.0] * 8])
    result = rogan_gladen(outcomes(judge), outcomes(people, judge="people"), seed=0)
    # The judge's rate is 22 of 40, its rates of saying win 8 of 10 and 2 of 10.
    assert result.rate == pytest.approx((0.55 - 0.2) / (0.8 - 0.2), abs=1e-12)
    # PPI++: covariance of label and verdict 3/19, variance of the 40 verdicts 9.9/39, n/N = 1.
    weight = (3 / 19) / (2 * 9.9 / 39)
    powered = prediction_powered(outcomes(judge), outcomes(people, judge="people"))
    assert powered.rate == pytest.approx(0.5 + weight * (0.6 - 0.5), abs=1e-12)


def test_rogan_gladen_survives_a_labelled_set_with_more_wins_and_prediction_powered_does_not():
    rng = np.random.default_rng(2)
    judge, _ = labelled(rng, count=6000, labels=1)
    people = rng.random(2000) < 0.7  # more wins than among the others
    verdict = np.where(people, rng.random(2000) < SENSITIVITY, rng.random(2000) > SPECIFICITY).astype(float)
    names = [f"extra{number}" for number in range(2000)]
    judge = outcomes(np.concatenate([verdict, judge.credit]), instruction=np.concatenate([names, judge.instruction]))
    powered, turned = both(judge, outcomes(people.astype(float), instruction=names, judge="people"), seed=0)
    whole = (0.7 * 2000 + TRUTH * 6000) / 8000
    assert turned.rate == pytest.approx(whole, abs=3 * turned.standard_error)
    assert powered.rate > whole + 0.05


def rare(rng: np.random.Generator, share: float) -> tuple[Outcomes, Outcomes]:
    """A judge right in nine of ten of 400, of which people call `share` a win; the first 30 are labelled."""
    people = rng.random(400) < share
    judge = np.where(rng.random(400) < 0.9, people, ~people)
    return outcomes(judge.astype(float)), outcomes(people[:30].astype(float), judge="people")


def test_rare_wins_leave_the_same_doubt_as_rare_losses():
    people = np.array([1.0] + [0.0] * 29)  # more than a third of the resamples, (29/30)^30, hold no win
    judge = np.concatenate([people, [1.0] * 40 + [0.0] * 330])
    judge[1] = 1.0
    own = rogan_gladen(outcomes(judge), outcomes(people, judge="people"), seed=0)
    turned = rogan_gladen(outcomes(judge).turned_round(), outcomes(people, judge="people").turned_round(), seed=0)
    assert turned.rate == pytest.approx(1 - own.rate, abs=1e-12)
    # The draws of the unlabelled part are not mirrored, so the rest is the same but for chance.
    assert turned.standard_error == pytest.approx(own.standard_error, abs=0.003)
    assert turned.interval == pytest.approx((1 - own.interval.high, 1 - own.interval.low), abs=0.01)


@pytest.mark.parametrize("share", [0.05, 0.95])
def test_the_interval_of_rare_wins_holds_without_being_the_whole_scale(share):
    rng = np.random.default_rng(7)
    found: list[Interval] = []
    while len(found) < 200:
        judge, people = rare(rng, share)
        with contextlib.suppress(DataError):  # labels without a win or a loss, or a judge without skill on them
            found.append(rogan_gladen(judge, people, seed=len(found)).interval)
    held = sum(interval.low <= share <= interval.high for interval in found) / 200
    assert held >= 0.92  # 95% less two standard errors of 200 trials
    assert np.mean([interval.high - interval.low for interval in found]) < 0.35


def test_a_judge_without_skill_does_no_harm_to_one_and_is_refused_by_the_other():
    judge, people = labelled(np.random.default_rng(3), skill=(0.5, 0.5))
    result = prediction_powered(judge, people)
    own, alone = result.interval, result.human_interval
    assert own.high - own.low <= 1.05 * (alone.high - alone.low)
    with pytest.raises(DataError, match="too little to correct by"):
        rogan_gladen(judge, outcomes(1 - judge.credit[:150], judge="people"), seed=0)


def test_too_few_labels_and_labels_of_other_systems_are_refused():
    judge, people = labelled(np.random.default_rng(4), labels=19)
    with pytest.raises(DataError, match=r"at least 20 .* got 19 and 981"):
        prediction_powered(judge, people)
    with pytest.raises(DataError, match="about the same two systems"):
        prediction_powered(judge, outcomes([1.0] * 30, system="other"))


def exchanged(labels: Outcomes) -> Outcomes:
    """The same labels as a file has them that puts the system where the reference stands, each won by the other."""
    return replace(labels, system=labels.reference, reference=labels.system, credit=1 - labels.credit)


def test_labels_of_the_same_pair_the_other_way_round_are_turned():
    judge, people = labelled(np.random.default_rng(5))
    straight = corrected_rates([judge], [people], seed=0)
    assert corrected_rates([judge], [exchanged(people)], seed=0) == straight
    assert prediction_powered(judge, exchanged(people)) == straight["new"][0]
    # A file that mixes both orders is one set of labels.
    first = np.arange(len(people)) % 2 == 0
    mixed = [people.where(first), exchanged(people.where(~first))]
    assert corrected_rates([judge], mixed, seed=0) == straight


def test_what_was_the_systems_is_the_references_when_turned_round():
    one = replace(
        outcomes([1.0, 0.25, np.nan], lengths=([10, 20, 30], [1, 2, 3])),
        verdict=np.array([1.0, 0.0, np.nan]),
        system_list=np.array([True, False, False]),
        answer=answers_of(["a", "b", "c"]),
    )
    turned = one.turned_round()
    assert (turned.system, turned.reference, turned.judge) == ("old", "new", "j")
    np.testing.assert_array_equal(turned.credit, [0.0, 0.75, np.nan])
    np.testing.assert_array_equal(turned.verdict, [0.0, 1.0, np.nan])
    np.testing.assert_array_equal(turned.system_length, [1, 2, 3])
    np.testing.assert_array_equal(turned.reference_length, [10, 20, 30])
    assert turned.system_list.tolist() == [False, False, False]
    assert turned.reference_list.tolist() == [True, False, False]
    assert turned.answer is None
    # The system was shown first on the first instruction and second on the next.
    when_first, when_second = turned.by_place()
    np.testing.assert_array_equal(when_first, [np.nan, 0.75, np.nan])
    np.testing.assert_array_equal(when_second, [0.0, np.nan, np.nan])
    again = turned.turned_round()
    np.testing.assert_array_equal(again.credit, one.credit)
    np.testing.assert_array_equal(again.shown_first, one.shown_first)


def test_labels_of_nobody_and_of_others_are_told_apart():
    judge, people = labelled(np.random.default_rng(6))
    with pytest.raises(
        DataError, match=r"people's labels are an empty list.* Give annotations by people of at least 20"
    ):
        corrected_rates([judge], [], seed=0)
    with pytest.raises(
        DataError, match="about 'other' against 'old', the judge's about 'new' against 'old': none in c"
    ):
        corrected_rates([judge], [replace(people, system="other")], seed=0)
