import numpy as np
import pytest
import torch

from pasture.formulas.masks import (
    masked_mean,
    masked_sum,
    prediction_mask,
    rescale,
    response_mask,
    row_sums,
    standardize,
    zero_masked,
)
from tests.formulas import oracles
from tests.formulas.batches import GARBAGE, normal, ragged_mask, with_garbage

SEEDS = range(5)


def test_response_mask_is_true_from_the_first_answer_token_to_the_end_token():
    # By hand: prompts of 2, 1, 3 tokens, rows of 4, 4, 3 tokens (the last has no answer), width 5.
    mask = response_mask(torch.tensor([2, 1, 3]), torch.tensor([4, 4, 3]), 5)
    assert mask.int().tolist() == [[0, 0, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_last_prompt_token_predicts_the_first_answer_token():
    # By hand: answer tokens at 2 and 3 are predicted at 1 and 2.
    mask = prediction_mask(torch.tensor([[False, False, True, True, False]]))
    assert mask.int().tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize("filler", GARBAGE)
@pytest.mark.parametrize("seed", SEEDS)
def test_sums_and_means_match_plain_loops_whatever_the_pads_hold(seed, filler):
    mask, values = ragged_mask(seed), normal(seed, 7, 11)
    x, kept = with_garbage(values, mask, filler), torch.from_numpy(mask)
    assert float(masked_sum(x, kept)) == pytest.approx(sum(oracles.unmasked(values, mask)), abs=1e-12)
    assert float(masked_mean(x, kept)) == pytest.approx(oracles.mean(values, mask), abs=1e-12)


@pytest.mark.parametrize("filler", GARBAGE)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("function", "keep_mean"), [(standardize, False), (rescale, True)])
def test_whitening_matches_plain_loops_and_pads_come_back_as_zero(seed, filler, function, keep_mean):
    mask, values = ragged_mask(seed), 3 * normal(seed, 7, 11) + 2
    result = function(with_garbage(values, mask, filler), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(result, oracles.whiten(values, mask, keep_mean=keep_mean), atol=1e-12)
    assert np.all(result[~mask] == 0.0)


def test_standardized_entries_have_mean_zero_and_variance_one_and_rescaled_ones_keep_their_mean():
    mask, values = ragged_mask(3), 3 * normal(3, 7, 11) + 2
    x, kept = torch.from_numpy(values), torch.from_numpy(mask)
    standard, scaled = standardize(x, kept).numpy()[mask], rescale(x, kept).numpy()[mask]
    assert standard.mean() == pytest.approx(0.0, abs=1e-9)
    assert standard.var() == pytest.approx(1.0, abs=1e-6)
    assert scaled.mean() == pytest.approx(values[mask].mean(), abs=1e-9)
    assert scaled.var() == pytest.approx(1.0, abs=1e-6)


def test_equal_entries_standardize_to_zero_rather_than_nan():
    kept = torch.tensor([[True, True, True, False]])
    assert standardize(torch.full((1, 4), 5.0), kept).tolist() == [[0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("filler", GARBAGE)
def test_masked_entries_get_no_gradient(filler):
    x = torch.tensor([[1.0, filler, 2.0]], requires_grad=True)
    [gradient] = torch.autograd.grad(masked_mean(x, torch.tensor([[True, False, True]])), [x])
    assert gradient.tolist() == [[0.5, 0.0, 0.5]]


def test_zero_masked_keeps_the_rest():
    x = torch.tensor([[1.0, float("nan")]])
    assert zero_masked(x, torch.tensor([[True, False]])).tolist() == [[1.0, 0.0]]


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1 unmasked"):
        masked_mean(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool))


def test_whitening_one_entry_is_refused():
    with pytest.raises(ValueError, match="at least 2 unmasked"):
        standardize(torch.ones(1, 2), torch.tensor([[True, False]]))


def test_a_mask_of_another_shape_is_refused_while_tests_run():
    with pytest.raises(Exception, match="Type-check error"):
        masked_mean(torch.ones(2, 3), torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize("seed", SEEDS)
def test_row_sums_match_plain_loops_and_a_row_without_values_sums_to_nothing(seed):
    mask, values = ragged_mask(seed), normal(seed, 7, 11)
    mask[3] = False
    expected = [
        sum(v for v, kept in zip(row, inside, strict=True) if kept) for row, inside in zip(values, mask, strict=True)
    ]
    found = row_sums(torch.from_numpy(values[mask]), torch.from_numpy(mask))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[3] == 0.0
