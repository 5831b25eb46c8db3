"""Cross-entropy over the whole catalogue, exact, with nothing of size rows x items: value and gradient chunk by chunk.

The log-sum-exp is accumulated on line over chunks of items (Milakov & Gimelshein, 2018, arXiv:1805.02867, algorithm 3);
the backward computes each chunk's scores again, as in Wijmans et al., ICLR 2025, arXiv:2411.09009, but keeps every
gradient. A chunk's scores are the only thing of two large sides that ever exists.

Letters: P rows, I items, d dims, c items a chunk, n left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["cross_entropy", "log_partition"]

_SCORES, _ON_GPU = 1 << 18, 1 << 22
"""Scores that exist at a time: 1 MiB of float32 stays in a core's cache; 16 MiB on a GPU."""


def cross_entropy(vectors: Tensor, items: Tensor, target: Tensor, *, chunk: int | None = None) -> Tensor:
    """`-log( e^{<v, q_target>} / sum_i e^{<v, q_i>} )` for each row.

    Args:
        vectors: (P, d)
        items: (I, d); a bias is one more dimension, against a 1 in `vectors`.
        target: (P,) int64 rows of `items`.
        chunk: c, items at a time; as many as suit the device when None.

    Returns:
        (P,) >= 0; `log I` when all scores are equal.
    """
    return log_partition(vectors, items, chunk=chunk) - (vectors * items.index_select(0, target)).sum(1)


def log_partition(vectors: Tensor, items: Tensor, *, without: Tensor | None = None, chunk: int | None = None) -> Tensor:
    """`log sum_i e^{<v, q_i>}` for each row.

    Args:
        vectors: (P, d)
        items: (I, d)
        without: (P, n) int64 rows of `items` that a row's sum leaves out, -1 = none.
        chunk: as in `cross_entropy`.

    Returns:
        (P,); -inf where everything is left out.
    """
    room = _ON_GPU if vectors.is_cuda else _SCORES
    size = max(1, min(chunk or max(room // max(vectors.shape[0], 1), 64), items.shape[0]))
    return _LogPartition.apply(vectors, items, without, size)  # pyright: ignore[reportReturnType]


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, items: Tensor, without: Tensor | None, size: int) -> Tensor:  # noqa: ANN401
        top = vectors.new_full((vectors.shape[0],), -torch.inf)  # (P,) the greatest score so far
        total = torch.zeros_like(top)  # (P,) sum of e^(score - top)
        for _, scores in _chunks(vectors, items, without, size):  # (P, c)
            now = torch.maximum(top, scores.amax(1))
            safe = now.masked_fill(now == -torch.inf, 0)
            total.mul_((top - safe).exp_()).add_(scores.sub_(safe[:, None]).exp_().sum(1))
            top = now
        out = total.log_().add_(top.masked_fill(top == -torch.inf, 0))
        ctx.save_for_backward(vectors, items, without, out)
        ctx.size = size
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        vectors, items, without, out = ctx.saved_tensors
        of_vectors = torch.zeros_like(vectors) if ctx.needs_input_grad[0] else None
        of_items = torch.empty_like(items) if ctx.needs_input_grad[1] else None
        safe = out.masked_fill(out == -torch.inf, 0)[:, None]
        for part, scores in _chunks(vectors, items, without, ctx.size):
            weight = scores.sub_(safe).exp_().mul_(grads[0][:, None])  # (P, c) softmax times upstream
            if of_vectors is not None:
                of_vectors.addmm_(weight, items[part])
            if of_items is not None:
                torch.mm(weight.T, vectors, out=of_items[part])
        return of_vectors, of_items, None, None


def _chunks(vectors: Tensor, items: Tensor, without: Tensor | None, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Every chunk of items and its scores (P, c), in a buffer that the next one overwrites."""
    room = vectors.new_empty(vectors.shape[0] * size)
    for start in range(0, items.shape[0], size):
        some = items[start : start + size]
        scores = room[: vectors.shape[0] * some.shape[0]].view(vectors.shape[0], some.shape[0])
        torch.mm(vectors, some.T, out=scores)
        if without is not None:
            row, place = ((without >= start) & (without < start + some.shape[0])).nonzero(as_tuple=True)
            scores[row, without[row, place] - start] = -torch.inf
        yield slice(start, start + some.shape[0]), scores
