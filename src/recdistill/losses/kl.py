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
    """Keeps the gradient instead of both logits: one (n, I) is alive between the two, and no softmax is made twice."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, forward: bool, tau: float) -> Tensor:  # noqa: ANN401, FBT001
        out = student.new_empty(student.shape[0])
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        for part in _parts(student):
            s, t = _log_softmax(student[part], tau), _log_softmax(teacher[part], tau)
            q, p = s.exp(), t.exp()
            apart = t.sub_(s) if forward else s.sub_(t)
            torch.sum((p if forward else q) * apart, 1, out=out[part])
            if gradient is not None and forward:
                torch.sub(q, p, out=gradient[part])
            elif gradient is not None:
                torch.mul(q, apart.sub_(out[part, None]), out=gradient[part])
        ctx.save_for_backward(gradient)
        ctx.tau = tau
        return out * tau**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        upstream = grads[0] * ctx.tau  # tau^2 of the value, 1 / tau of the logits
        return gradient * upstream[:, None], None, None, None


def _log_softmax(logits: Tensor, tau: float) -> Tensor:
    return (logits if tau == 1 else logits / tau).log_softmax(1)


def _parts(logits: Tensor) -> Iterator[slice]:
    step = max(1, _ROOM // max(logits.shape[1], 1))
    for start in range(0, logits.shape[0], step):
        yield slice(start, start + step)
