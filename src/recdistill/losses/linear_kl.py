"""`kl` of two models whose scores are products of vectors: over the whole catalogue, from the vectors.

Some rows at a time have the scores of both models, and what is made of them stays in the cache. The derivatives of the
student's scores are kept for the backward while they are few; where they are not, it computes the scores again.

Letters: n rows, I items, d and e dims of student and teacher, m rows at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from recdistill.losses.kl import divergence, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from recdistill.losses.kl import Direction

__all__ = ["Linear", "linear_kl"]

_SCORES, _ON_GPU = 1 << 20, 1 << 26
"""Scores of a model at a time; one row at least."""
_KEPT = 1 << 28
"""Derivatives that are kept (1 GiB of float32)."""


class Linear(NamedTuple):
    """Scores `<v, q_i>` of rows for every item."""

    vectors: Tensor
    """(n, d)"""
    items: Tensor
    """(I, d)"""

    def first(self, n: int) -> Linear:
        """The scores of the first n items alone."""
        return Linear(self.vectors, self.items[:n])


def linear_kl(
    student: Linear, teacher: Linear, *, direction: Direction = "forward", temperature: float = 1.0
) -> Tensor:
    """`tau^2 KL` of `softmax(scores / tau)`, as `losses.kl.kl` has it.

    Args:
        student: (n, d) and (I, d), which the gradient reaches.
        teacher: (n, e) and (I, e), which it does not reach.
        direction: which distribution the mean is taken under.
        temperature: tau, > 0.

    Returns:
        (n,) >= 0 up to rounding; 0 at equality.
    """
    theirs = Linear(*(each.detach().to(student.vectors.dtype) for each in teacher))
    how = (direction == "forward", temperature)
    return _LinearKL.apply(student.vectors, student.items, theirs, how)  # pyright: ignore[reportReturnType]


class _LinearKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        vectors: Tensor,
        items: Tensor,
        teacher: Linear,
        how: tuple[bool, float],
    ) -> Tensor:
        forward, tau = how
        value = vectors.new_empty(len(vectors))
        few = len(vectors) * len(items) <= _KEPT
        kept = vectors.new_empty(len(vectors), len(items)) if few and any(ctx.needs_input_grad[:2]) else None
        for block, s, t in _scores(vectors, items, teacher, tau):
            learned = None if kept is None else kept[block]
            for part in parts(s):
                into = None if learned is None else learned[part]
                value[block][part] = divergence(s[part], t[part], forward, into)
        ctx.save_for_backward(vectors, items, *teacher[:2], kept)
        ctx.how = how
        return value * tau**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        vectors, items, of_vectors, of_items, kept = ctx.saved_tensors
        forward, tau = ctx.how
        upstream = grads[0][:, None] * tau  # (n, 1): tau^2 of the value, 1 / tau of the scores
        scaled = vectors * upstream  # (n, d)
        needed = ctx.needs_input_grad
        if kept is not None:
            to_vectors = kept @ items * upstream if needed[0] else None
            return to_vectors, kept.T @ scaled if needed[1] else None, None, None
        to_vectors, to_items = torch.empty_like(vectors), torch.zeros_like(items)
        for part, s, t in _scores(vectors, items, Linear(of_vectors, of_items), tau):
            learned = torch.empty_like(s)  # (m, I)
            for some in parts(s):
                divergence(s[some], t[some], forward, learned[some])
            torch.mm(learned, items, out=to_vectors[part])
            to_items.addmm_(learned.T, scaled[part])
        return to_vectors.mul_(upstream), to_items, None, None


def _scores(vectors: Tensor, items: Tensor, teacher: Linear, tau: float) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Parts of the rows with the scores of both models over tau, (m, I), in buffers that the next part overwrites."""
    step = max(1, (_ON_GPU if vectors.is_cuda else _SCORES) // max(len(items), 1))
    ours, theirs = vectors.new_empty(2, min(step, len(vectors)), len(items))
    for start in range(0, len(vectors), step):
        part = slice(start, min(start + step, len(vectors)))
        s = torch.mm(vectors[part], items.T, out=ours[: part.stop - start])
        t = torch.mm(teacher.vectors[part], teacher.items.T, out=theirs[: part.stop - start])
        yield part, s if tau == 1 else s.div_(tau), t if tau == 1 else t.div_(tau)
