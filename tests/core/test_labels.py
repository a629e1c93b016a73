"""What files say for true and false, as JSON, a CSV and pandas have it."""

import math

import pytest

from pasture.core.labels import truth


@pytest.mark.parametrize(
    ("cell", "means"),
    [
        (True, True), ("True", True), (1, True), (1.0, True), ("1.0", True),
        (False, False), ("false ", False), (0, False), ("0", False),
        (None, None), ("", None), (math.nan, None), ("nan", None), ("null", None),
    ],
)  # fmt: skip
def test_true_and_false_have_several_spellings_and_an_empty_cell_none(cell: object, means: bool | None) -> None:
    assert truth(cell) is means


@pytest.mark.parametrize("cell", [2, -1, "yes", "first", [True]])
def test_what_says_neither_is_refused(cell: object) -> None:
    with pytest.raises(ValueError, match="is neither true nor false"):
        truth(cell)
