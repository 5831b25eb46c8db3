"""Tables of vectors, and the two ways a gradient reaches them: whole, or as the rows that a batch touched.

A whole gradient of a million rows costs a million rows a step, however few a batch touches. An optimiser that only
needs the touched rows says so (`by_rows`), and the two questions views ask of a table, `take` and `gather_dot`, then
answer with sparse gradients. Nothing else changes: values are the same, and other tensors are untouched.

Letters: R rows, d dims, m ids, Q queries, n items a query, E = Q * n pairs, D distinct ids.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Table", "by_rows", "gather_dot", "sum_by_id", "take"]

_BLOCK = 1 << 17
"""Floats gathered at a time (512 KiB): they stay in a core's cache between the gather and the product."""
_INT32 = 2**31 - 1


class Table(nn.Parameter):
    """(R, d) vectors, asked by row. A model whose tables are asked only through this module makes them of this kind."""

    by_rows: bool = False
    """Whether `take` and `gather_dot` give sparse gradients; set by the optimiser that reads them."""


def by_rows(table: Tensor) -> bool:
    """Whether a tensor is a table that wants sparse gradients."""
    return isinstance(table, Table) and table.by_rows


def take(table: Tensor, ids: Tensor) -> Tensor:
    """(R, d), (m,) -> (m, d) the rows at `ids`, with a sparse gradient where the table wants one."""
    if by_rows(table):
        return _Take.apply(table, ids)  # pyright: ignore[reportReturnType]
    return table.index_select(0, ids)


def gather_dot(vectors: Tensor, table: Tensor, items: Tensor, *, rows: Tensor | None = None) -> Tensor:
    """Inner products of each query's vector with its own items.

    Args:
        vectors: (Q, d); with `rows`, the table (U, d) they are in.
        table: (R, d)
        items: (Q, n) int64 rows of the table, in [0, R).
        rows: (Q,) int64 rows of `vectors`, in [0, U); None = every row in order.

    Returns:
        (Q, n)
    """
    if by_rows(table):
        return _RowDot.apply(vectors, table, items, rows)  # pyright: ignore[reportReturnType]
    return _GatherDot.apply(vectors if rows is None else take(vectors, rows), table, items)  # pyright: ignore[reportReturnType]


def sum_by_id(ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """(m,) int64, (m, d) -> the distinct ids (D,) ascending, and the sum of each one's rows (D, d)."""
    distinct, begin, order = _grouped(ids)
    return distinct, F.embedding_bag(order, values, begin, mode="sum")


def _grouped(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(m,) -> distinct ids (D,) ascending, where each begins (D,) in the order (m,) that puts equal ones together."""
    ordered, order = torch.sort(ids, stable=True)  # (m,)
    new = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=new[1:])
    begin = new.nonzero()[:, 0]
    return ordered.index_select(0, begin), begin, order


def _rows(ids: Tensor, values: Tensor, size: torch.Size) -> Tensor:
    return torch.sparse_coo_tensor(ids[None], values, size, check_invariants=False)


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> Tensor:  # noqa: ANN401 - untyped in torch
        ctx.save_for_backward(ids)
        ctx.size = table.shape
        return table.index_select(0, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        (ids,) = ctx.saved_tensors
        return _rows(*sum_by_id(ids, grads[0]), ctx.size), None


class _GatherDot(torch.autograd.Function):
    """Nothing of size Q * n * d is made on a CPU: one pass over the table's rows forward, two sums of rows backward."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, items: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(vectors, table, items)
        if _in_place(vectors, table):
            return _dots(vectors, table, items)
        return torch.bmm(_gathered(table, items), vectors[:, :, None])[:, :, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        vectors, table, items = ctx.saved_tensors
        g = grads[0].contiguous()  # (Q, n)
        fast = _in_place(vectors, table)
        of_vectors = of_table = None
        if ctx.needs_input_grad[0]:
            of_vectors = _weighted(table, items, g) if fast else torch.bmm(g[:, None], _gathered(table, items))[:, 0]
        if ctx.needs_input_grad[1] and fast:
            of_table = _scattered(vectors, items, g, table.shape[0])
        elif ctx.needs_input_grad[1]:
            spread = (g[:, :, None] * vectors[:, None]).view(-1, vectors.shape[1])  # (Q * n, d)
            of_table = torch.zeros_like(table).index_add_(0, items.flatten(), spread)
        return of_vectors, of_table, None


def _in_place(vectors: Tensor, table: Tensor) -> bool:
    """Whether the forms that gather nothing exist for these tensors."""
    both = (torch.float32, torch.float64)
    return table.device.type == "cpu" and table.dtype in both and vectors.dtype == table.dtype


def _gathered(table: Tensor, items: Tensor) -> Tensor:
    return table.index_select(0, items.flatten()).view(*items.shape, table.shape[1])  # (Q, n, d)


def _dots(vectors: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """A product of two dense matrices, computed at the (Q, n) places of a pattern: each a dot of its own."""
    (q, n), size = items.shape, (items.shape[0], table.shape[0])
    if q == 0 or n == 0 or n > table.shape[0]:  # a pattern cannot have more places than the matrix
        return torch.bmm(_gathered(table, items), vectors[:, :, None])[:, :, 0]
    _warn_once()
    begin, nothing = torch.arange(0, q * n + 1, n), vectors.new_zeros(q * n)
    pattern = torch.sparse_csr_tensor(begin, items.flatten(), nothing, size=size, check_invariants=False)
    return torch.sparse.sampled_addmm(pattern, vectors, table.T, beta=0.0).values().view(q, n)


@cache
def _warn_once() -> None:
    """Let torch say here, unheard, what it says once in a process: that its compressed matrices are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.zeros(0, dtype=torch.int64), torch.zeros(0), size=(1, 1))


def _weighted(table: Tensor, items: Tensor, weight: Tensor) -> Tensor:
    """(R, d), (Q, n), (Q, n) -> (Q, d) sums of the table's rows."""
    begin = torch.arange(0, items.numel(), items.shape[1]) if items.shape[1] else items.new_zeros(len(items))
    return F.embedding_bag(items.flatten(), table, begin, mode="sum", per_sample_weights=weight.flatten())


def _scattered(vectors: Tensor, items: Tensor, weight: Tensor, size: int) -> Tensor:
    """(Q, d), (Q, n), (Q, n) -> (R, d): every query's vector added to the rows it asked, in the queries' order."""
    flat = items.flatten() if size > _INT32 else items.flatten().int()  # half the width sorts twice as fast
    ordered, order = torch.sort(flat, stable=True)  # (Q * n,)
    begin = torch.zeros(size + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(ordered, minlength=size), 0, out=begin[1:])
    mine = torch.arange(len(items)).repeat_interleave(items.shape[1]).index_select(0, order)
    scale = weight.flatten().index_select(0, order)
    return F.embedding_bag(mine, vectors, begin, mode="sum", per_sample_weights=scale, include_last_offset=True)


class _RowDot(torch.autograd.Function):
    """The same, in blocks, with nothing of size Q * n * d kept: the backward reads the rows again, each once."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, items: Tensor, rows: Tensor | None) -> Tensor:  # noqa: ANN401
        (q, n), d = items.shape, table.shape[1]
        ctx.save_for_backward(vectors, table, items, rows)
        ctx.by_rows = by_rows(vectors)
        step = max(1, _BLOCK // max(n * d, 1))
        right = table.new_empty(min(step, q) * n, d)
        out, ones = table.new_empty(q, n), table.new_ones(d)
        for at in range(0, q, step):
            part = items[at : at + step]
            left = vectors[at : at + step] if rows is None else vectors.index_select(0, rows[at : at + step])
            block = torch.index_select(table, 0, part.flatten(), out=right[: part.numel()])
            block.view(-1, n, d).mul_(left[:, None])
            torch.mv(block, ones, out=out[at : at + step].view(-1))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        # Weighted sums of rows, each in one order: no row is copied, and no thread count changes a sum.
        vectors, table, items, rows = ctx.saved_tensors
        (q, n), flat, g = items.shape, items.flatten(), grads[0]  # (E,), (Q, n)
        of_vectors = of_table = None
        if ctx.needs_input_grad[0] and rows is None:
            begin = torch.arange(0, q * n, n, device=flat.device)
            of_vectors = _bags(flat, table, begin, g.flatten())  # (Q, d)
        elif ctx.needs_input_grad[0]:
            ids, begin, order = _grouped(rows)
            place, weight = items.index_select(0, order).flatten(), g.index_select(0, order).flatten()  # (E,)
            of_vectors = _rows(ids, _bags(place, table, begin.mul_(n), weight), vectors.shape)
            of_vectors = of_vectors if ctx.by_rows else of_vectors.to_dense()
        if ctx.needs_input_grad[1]:
            ids, begin, order = _grouped(flat)
            place = order.div(n, rounding_mode="floor")  # the query of each pair
            place = place if rows is None else rows.index_select(0, place)
            of_table = _rows(ids, _bags(place, vectors, begin, g.flatten().index_select(0, order)), table.shape)
        return of_vectors, of_table, None, None


def _bags(place: Tensor, values: Tensor, begin: Tensor, weight: Tensor) -> Tensor:
    return F.embedding_bag(place, values, begin, mode="sum", per_sample_weights=weight)
