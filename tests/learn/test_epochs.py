"""Batches take every row once an epoch, each time in another order; even ones, none much smaller than the others."""

import pytest

from pasture.learn.epochs import Epochs
from pasture.learn.rollouts import minibatches


def in_epochs(seed):
    epochs = Epochs(row_count=10, batch_size=4, epochs=3, seed=seed, name="batches")
    return [epochs.rows(step) for step in range(epochs.total_steps)]


BATCHES = {
    "epochs": in_epochs,
    "minibatches": lambda seed: list(minibatches(10, 4, 3, seed)),
}


@pytest.mark.parametrize("batches", BATCHES.values(), ids=BATCHES)
def test_every_epoch_takes_all_rows_once_in_an_order_of_its_own(batches):
    rows = [row for batch in batches(seed=0) for row in batch]
    orders = [rows[:10], rows[10:20], rows[20:]]
    assert [sorted(order) for order in orders] == [list(range(10))] * 3
    assert len({tuple(order) for order in orders}) == 3
    assert batches(seed=0) == batches(seed=0) != batches(seed=1)


def test_the_last_batch_of_an_epoch_may_be_smaller():
    # By hand: 10 rows by 4, three times.
    assert [len(batch) for batch in in_epochs(seed=0)] == [4, 4, 2] * 3


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    # By hand: as few parts as hold at most `size`, and these as even as whole numbers can be.
    [(129, 128, [64, 65]), (21, 5, [4, 4, 4, 4, 5]), (10, 4, [3, 3, 4]), (8, 4, [4, 4]), (3, 4, [3]), (4, 4, [4])],
)
def test_parts_are_as_few_and_as_even_as_can_be(count: int, size: int, sizes: list[int]):
    first, second = list(minibatches(count, size, 1, seed=0)), list(minibatches(count, size, 2, seed=0))
    assert sorted(map(len, first)) == sizes
    assert sorted(number for part in first for number in part) == list(range(count))
    assert second[: len(first)] == first
    assert sorted(number for part in second for number in part) == sorted([*range(count)] * 2)
