"""Divergences between all pairs of layers, whose channels are read as distributions, as one matrix product.

With log-probabilities log q_i of student layer i and log p_j of teacher layer j at n positions, the reverse direction
is `sum q_i log q_i - Q log P^T` with Q (S, n C) and log P (T, n C); the forward one is `sum p_j log p_j - log Q P^T`.

Chen et al., AdaRec, arXiv:2107.07173 (official code: channel softmaxes at temperature 1, the reverse direction).

Letters: S student layers, T teacher layers, n positions, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.losses.kl import Direction

__all__ = ["layer_costs", "transported"]


def layer_costs(student: Tensor, teacher: Tensor, *, direction: Direction = "forward") -> Tensor:
    """The cost of every student layer beside every teacher layer, summed over positions.

    Args:
        student: (S, n, C) log-probabilities.
        teacher: (T, n, C) log-probabilities.
        direction: "forward" KL(teacher || student), or "reverse".

    Returns:
        (S, T) >= 0 up to rounding.
    """
    q, p = student.flatten(1), teacher.flatten(1)  # (S, n C), (T, n C)
    if direction == "reverse":
        return (q.exp() * q).sum(1)[:, None] - q.exp() @ p.T
    return (p.exp() * p).sum(1)[None, :] - q @ p.exp().T


def transported(student: Tensor, teacher: Tensor, plan: Tensor, *, direction: Direction = "forward") -> Tensor:
    """`sum_ij F_ij KL_ij` at each position; its sum is `(plan * layer_costs).sum()` at S + T instead of S T passes.

    Args:
        student: (S, n, C) log-probabilities.
        teacher: (T, n, C) log-probabilities.
        plan: (S, T) >= 0; a constant.
        direction: as in `layer_costs`.

    Returns:
        (n,) >= 0 up to rounding.
    """
    if direction == "reverse":
        other = torch.einsum("st,tnc->snc", plan, teacher)  # sum_j F_ij log p_j
        return (student.exp() * (plan.sum(1)[:, None, None] * student - other)).sum((0, 2))
    p = teacher.exp()
    entropy = plan.sum(0) @ (p * teacher).sum(2)  # (n,), negative
    mixed = torch.einsum("st,tnc->snc", plan, p)  # sum_j F_ij p_j, so that the gradient passes S layers alone
    return entropy - (mixed * student).sum((0, 2))
