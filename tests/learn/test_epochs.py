"""Batches take every row once, and none is much smaller than the others."""

import pytest

from pasture.learn.epochs import even_minibatches
from pasture.learn.rollouts import minibatches


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    # By hand: as few parts as hold at most `size`, and these as even as whole numbers can be.
    [(129, 128, [64, 65]), (21, 5, [4, 4, 4, 4, 5]), (10, 4, [3, 3, 4]), (8, 4, [4, 4]), (3, 4, [3]), (4, 4, [4])],
)
def test_parts_are_as_few_and_as_even_as_can_be(count: int, size: int, sizes: list[int]):
    first, second = list(even_minibatches(count, size, 1, seed=0)), list(even_minibatches(count, size, 2, seed=0))
    assert sorted(map(len, first)) == sizes
    assert sorted(number for part in first for number in part) == list(range(count))
    assert second[: len(first)] == first
    assert sorted(number for part in second for number in part) == sorted([*range(count)] * 2)


def test_batches_that_come_out_even_anyway_are_the_usual_ones():
    for count, size in ((8, 4), (3, 4), (64, 64)):
        assert list(even_minibatches(count, size, 3, seed=7)) == list(minibatches(count, size, 3, seed=7))
