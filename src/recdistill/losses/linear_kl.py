"""`kl` of two models whose scores are products of vectors: over the whole catalogue, from the vectors.

Some rows at a time have the scores of both models, and what is made of them stays in the cache. The derivatives of the
student's scores are kept for the backward while they are few; where they are not, it computes the scores again.

Letters: n rows, I items, d and e dims of student and teacher, m rows at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from recdistill.losses.kl import Direction

__all__ = ["Linear", "linear_kl"]

_SCORES, _SOME = 1 << 20, 1 << 17
"""Scores of a model at a time (4 MiB of float32), and of these what the softmaxes take at a time; one row at least."""
_ON_GPU = 1 << 26
"""Both, there."""
_KEPT = 1 << 28
"""Derivatives that are kept (1 GiB of float32)."""


class Linear(NamedTuple):
    """Scores `<v, q_i>` of rows for every item."""

    vectors: Tensor
    """(n, d)"""
    items: Tensor
    """(I, d)"""


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
    theirs = Linear(teacher.vectors.detach(), teacher.items.detach())
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
        for part, s, t in _scores(vectors, items, teacher, tau):
            value[part] = _softmaxes(s, t, forward, None if kept is None else kept[part])
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
        if kept is not None:
            return kept @ items * upstream, kept.T @ scaled, None, None
        to_vectors, to_items = torch.empty_like(vectors), torch.zeros_like(items)
        for part, s, t in _scores(vectors, items, Linear(of_vectors, of_items), tau):
            learned = torch.empty_like(s)  # (m, I)
            _softmaxes(s, t, forward, learned)
            torch.mm(learned, items, out=to_vectors[part])
            to_items.addmm_(learned.T, scaled[part])
        return to_vectors.mul_(upstream), to_items, None, None


def _scores(vectors: Tensor, items: Tensor, teacher: Linear, tau: float) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Parts of the rows with the scores of both models over tau, (m, I), in buffers that the next part overwrites."""
    step = max(1, (_ON_GPU if vectors.is_cuda else _SCORES) // max(len(items), 1))
    ours, theirs = vectors.new_empty(2, step, len(items))
    for start in range(0, len(vectors), step):
        part = slice(start, min(start + step, len(vectors)))
        s = torch.mm(vectors[part], items.T, out=ours[: part.stop - start])
        t = torch.mm(teacher.vectors[part], teacher.items.T, out=theirs[: part.stop - start])
        yield part, s if tau == 1 else s.div_(tau), t if tau == 1 else t.div_(tau)


def _softmaxes(s: Tensor, t: Tensor, forward: bool, learned: Tensor | None) -> Tensor:  # noqa: FBT001
    """(m, I) scores of student and teacher, overwritten -> (m,) KL; its derivative by s goes into `learned` (m, I)."""
    out = s.new_empty(len(s))
    step = max(1, (_ON_GPU if s.is_cuda else _SOME) // max(s.shape[1], 1))
    for start in range(0, len(s), step):
        some = slice(start, start + step)
        (q, of_q), (p, of_p) = _exponentials(s[some]), _exponentials(t[some])
        shift = of_q.log() - of_p.log()  # log p - log q = t - s + shift
        apart = t[some].sub_(s[some])
        if forward:
            out[some] = torch.linalg.vecdot(p, apart).div_(of_p).add_(shift)
        else:
            out[some] = torch.linalg.vecdot(q, apart).div_(of_q).add_(shift).neg_()
        if learned is None:
            continue
        q.div_(of_q[:, None])
        if forward:
            torch.sub(q, p.div_(of_p[:, None]), out=learned[some])
        else:  # q (log q - log p - KL)
            torch.mul(q, apart.add_((shift + out[some])[:, None]).neg_(), out=learned[some])
    return out


def _exponentials(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(m, I), from which the greatest of each row is taken -> (m, I) their exponentials, and (m,) the sums of these."""
    found = scores.sub_(scores.amax(1, keepdim=True)).exp()
    return found, found.sum(1)
