"""The splits of a source by name: what there is can be had, what there is not is said."""

import pytest

from pasture.core.errors import DataError
from pasture.data.load import load_split

SPLITS = ("pretraining", "sft", "preference", "unlabeled", "validation", "evaluation", "live")  # docs/meadow.md


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_gives_as_many_as_are_asked_for_and_no_number_below_one(split: str) -> None:
    assert len(load_split("meadow", split, 1, seed=0)[0]) == 1
    for count in (0, -1):
        with pytest.raises(DataError, match=f"1 or more, got {count}"):
            load_split("meadow", split, count, seed=0)


def test_an_unknown_split_brings_the_list_of_all() -> None:
    with pytest.raises(DataError, match=f"no split 'eval'. Splits: {', '.join(SPLITS)}"):
        load_split("meadow", "eval", 3, seed=0)
