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

__all__ = ["Direction", "kl"]

Direction = Literal["forward", "reverse"]

_ROOM = 1 << 19
"""Logits at a time (2 MiB of float32): what is made of them stays in the cache."""


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
    return _KL.apply(student, teacher.detach(), direction == "forward", temperature)  # pyright: ignore[reportReturnType]


class _KL(torch.autograd.Function):
    """Keeps the logits and computes both softmaxes again: no third and fourth (n, I) are alive between the two."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, forward: bool, tau: float) -> Tensor:  # noqa: ANN401, FBT001
        out = student.new_empty(student.shape[0])
        for part in _parts(student):
            s, t = _log_softmax(student[part], tau), _log_softmax(teacher[part], tau)
            over, under = (t, s) if forward else (s, t)
            torch.sum(over.exp() * over.sub_(under), 1, out=out[part])
        ctx.save_for_backward(student, teacher, out)
        ctx.forward_kl, ctx.tau = forward, tau
        return out * tau**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        student, teacher, out = ctx.saved_tensors
        of_student = torch.empty_like(student)
        upstream = grads[0] * ctx.tau  # tau^2 of the value, 1 / tau of the logits
        for part in _parts(student):
            s, t = _log_softmax(student[part], ctx.tau), _log_softmax(teacher[part], ctx.tau)
            found = _towards(s, t) if ctx.forward_kl else _away(s, t, out[part])
            torch.mul(found, upstream[part, None], out=of_student[part])
        return of_student, None, None, None


def _towards(s: Tensor, t: Tensor) -> Tensor:
    """(n, I) q - p, of log q and log p, in place."""
    return s.exp_().sub_(t.exp_())


def _away(s: Tensor, t: Tensor, value: Tensor) -> Tensor:
    """(n, I) q (log q - log p - KL), likewise."""
    apart = t.neg_().add_(s).sub_(value[:, None])
    return s.exp_().mul_(apart)


def _log_softmax(logits: Tensor, tau: float) -> Tensor:
    return (logits if tau == 1 else logits / tau).log_softmax(1)


def _parts(logits: Tensor) -> Iterator[slice]:
    step = max(1, _ROOM // max(logits.shape[1], 1))
    for start in range(0, logits.shape[0], step):
        yield slice(start, start + step)
