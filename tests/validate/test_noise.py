"""What noise and numbers do to a pool; drawn labels, hand arithmetic and the measured definitions are the oracles."""

import json

import numpy as np
import pytest

from pasture.core.errors import DataError
from pasture.core.statistics import Floats
from pasture.validate.noise import flipped_agreement, noise_ablation, variance_of_labels


def pool(seed: int = 0) -> tuple[Floats, Floats]:
    """Thirteen annotators who are right in 55 to 79 of 100 cases, and three people, on 400 pairs."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 2, 400).astype(np.float64)
    skill = np.linspace(0.55, 0.79, 13)[:, None]
    labels = np.where(generator.random((13, 400)) < skill, truth, 1 - truth)
    people = np.where(generator.random((400, 3)) < 0.8, truth[:, None], 1 - truth[:, None])
    return labels, people


def test_a_quarter_of_flips_halves_the_distance_to_a_coin() -> None:
    assert flipped_agreement(0.65, 0.25) == pytest.approx(0.575)  # 0.65 * 0.75 + 0.35 * 0.25
    assert flipped_agreement(0.65, 0.5) == 0.5


def test_variance_is_a_half_for_coins_and_nothing_for_one_voice() -> None:
    assert variance_of_labels(np.array([0.0, 0.5, 1.0])).tolist() == [0.0, 0.5, 0.0]
    # p = 0.8: three others prefer the second with 3 * 0.64 - 2 * 0.512 = 0.896; 0.8 * 0.104 + 0.2 * 0.896 = 0.2624.
    assert variance_of_labels(np.array(0.8)) == pytest.approx(0.2624)


@pytest.mark.parametrize("flip", [0.0, 0.25])
def test_the_expected_figures_are_those_of_labels_that_are_drawn(flip: float) -> None:
    labels, people = pool()
    (point,) = noise_ablation(labels, people, [flip], [13], 0)
    generator = np.random.default_rng(1)
    gold = (people.mean(axis=1) > 0.5).astype(np.float64)
    drawn = np.stack([labels[generator.integers(0, 13, 400), np.arange(400)] for _ in range(4 * 500)])
    drawn = np.where(generator.random(drawn.shape) < flip, 1 - drawn, drawn).reshape(500, 4, 400)
    assert point.agreement.value == pytest.approx((drawn == gold).mean(), abs=0.004)
    rest = (drawn.sum(axis=1, keepdims=True) - drawn) > 1.5
    assert point.variance.value == pytest.approx((drawn != rest).mean(), abs=0.004)


def test_noise_costs_agreement_and_adds_variance_but_no_bias() -> None:
    labels, people = pool()
    points = noise_ablation(labels, people, [0.0, 0.1, 0.25, 0.5], [13], 0)
    agreement = [point.agreement.value for point in points]
    assert agreement == pytest.approx([flipped_agreement(agreement[0], flip) for flip in (0.0, 0.1, 0.25, 0.5)])
    assert [point.variance.value for point in points] == sorted(point.variance.value for point in points)
    assert points[-1].variance.value == pytest.approx(0.5)
    assert len({point.bias.value for point in points}) == 1


def test_one_annotator_has_no_variance_and_more_have_less_bias() -> None:
    labels, people = pool()
    one, three, all_of_them = noise_ablation(labels, people, [0.0], [1, 3, 13], 0)
    assert one.variance.value == 0.0
    assert 0 < three.variance.value < all_of_them.variance.value
    assert one.bias.value > three.bias.value > all_of_them.bias.value
    # One label of one annotator is as often right as one of the pool, whatever the pool's size.
    assert one.agreement.value == pytest.approx(all_of_them.agreement.value)
    assert three.agreement.value == pytest.approx(all_of_them.agreement.value, abs=1e-9)


def test_missing_labels_leave_no_trace_and_the_point_is_json() -> None:
    labels, people = pool()
    labels[:, 7] = np.nan
    kept = np.delete(np.arange(400), 7)
    with_gap = noise_ablation(labels, people, [0.1], [5], 0)[0]
    without = noise_ablation(labels[:, kept], people[kept], [0.1], [5], 0)[0]
    assert with_gap.agreement.value == pytest.approx(without.agreement.value)
    json.dumps(with_gap.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("flips", "counts", "pairs", "message"),
    [
        ([0.6], [1], 400, "between 0 and 1/2"),
        ([0.1], [14], 400, "between 1 and 13"),
        ([0.1], [1], 399, "400 pairs, people 399"),
    ],
)
def test_impossible_settings_are_refused(flips: list[float], counts: list[int], pairs: int, message: str) -> None:
    labels, people = pool()
    with pytest.raises(DataError, match=message):
        noise_ablation(labels, people[:pairs], flips, counts, 0)
