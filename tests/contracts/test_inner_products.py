"""Inner products of gathered rows: equal to the plain form, and so are their gradients, whatever the shapes."""

from __future__ import annotations

import pytest
import torch

from recdistill.knowledge.table import gather_dot


@pytest.mark.parametrize(("queries", "n", "rows"), [(5, 4, 9), (5, 40, 9), (1, 1, 1), (0, 3, 9), (4, 0, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients_are_those_of_the_plain_form(queries, n, rows, dtype):
    generator = torch.Generator().manual_seed(queries + n)
    vectors = torch.randn(queries, 3, generator=generator).to(dtype).requires_grad_()
    table = torch.randn(rows, 3, generator=generator).to(dtype).requires_grad_()
    items = torch.randint(rows, (queries, n), generator=generator)  # repeats within a query, too
    upstream = torch.randn(queries, n, generator=generator).to(dtype)
    near = {"rtol": 2e-2, "atol": 5e-2} if dtype is torch.bfloat16 else {}
    found = gather_dot(vectors, table, items)
    plain = (table[items] * vectors[:, None]).sum(2)
    torch.testing.assert_close(found, plain, **near)
    for one, other in zip(
        torch.autograd.grad(found, (vectors, table), upstream),
        torch.autograd.grad(plain, (vectors, table), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, **near)


@pytest.mark.parametrize("which", [0, 1])
def test_a_side_that_needs_no_gradient_gets_none(which):
    sides = [torch.randn(4, 3), torch.randn(6, 3)]
    sides[which].requires_grad_()
    gather_dot(*sides, torch.tensor([[0, 5], [1, 1], [2, 3], [5, 4]])).sum().backward()
    assert sides[which].grad is not None
    assert sides[1 - which].grad is None


def test_what_is_gathered_from_a_part_of_a_table_of_another_stride_is_the_same():
    wide = torch.randn(9, 6)
    vectors, table = torch.randn(4, 3), wide[:, ::2]
    items = torch.randint(9, (4, 5))
    torch.testing.assert_close(gather_dot(vectors, table, items), (table[items] * vectors[:, None]).sum(2))
    torch.testing.assert_close(gather_dot(vectors, table, items.T.contiguous().T), gather_dot(vectors, table, items))
