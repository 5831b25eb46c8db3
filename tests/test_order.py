"""Order within rows: what torch's stable sorts say, faster."""

from __future__ import annotations

import pytest
import torch

from recdistill.order import ascending, best_first, places, sorted_items


def test_places_count_from_the_greatest_and_ties_stand_by_column():
    assert places(torch.tensor([[1.0, 5.0, 1.0, 7.0]])).tolist() == [[2, 1, 3, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_scores_stand_as_in_torchs_stable_sort(dtype: torch.dtype):
    scores = torch.randn(50, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    scores[:, 3], scores[:, 7], scores[:, 9] = -torch.inf, scores[:, 2], 0.0
    scores[:, 11], scores[:, 12] = -0.0, torch.inf
    assert torch.equal(best_first(scores), scores.argsort(dim=1, descending=True, stable=True))


def test_a_transposed_table_is_read_by_its_rows():
    scores = torch.randn(9, 6, generator=torch.Generator().manual_seed(2))
    assert torch.equal(best_first(scores.T), scores.T.argsort(dim=1, descending=True, stable=True))
    assert torch.equal(ascending(scores.T), scores.T.sort(dim=1).values)


def test_items_stand_with_their_columns_and_none_first():
    items = torch.randint(-1, 5, (30, 12), generator=torch.Generator().manual_seed(3))
    items[0, 4], items[1, 2] = 2**32 - 1, -(2**32)
    ordered, column = sorted_items(items)
    expected = items.sort(dim=1, stable=True)
    assert torch.equal(ordered, expected.values)
    assert torch.equal(column, expected.indices)


def test_what_is_not_a_number_comes_first_whatever_its_sign():
    scores = torch.tensor([[1.0, torch.nan, torch.inf, -torch.nan]])
    assert best_first(scores).tolist() == [[1, 3, 2, 0]]


def test_narrow_kinds_of_numbers_are_sorted_too():
    ordered, column = sorted_items(torch.tensor([[7, 70_000, -1]], dtype=torch.int32))
    assert (ordered.tolist(), column.tolist()) == ([[-1, 7, 70_000]], [[2, 0, 1]])
    assert ascending(torch.tensor([[3.0, 1.0]], dtype=torch.bfloat16)).tolist() == [[1.0, 3.0]]


def test_nothing_is_changed_and_no_gradient_kept():
    scores = torch.tensor([[2.0, 1.0]], requires_grad=True)
    assert not ascending(scores).requires_grad
    assert scores.tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_rows_stay_empty(shape: tuple[int, int]):
    assert ascending(torch.zeros(shape)).shape == best_first(torch.zeros(shape)).shape == shape
    assert places(torch.zeros(shape)).shape == sorted_items(torch.zeros(shape, dtype=torch.int64))[0].shape == shape
