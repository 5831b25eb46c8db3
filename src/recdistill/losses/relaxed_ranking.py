"""Relaxed ranking: order the interesting items, keep the uninteresting ones below.

Kang et al., DE-RRD, CIKM 2020, arXiv:2012.04357, the loss of RRD; the likelihood is Plackett-Luce (Xia et al., ICML
2008, ListMLE).

Letters: Q users, K interesting items, L uninteresting items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["relaxed_ranking"]

_SPREAD = 60.0
"""Scores further apart than this go through log-space: e^-60 is still a normal float32, e^-104 is 0."""


def relaxed_ranking(near: Tensor, far: Tensor) -> Tensor:
    """`-sum_k [ a_k - log( sum_{j >= k} e^{a_j} + sum_l e^{b_l} ) ]`.

    The interesting items are always in the teacher's order; the uninteresting ones are in every denominator and are
    never ordered among themselves. (The formula as transcribed starts the second sum at K; it must be K + 1.)

    Args:
        near: (Q, K) student scores of the interesting items, in the teacher's order; -inf = there is no such item.
        far: (Q, L) student scores of the uninteresting items, in any order; -inf = there is no such item.

    Returns:
        (Q,) >= 0; `log((K + L)! / L!)` when all scores are equal, 163.352 at K = L = 40. Finite for any finite scores.
    """
    return _RelaxedRanking.apply(near, far)  # pyright: ignore[reportReturnType]


class _RelaxedRanking(torch.autograd.Function):
    """With D_k the k-th denominator: dL/da_j = [e^{a_j} sum_{k <= j} 1/D_k] - 1, dL/db_l = e^{b_l} sum_k 1/D_k.

    Written out because the graph of the plain form costs three times as much as its arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, near: Tensor, far: Tensor) -> Tensor:  # noqa: ANN401 - torch's own type is untyped
        both = torch.cat([near, far], 1)  # (Q, K + L)
        k = near.shape[1]
        top, low = both.amax(1, keepdim=True), both.amin(1, keepdim=True)  # (Q, 1)
        if bool((top - low).max() < _SPREAD):  # every item is there, and nothing is far away: the usual case
            e = both.sub_(top).exp_()  # (Q, K + L)
            d = e[:, :k].flip(1).cumsum(1).flip(1).add_(e[:, k:].sum(1, keepdim=True))  # (Q, K)
            inverse = d.reciprocal().cumsum_(1)
            ctx.save_for_backward((e[:, :k] * inverse).sub_(1), e[:, k:] * inverse[:, -1:])
            return d.log_().add_(top).sub_(near).sum(1)
        there = near != -torch.inf  # (Q, K); what is not a number is there, and shows
        top = torch.where(top != -torch.inf, top, 0)
        low = torch.where(both != -torch.inf, both, top).amin(1, keepdim=True)
        if bool((top - low).max() < _SPREAD):
            e = (both - top).exp_()  # (Q, K + L)
            below = e[:, k:].sum(1, keepdim=True)
            d = e[:, :k].flip(1).cumsum(1).flip(1).add_(below)  # (Q, K) the denominators over e^top
            d = torch.where(there, d, 1)
            inverse = torch.where(there, 1 / d, 0).cumsum(1)  # (Q, K)
            grad_near = (e[:, :k] * inverse).sub_(there.to(e.dtype))
            grad_far = e[:, k:] * inverse[:, -1:]
            log_d = d.log_().add_(top)
        else:
            z = torch.logsumexp(far, 1, keepdim=True)
            log_d = torch.logaddexp(torch.logcumsumexp(near.flip(1), 1).flip(1), z)  # (Q, K)
            inverse = torch.logcumsumexp(torch.where(there, -log_d, -torch.inf), 1)
            grad_near = torch.where(there, (near + inverse).exp() - 1, 0)
            grad_far = torch.where(far != -torch.inf, (far + inverse[:, -1:]).exp(), 0)
        ctx.save_for_backward(grad_near, grad_far)
        return torch.where(there, log_d - near, 0).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_near, grad_far = ctx.saved_tensors
        upstream = grads[0][:, None]
        return grad_near * upstream, grad_far * upstream
