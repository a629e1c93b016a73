"""Batches and padding, against rows laid out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pasture.models.batches import grouped_batches, pad_left, pad_right, positions, token_budget_batches


def test_batches_are_sorted_and_within_the_budget():
    # By hand: sorted lengths are 1 (row 1), 2 (row 3), 3 (rows 0 and 4), 9 (row 2); 2x2 fits 6, 3x3 does not.
    assert token_budget_batches([3, 1, 9, 2, 3], budget=6) == [[1, 3], [0, 4], [2]]


def test_a_budget_of_no_token_is_refused():
    with pytest.raises(ValueError, match="at least one token, got 0"):
        token_budget_batches([1], budget=0)


@given(st.lists(st.integers(0, 50)), st.integers(1, 200))
def test_every_row_is_in_one_batch_and_only_lone_rows_pass_the_budget(lengths, budget):
    batches = token_budget_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


def test_rows_of_a_key_are_together_where_they_fit():
    # By hand, budget 12: "a" and "b" fit into 3 x 4; of "c" two rows of 5 fit, the third is alone.
    keys, lengths = ["a", "c", "b", "a", "c", "c"], [4, 5, 3, 2, 5, 5]
    assert grouped_batches(keys, lengths, budget=12) == [[2, 3, 0], [1, 4], [5]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50))), st.integers(1, 200))
def test_grouped_batches_hold_every_row_within_the_budget_and_rows_without_company_as_ever(rows, budget):
    keys, lengths = [key for key, _ in rows], [length for _, length in rows]
    batches = grouped_batches(keys, lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
    assert grouped_batches(range(len(lengths)), lengths, budget) == token_budget_batches(lengths, budget)


def test_padding_goes_to_the_named_side():
    right_BT, right_mask_BT = pad_right([[5, 6, 7], [8]], pad_id=0)
    left_BT, left_mask_BT = pad_left([[5, 6, 7], [8]], pad_id=0)
    assert right_BT.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert right_mask_BT.tolist() == [[True, True, True], [True, False, False]]
    assert left_BT.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert left_mask_BT.tolist() == [[True, True, True], [False, False, True]]


def test_a_pad_id_inside_a_row_is_a_token():
    assert pad_right([[0, 5], [1]], pad_id=0)[1].tolist() == [[True, True], [True, False]]


def test_no_rows_and_empty_rows_have_shapes():
    assert pad_right([], pad_id=0)[0].shape == (0, 0)
    assert pad_left([[], []], pad_id=0)[0].shape == (2, 0)


def test_positions_count_own_tokens_from_zero():
    mask_BT = torch.tensor([[False, False, True, True], [True, True, True, False]])
    assert positions(mask_BT).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]
