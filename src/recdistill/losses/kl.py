"""Kullback-Leibler divergence of two softmaxes, in either direction.

"forward" is KL(teacher || student), what distillation means (Hinton et al., 2015, arXiv:1503.02531); "reverse" is
KL(student || teacher), what AdaRec's official code computes by calling its helper with swapped arguments (Chen et al.,
arXiv:2107.07173).

Letters: n rows, I items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

__all__ = ["Direction", "divergence", "kl", "parts"]

Direction = Literal["forward", "reverse"]

_ROOM, _ON_GPU = 1 << 17, 1 << 26
"""Logits at a time: on a CPU, what is made of them stays in the cache."""


def kl(student: Tensor, teacher: Tensor, *, direction: Direction = "forward", temperature: float = 1.0) -> Tensor:
    """`tau^2 KL` of `softmax(logits / tau)`; tau^2 keeps the gradients' size (Hinton et al.).

    The gradient reaches the student alone.

    Args:
        student: (n, I) logits.
        teacher: (n, I) logits.
        direction: which distribution the mean is taken under.
        temperature: tau, > 0.

    Returns:
        (n,) >= 0 up to rounding; 0 at equality, and for logits that differ by a constant.
    """
    return _KL.apply(student, teacher.detach().to(student.dtype), direction == "forward", temperature)  # pyright: ignore[reportReturnType]


class _KL(torch.autograd.Function):
    """Keeps the gradient instead of both logits: one (n, I) is alive between the two, and no softmax is made twice."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, forward: bool, tau: float) -> Tensor:  # noqa: ANN401, FBT001
        out = student.new_empty(len(student))
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        for part in parts(student):
            learned = None if gradient is None else gradient[part]
            out[part] = divergence(student[part] / tau, teacher[part] / tau, forward, learned)
        ctx.save_for_backward(gradient)
        ctx.tau = tau
        return out * tau**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        upstream = grads[0] * ctx.tau  # tau^2 of the value, 1 / tau of the logits
        return gradient * upstream[:, None], None, None, None


def parts(logits: Tensor) -> Iterator[slice]:
    """Rows of (n, I) to take at a time; one at least."""
    step = max(1, (_ON_GPU if logits.is_cuda else _ROOM) // max(logits.shape[1], 1))
    for start in range(0, len(logits), step):
        yield slice(start, min(start + step, len(logits)))


def divergence(s: Tensor, t: Tensor, forward: bool, learned: Tensor | None) -> Tensor:  # noqa: FBT001
    """(m, I) logits of student and teacher, overwritten -> (m,) KL; its derivative by s goes into `learned` (m, I)."""
    (q, of_q), (p, of_p) = _exponentials(s), _exponentials(t)
    shift = of_q.log() - of_p.log()  # log p - log q = t - s + shift
    apart = t.sub_(s)
    if forward:
        out = torch.linalg.vecdot(p, apart).div_(of_p).add_(shift)
    else:
        out = torch.linalg.vecdot(q, apart).div_(of_q).add_(shift).neg_()
    if learned is not None:
        q.div_(of_q[:, None])
        if forward:
            torch.sub(q, p.div_(of_p[:, None]), out=learned)
        else:  # q (log q - log p - KL)
            torch.mul(q, apart.add_((shift + out)[:, None]).neg_(), out=learned)
    return out


def _exponentials(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(m, I), from which the greatest of each row is taken -> (m, I) their exponentials, and (m,) the sums of these."""
    found = scores.sub_(scores.amax(1, keepdim=True)).exp()
    return found, found.sum(1)
