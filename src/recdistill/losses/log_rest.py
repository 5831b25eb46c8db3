"""The log-sum-exp of a row's scores over everybody but a few, named in flat pairs, of which rows may have any number.

As `losses.cross_entropy.log_partition`, whose list of what is left out is as wide as the longest; here the pairs are
sorted by column once, so that a chunk of columns finds its own in one search.

Letters: P rows, I columns, d dims, p pairs, c columns of a chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["log_rest"]

_SCORES = 1 << 18
"""Scores that exist at a time (1 MiB): they stay in a core's cache."""


def log_rest(vectors: Tensor, table: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """`log sum_{i not left out} e^{<v, q_i>}` for each row.

    Args:
        vectors: (P, d)
        table: (I, d)
        row: (p,) int64 rows of pairs that are left out; a pair may be named twice.
        column: (p,) int64 columns of them.

    Returns:
        (P,); -inf where everything is left out.
    """
    ordered, order = torch.sort(column)
    return _LogRest.apply(vectors, table, row[order], ordered)  # pyright: ignore[reportReturnType]


class _LogRest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, row: Tensor, column: Tensor) -> Tensor:  # noqa: ANN401
        top = vectors.new_full((vectors.shape[0],), -torch.inf)  # (P,) the greatest score so far
        total = torch.zeros_like(top)  # (P,) sum of e^(score - top)
        for _, scores in _chunks(vectors, table, row, column):  # (P, c)
            now = torch.maximum(top, scores.amax(1))
            safe = now.masked_fill(now == -torch.inf, 0)
            total.mul_((top - safe).exp_()).add_(scores.sub_(safe[:, None]).exp_().sum(1))
            top = now
        out = total.log_().add_(top.masked_fill(top == -torch.inf, 0))
        ctx.save_for_backward(vectors, table, row, column, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        vectors, table, row, column, out = ctx.saved_tensors
        of_vectors = torch.zeros_like(vectors) if ctx.needs_input_grad[0] else None
        of_table = torch.empty_like(table) if ctx.needs_input_grad[1] else None
        safe = out.masked_fill(out == -torch.inf, 0)[:, None]
        upstream = grads[0][:, None]
        scaled = vectors * upstream  # (P, d)
        for part, scores in _chunks(vectors, table, row, column):
            weight = scores.sub_(safe).exp_()  # (P, c) shares of the sum
            if of_vectors is not None:
                of_vectors.addmm_(weight, table[part])
            if of_table is not None:
                torch.mm(weight.T, scaled, out=of_table[part])
        return None if of_vectors is None else of_vectors.mul_(upstream), of_table, None, None


def _chunks(vectors: Tensor, table: Tensor, row: Tensor, column: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Every chunk of columns and its scores (P, c), in a buffer that the next one overwrites."""
    n, size = vectors.shape[0], min(max(_SCORES // max(vectors.shape[0], 1), 64), max(table.shape[0], 1))
    room = vectors.new_empty(n * size)
    starts = torch.arange(0, table.shape[0] + size, size, device=column.device)
    begin = torch.searchsorted(column, starts).tolist()
    for k, start in enumerate(range(0, table.shape[0], size)):
        some = table[start : start + size]
        scores = room[: n * some.shape[0]].view(n, some.shape[0])
        torch.mm(vectors, some.T, out=scores)
        mine = slice(begin[k], begin[k + 1])
        if begin[k] < begin[k + 1]:
            scores[row[mine], column[mine] - start] = -torch.inf
        yield slice(start, start + size), scores
