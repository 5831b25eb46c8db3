"""Tables by row: the same values and gradients as a whole table's, delivered as the rows that were touched."""

from __future__ import annotations

import copy

import pytest
import torch

from recdistill.knowledge import table as module
from recdistill.knowledge.table import Table, by_rows, gather_dot, sum_by_id, take
from recdistill.knowledge.vectors import VectorView
from recdistill.query import Query


def tables(*, rows: bool, seed: int = 0) -> tuple[Table, Table]:
    g = torch.Generator().manual_seed(seed)
    user = Table(torch.randn(9, 5, dtype=torch.float64, generator=g))
    item = Table(torch.randn(11, 5, dtype=torch.float64, generator=g))
    user.by_rows = item.by_rows = rows
    return user, item


ROW = torch.tensor([3, 0, 3, 8])
ITEMS = torch.tensor([[1, 10, 1], [2, 1, 5], [10, 10, 0], [4, 4, 4]])


def gradients(*, rows: bool, of) -> list[torch.Tensor]:
    user, item = tables(rows=rows)
    of(user, item).backward()
    return [user.grad, item.grad]


def through_scores(user, item):
    weight = torch.arange(12.0, dtype=torch.float64).view(4, 3)
    return (VectorView(user, item, Query(ROW)).scores(ITEMS) * weight).square().sum()


def through_vectors(user, item):
    view = VectorView(user, item, Query(ROW))
    return (view.vectors().sum(1, keepdim=True) * view.scores(ITEMS)).sum()


def through_shared_candidates(user, item):
    return VectorView(user, item, Query(ROW)).scores_among(torch.tensor([3, 3, 7])).square().sum()


def through_entities(user, item):
    view = VectorView(user, item, Query(ROW))
    both = view.entities("user", torch.tensor([5, 1, 5])).square().sum()
    return both + (view.entities("item", torch.tensor([7, 7])) ** 3).sum()


def through_padding_and_unknown_users(user, item):
    view = VectorView(user, item, Query(torch.tensor([-1, 2])))
    scores = view.scores(torch.tensor([[1, -1], [-1, 4]]))
    return scores[scores > -torch.inf].square().sum()


@pytest.mark.parametrize(
    "of",
    [through_scores, through_vectors, through_shared_candidates, through_entities, through_padding_and_unknown_users],
)
def test_gradients_by_row_are_those_of_the_whole_table(of):
    whole, rows = gradients(rows=False, of=of), gradients(rows=True, of=of)
    for one, other in zip(whole, rows, strict=True):
        assert not one.is_sparse
        assert other.is_sparse
        torch.testing.assert_close(other.to_dense(), one)
        touched = (one != 0).any(1).nonzero()[:, 0]
        assert set(touched.tolist()) <= set(other._indices()[0].tolist())
        assert other._indices().shape[1] < one.shape[0], "rows that nobody touched are not there"


def test_several_questions_of_one_table_add_up():
    def of(user, item):
        return through_scores(user, item) + through_entities(user, item)

    for one, other in zip(gradients(rows=False, of=of), gradients(rows=True, of=of), strict=True):
        torch.testing.assert_close(other.to_dense(), one)


def test_blocks_change_nothing(monkeypatch):
    want = gradients(rows=True, of=through_scores)
    monkeypatch.setattr(module, "_BLOCK", 16)
    for one, other in zip(want, gradients(rows=True, of=through_scores), strict=True):
        torch.testing.assert_close(other.to_dense(), one.to_dense())


@pytest.mark.parametrize("rows", [False, True])
def test_inner_products_pass_a_finite_difference_check(rows):
    vectors = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    leaf = tables(rows=False)[1].detach().requires_grad_()

    def dot(v, t):
        wrapped = Table(t.detach())
        wrapped.by_rows = rows
        return gather_dot(v, wrapped, ITEMS)

    assert torch.autograd.gradcheck(lambda v: dot(v, leaf), vectors)


def test_a_whole_table_is_asked_as_before_bit_for_bit():
    user, item = tables(rows=False)
    view = VectorView(user, item, Query(ROW))
    plain = (item[ITEMS.flatten()].view(4, 3, 5) * user[ROW][:, None]).sum(2)
    assert torch.equal(view.scores(ITEMS), plain)
    assert torch.equal(take(user, ROW), user[ROW])


def test_other_tensors_are_never_sparse():
    plain = torch.randn(4, 2, requires_grad=True)
    take(plain, torch.tensor([1])).sum().backward()
    assert not by_rows(plain)
    assert not plain.grad.is_sparse


def test_sums_by_id():
    ids, sums = sum_by_id(torch.tensor([4, 1, 4]), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert ids.tolist() == [1, 4]
    assert sums.tolist() == [[3.0, 4.0], [6.0, 8.0]]
    ids, sums = sum_by_id(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2))
    assert ids.shape == (0,)
    assert sums.shape == (0, 2)


def test_threads_do_not_change_a_gradient():
    def many():
        g = torch.Generator().manual_seed(3)
        user, item = Table(torch.randn(500, 16, generator=g)), Table(torch.randn(300, 16, generator=g))
        user.by_rows = item.by_rows = True
        row, items = torch.randint(0, 500, (4000,), generator=g), torch.randint(0, 300, (4000, 2), generator=g)
        VectorView(user, item, Query(row)).scores(items).square().sum().backward()
        return user.grad.to_dense(), item.grad.to_dense()

    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(many())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_table_stays_one_through_copies_and_conversions():
    holder = torch.nn.Module()
    holder.t = tables(rows=True)[0]
    assert isinstance(copy.deepcopy(holder).t, Table)
    assert isinstance(holder.to(torch.float32).t, Table)
    holder.load_state_dict({"t": torch.ones(9, 5)})
    assert isinstance(holder.t, Table)
