"""Win rates are AlpacaFarm's; intervals hold what they promise; nothing is dropped in silence."""

from functools import partial

import numpy as np
import pytest

from pasture.annotate.draws import ContentDraws
from pasture.annotate.entry import alpaca_eval_value
from pasture.annotate.noise import MarginFlips, with_noise
from pasture.core.errors import DataError
from pasture.core.records import Preference
from pasture.evaluate.alpaca_eval import annotation_rows, outcomes_of_annotations
from pasture.evaluate.board import build_board
from pasture.evaluate.length_control import length_control
from pasture.evaluate.outcomes import Credit, outcomes_of
from pasture.evaluate.win_rate import discrete_rate, paired_difference, summarize, summarize_all, win_rate
from tests.evaluate.pairs import compare, outcomes, prefer, prefer_in_both_orders


def test_a_tie_counts_half_a_win_and_a_failure_counts_nothing():
    comparisons = [compare(number) for number in range(5)]
    verdicts = ["second", "second", "first", "tie", "unjudged"]
    preferences = [prefer(row, verdict) for row, verdict in zip(comparisons, verdicts, strict=True)]

    record = win_rate(preferences, comparisons, system="new", reference="old", judge="j", seed=0)

    # By hand: (1 + 1 + 0 + 1/2) / 4; the sample variance of 1, 1, 0, 1/2 is 0.6875 / 3.
    assert record.rate == 0.625
    assert record.standard_error == pytest.approx((0.6875 / 3) ** 0.5 / 2, abs=1e-15)
    assert (record.asked, record.judged, record.unjudged) == (5, 4, 1)
    assert (record.wins, record.losses, record.ties) == (2, 1, 1)
    assert record.mean_length == 8


@pytest.mark.parametrize(
    ("wins", "losses", "ties", "rate", "error"),
    [
        (370, 424, 9, 46.6376, 1.7516),  # PPO of AlpacaFarm's precomputed rows: n 803
    ],
)
def test_alpaca_farm_published_rows_are_met(wins, losses, ties, rate, error):
    record = summarize(outcomes([1.0] * wins + [0.0] * losses + [0.5] * ties), seed=0)
    assert record.rate == pytest.approx(rate / 100, abs=5e-7)
    assert record.standard_error == pytest.approx(error / 100, abs=5e-7)
    assert (record.wins, record.losses, record.ties, record.judged) == (wins, losses, ties, 803)


def test_the_side_of_the_comparison_does_not_matter():
    comparisons = [compare(number, system="old", reference="new") for number in range(3)]
    preferences = [prefer(row, "first") for row in comparisons]
    assert win_rate(preferences, comparisons, system="new", reference="old", judge="j", seed=0).rate == 1.0


def test_a_comparison_that_nobody_answered_is_counted_as_unjudged():
    comparisons = [compare(number) for number in range(3)]
    record = win_rate([prefer(comparisons[0], "second")], comparisons, system="new", reference="old", judge="j", seed=0)
    assert (record.asked, record.judged, record.unjudged, record.rate) == (3, 1, 2, 1.0)


def test_nothing_judged_gives_no_rate_rather_than_zero():
    comparisons = [compare(0)]
    record = win_rate(
        [prefer(comparisons[0], "unjudged")], comparisons, system="new", reference="old", judge="j", seed=0
    )
    assert (record.rate, record.standard_error, record.interval_low, record.unjudged) == (None, None, None, 1)


def test_a_probability_is_used_only_when_asked_for_and_noise_without_one_counts_whole():
    row = compare(0)
    sure = prefer(row, "first", probability_first=0.9)
    coin = prefer(row, "second", flipped_by_noise=True)
    cases: list[tuple[Preference, Credit, float]] = [
        (sure, "verdict", 0.0),
        (sure, "probability", 0.1),
        (coin, "probability", 1.0),
    ]
    for preference, credit, expected in cases:
        [columns] = outcomes_of([preference], [row], judge="j", reference="old", credit=credit)
        assert columns.credit.tolist() == pytest.approx([expected])


@pytest.mark.parametrize("in_both_orders", [False, True])
def test_a_judgement_that_noise_turned_over_counts_by_its_probability_turned_over(in_both_orders):
    comparisons = [compare(number) for number in range(400)]
    judged = [
        prefer_in_both_orders(row, ("first", "first"), (0.7, 0.5625))
        if in_both_orders
        else prefer(row, "first", probability_first=0.63125)
        for row in comparisons
    ]
    noise = MarginFlips(temperature=100)  # of so even calls nearly every other is turned over
    noisy = [with_noise(noise, row, one, ContentDraws()) for row, one in zip(comparisons, judged, strict=True)]
    turned = sum(one.flipped_by_noise for one in noisy)
    assert 150 < turned < 250

    [columns] = outcomes_of(noisy, comparisons, judge="j", reference="old", credit="probability")

    # By hand: 1 - p for the system, the second; p where it was turned over; p = (0.7 + 0.5625) / 2 in both orders.
    share = turned / 400
    assert np.mean(columns.credit) == pytest.approx(share * 0.63125 + (1 - share) * 0.36875)
    when_first, when_second = columns.by_place()
    if in_both_orders:
        # The first completion had 0.7 where it was shown first, so the system, shown second, had 0.3.
        assert np.mean(when_second) == pytest.approx(share * 0.7 + (1 - share) * 0.3)
        assert np.mean(when_first) == pytest.approx(share * 0.5625 + (1 - share) * 0.4375)
    # Both ways out of here say the same.
    rows = annotation_rows(noisy, comparisons)
    assert [row["preference"] for row in rows] == [alpaca_eval_value(one) for one in noisy]
    np.testing.assert_allclose(outcomes_of_annotations(rows)[0].credit, columns.credit)


def test_a_judge_that_changed_its_mind_with_the_order_called_a_tie_whatever_its_probability():
    comparisons = [compare(number) for number in range(5)]
    preferences = [
        prefer_in_both_orders(comparisons[0], ("second", "second"), (0.1, 0.2)),  # a win of 0.85
        prefer_in_both_orders(comparisons[1], ("first", "second"), (0.9, 0.4)),  # a tie of 0.35
        prefer_in_both_orders(comparisons[2], ("first", "second"), (0.6, 0.2)),  # a tie of 0.6
        prefer_in_both_orders(comparisons[3], ("first", "first"), (0.7, 0.9)),  # a loss of 0.2
        prefer_in_both_orders(comparisons[4], ("first", "unjudged"), (0.7, 0.9)),
    ]
    [columns] = outcomes_of(preferences, comparisons, judge="j", reference="old", credit="probability")
    for record in (summarize(columns, seed=0), summarize_all([columns], seed=0)[0]):
        assert (record.wins, record.losses, record.ties, record.unjudged) == (1, 1, 2, 1)
        assert discrete_rate(record) == 0.5
        assert record.rate == pytest.approx((0.85 + 0.35 + 0.6 + 0.2) / 4)


def test_annotations_that_hold_but_a_number_are_counted_by_it():
    names = {"generator_1": "old", "generator_2": "new", "output_1": "a", "output_2": "b", "annotator": "j"}
    rows: list[dict[str, object]] = [
        {**names, "instruction": str(row), "preference": value}
        for row, value in enumerate([1.85, 1.35, 1.6, 1.5, None])
    ]
    [columns] = outcomes_of_annotations(rows)
    record = summarize(columns, seed=0)
    assert (record.wins, record.losses, record.ties, record.unjudged) == (2, 1, 1, 1)


def test_errors_name_what_is_missing():
    comparisons = [compare(0)]
    preferences = [prefer(comparisons[0], "first")]
    with pytest.raises(DataError, match=r"'newer' was never compared with 'old'.*\['new'\]"):
        win_rate(preferences, comparisons, system="newer", reference="old", judge="j", seed=0)
    with pytest.raises(DataError, match=r"reference 'gold'.*\['new', 'old'\]"):
        win_rate(preferences, comparisons, system="new", reference="gold", judge="j", seed=0)
    with pytest.raises(DataError, match="not among the 1 given"):
        win_rate([prefer(compare(1), "first")], comparisons, system="new", reference="old", judge="j", seed=0)
    another = compare(1).model_copy(update={"id": comparisons[0].id})
    with pytest.raises(DataError, match=f"two comparisons have the id '{another.id}'"):
        win_rate(preferences, [*comparisons, another], system="new", reference="old", judge="j", seed=0)


@pytest.mark.parametrize(
    "make", [lambda systems: summarize_all(systems, 0), partial(build_board, seed=0), partial(length_control, seed=0)]
)
def test_what_is_no_list_of_outcomes_is_told_so(make):
    one = outcomes([0.0, 1.0])
    for systems, said in (
        ([], "at least one system, got none"),
        (one, r"got the outcomes of one\. Write \[outcomes\]"),
        ([[one]], "takes Outcomes, one of those that outcomes_of lists, got list"),
    ):
        with pytest.raises(DataError, match=said):
            make(systems)
    with pytest.raises(DataError, match="a paired difference takes Outcomes"):
        paired_difference([one], one, 0)  # type: ignore[arg-type]


def test_the_interval_resamples_instructions_not_judgements():
    # Twenty copies of the same 50 judgements tell nothing new: the interval stays as wide, the plain error does not.
    rng = np.random.default_rng(0)
    credit = rng.integers(0, 2, 50).astype(float)
    names = [f"i{number}" for number in range(50)]
    once = summarize(outcomes(credit, instruction=names), seed=0)
    often = summarize(outcomes(np.tile(credit, 20), instruction=names * 20), seed=0)
    assert often.interval_low == pytest.approx(once.interval_low, abs=1e-12)
    assert often.interval_high == pytest.approx(once.interval_high, abs=1e-12)
    assert once.standard_error is not None
    assert often.standard_error is not None
    assert often.standard_error < once.standard_error / 4


def test_winning_every_time_leaves_room_for_a_loss_not_yet_seen():
    # Clopper-Pearson for 30 of 30: 0.025 ** (1 / 30) = 0.8843.
    record = summarize(outcomes([1.0] * 30), seed=0)
    assert record.interval_low == pytest.approx(0.8843, abs=1e-4)
    assert record.interval_high == 1.0


def test_many_systems_at_once_give_what_each_gives_alone():
    rng = np.random.default_rng(1)
    systems = [outcomes(rng.random(60), system=f"s{number}") for number in range(5)]
    for together, system in zip(summarize_all(systems, seed=3), systems, strict=True):
        assert together.model_dump() == pytest.approx(summarize(system, seed=3).model_dump(), abs=1e-12)


@pytest.mark.parametrize(("rate", "count"), [(0.5, 60), (0.2, 200)])
def test_interval_coverage_of_clustered_win_rates(rate, count):
    # Each instruction has an appeal of its own and three judgements, so judgements of one instruction go together.
    rng = np.random.default_rng(5)
    names = np.repeat([f"i{number}" for number in range(count)], 3)
    covered, trials = 0, 500
    for trial in range(trials):
        appeal = np.repeat(rng.beta(2 * rate, 2 * (1 - rate), count), 3)
        credit = (rng.random(3 * count) < appeal).astype(float)
        record = summarize(outcomes(credit, instruction=names), seed=trial)
        assert record.interval_low is not None
        assert record.interval_high is not None
        covered += record.interval_low <= rate <= record.interval_high
    # 500 trials of a true 95% stay within 0.93 and 0.97 in 96% of cases; the plain error would cover about 80%.
    assert 0.93 <= covered / trials <= 0.97


def test_paired_test_rejects_a_true_hypothesis_in_five_of_a_hundred_cases():
    # Both systems share the instructions' difficulty; neither is better.
    rng = np.random.default_rng(11)
    rejected, covered, trials = 0, 0, 600
    for trial in range(trials):
        difficulty = rng.random(80)
        a = outcomes((rng.random(80) < difficulty).astype(float), system="a")
        b = outcomes((rng.random(80) < difficulty).astype(float), system="b")
        result = paired_difference(a, b, seed=trial)
        rejected += result.p_value < 0.05
        covered += result.interval.low <= 0 <= result.interval.high
    # The bounds are two standard errors of 600 draws at 5% and 95%.
    assert 0.032 <= rejected / trials <= 0.068
    assert 0.932 <= covered / trials <= 0.968


def test_a_planted_difference_is_recovered():
    rng = np.random.default_rng(2)
    draw = rng.random(805)
    result = paired_difference(outcomes(draw < 0.55, system="a"), outcomes(draw < 0.45, system="b"), seed=0)
    assert result.difference == pytest.approx(0.1, abs=0.03)
    assert result.interval.low > 0
    assert result.p_value < 0.001


def test_the_paired_test_uses_shared_instructions_only_and_says_so():
    a = outcomes([1, 1, 1, 0], system="a", instruction=["w", "x", "y", "z"])
    b = outcomes([0, 1, 0, np.nan], system="b", instruction=["x", "y", "v", "z"])
    result = paired_difference(a, b, seed=0)
    # Shared and judged on both sides: x (1 against 0) and y (1 against 1).
    assert (result.shared, result.only_a, result.only_b, result.difference) == (2, 2, 1, 0.5)


def test_systems_of_different_judges_are_not_paired():
    with pytest.raises(DataError, match="one judge and one reference"):
        paired_difference(outcomes([1.0]), outcomes([1.0], judge="k"), seed=0)
