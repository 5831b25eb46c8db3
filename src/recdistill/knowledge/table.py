"""Tables of vectors, and the two ways a gradient reaches them: whole, or as the rows that a batch touched.

A whole gradient of a million rows costs a million rows a step, however few a batch touches. An optimiser that only
needs the touched rows says so (`by_rows`), and the two questions views ask of a table, `take` and `gather_dot`, then
answer with sparse gradients. Nothing else changes: values are the same, and other tensors are untouched.

Letters: R rows, d dims, m ids, Q queries, n items a query, E = Q * n pairs, D distinct ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Table", "gather_dot", "sum_by_id", "take"]

_BLOCK = 1 << 17
"""Floats gathered at a time (512 KiB): they stay in a core's cache between the gather and the product."""


class Table(nn.Parameter):
    """(R, d) vectors, asked by row. A model whose tables are asked only through this module makes them of this kind."""

    by_rows: bool = False
    """Whether `take` and `gather_dot` give sparse gradients; set by the optimiser that reads them."""


def take(table: Tensor, ids: Tensor) -> Tensor:
    """(R, d), (m,) -> (m, d) the rows at `ids`, with a sparse gradient where the table wants one."""
    if isinstance(table, Table) and table.by_rows:
        return _Take.apply(table, ids)  # pyright: ignore[reportReturnType]
    return table.index_select(0, ids)


def gather_dot(vectors: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """(Q, d), (R, d), (Q, n) rows of the table, in [0, R) -> (Q, n) inner products."""
    if isinstance(table, Table) and table.by_rows:
        return _RowDot.apply(vectors, table, items)  # pyright: ignore[reportReturnType]
    return _GatherDot.apply(vectors, table, items)  # pyright: ignore[reportReturnType]


def sum_by_id(
    ids: Tensor, values: Tensor, *, place: Tensor | None = None, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Add up what belongs to one id, in the order it stands in.

    Args:
        ids: (m,) int64.
        values: (m, d); with `place`, (any, d).
        place: (m,) the row of `values` that each id takes; None = its own.
        weight: (m,) what that row is multiplied by; None = 1.

    Returns:
        The distinct ids (D,) ascending, and their sums (D, d).
    """
    ordered, order = torch.sort(ids, stable=True)  # (m,)
    new = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=new[1:])
    begin = new.nonzero()[:, 0]  # (D,)
    where = order if place is None else place[order]
    scale = None if weight is None else weight[order]
    # One pass in order over rows that are fetched ahead: none is copied, and no thread count changes a sum.
    return ordered[begin], F.embedding_bag(where, values, begin, mode="sum", per_sample_weights=scale)  # (D, d)


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
    """The backward scatters once into the table; autograd's own form copies the vectors n times to do the same."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, items: Tensor) -> Tensor:  # noqa: ANN401
        rows = table.index_select(0, items.flatten()).view(*items.shape, table.shape[1])  # (Q, n, d)
        ctx.save_for_backward(vectors, rows, items)
        ctx.size = table.shape[0]
        return (rows * vectors[:, None]).sum(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401
        vectors, rows, items = ctx.saved_tensors
        g = grads[0]  # (Q, n)
        of_vectors = of_table = None
        if ctx.needs_input_grad[0]:
            of_vectors = torch.bmm(g[:, None], rows)[:, 0]  # (Q, d)
        if ctx.needs_input_grad[1]:
            spread = (g[:, :, None] * vectors[:, None]).view(-1, vectors.shape[1])  # (Q * n, d)
            of_table = vectors.new_zeros(ctx.size, vectors.shape[1]).index_add_(0, items.flatten(), spread)
        return of_vectors, of_table, None


class _RowDot(torch.autograd.Function):
    """The same, in blocks, with nothing of size Q * n * d kept: the backward reads the table's rows again."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, items: Tensor) -> Tensor:  # noqa: ANN401
        (q, n), d = items.shape, table.shape[1]
        ctx.save_for_backward(vectors, table, items)
        step = max(1, _BLOCK // max(n * d, 1))
        gathered = table.new_empty(min(step, q) * n, d)
        out, ones = table.new_empty(q, n), table.new_ones(d)
        for begin in range(0, q, step):
            part = items[begin : begin + step]
            rows = gathered[: part.numel()]
            torch.index_select(table, 0, part.flatten(), out=rows).view(-1, n, d).mul_(
                vectors[begin : begin + step, None]
            )
            torch.mv(rows, ones, out=out[begin : begin + step].view(-1))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        vectors, table, items = ctx.saved_tensors
        (q, n), flat, g = items.shape, items.flatten(), grads[0].flatten()  # (E,)
        of_vectors = of_table = None
        if ctx.needs_input_grad[0]:
            begin = torch.arange(0, q * n, n, device=flat.device)
            of_vectors = F.embedding_bag(flat, table, begin, mode="sum", per_sample_weights=g)  # (Q, d)
        if ctx.needs_input_grad[1]:
            place = torch.arange(q, device=flat.device).repeat_interleave(n)  # (E,)
            of_table = _rows(*sum_by_id(flat, vectors, place=place, weight=g), table.shape)
        return of_vectors, of_table, None
