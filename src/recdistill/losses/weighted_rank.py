"""A teacher's items as extra positives, each with its weight. Tang & Wang, Ranking Distillation, KDD 2018, eq. 6 and 7.

Letters: Q users, K items a user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from recdistill.order import ascending

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["discrepancy", "position_weights", "weighted_rank"]


def weighted_rank(scores: Tensor, weights: Tensor) -> Tensor:
    """`-sum_r w_r log sigmoid(s_r)`.

    Args:
        scores: (Q, K) student scores of the teacher's items; anything where the weight is 0.
        weights: (Q, K) >= 0, without gradient.

    Returns:
        (Q,) >= 0; `log 2` times the sum of the weights when all scores are 0.
    """
    return (weights * F.softplus(-torch.where(weights > 0, scores, 0))).sum(1)


def position_weights(k: int, sharpness: float, *, like: Tensor) -> Tensor:
    """(K,) `w_r ~ e^(-r / sharpness)` for r = 1..K, with sum 1: the paper's w^a, eq. 8."""
    ranks = torch.arange(1, k + 1, device=like.device, dtype=like.dtype)
    return (-ranks / sharpness).softmax(0)


def discrepancy(student: Tensor, sampled: Tensor, *, n_items: int, steep: float) -> Tensor:
    """How much lower the student ranks each of the teacher's items than the teacher does: the paper's w^b, eq. 9.

    `tanh(max(steep (r' - r), 0))` with the place r (from 1) and r' = 1 + floor((I - 1) #{sampled above} / #sampled).

    Args:
        student: (Q, K) student scores of the teacher's items, in the teacher's order.
        sampled: (Q, D) student scores of items drawn at random; -inf = there is no such item.
        n_items: I.
        steep: mu, > 0.

    Returns:
        (Q, K) in [0, 1).
    """
    ordered = ascending(sampled)  # (Q, D); what is not there comes first
    missing = (sampled == -torch.inf).sum(1, keepdim=True)
    above = sampled.shape[1] - torch.searchsorted(ordered, student.contiguous(), right=True)  # (Q, K)
    count = (sampled.shape[1] - missing).clamp(min=1)
    rank = 1 + torch.floor((n_items - 1) * (above / count))
    place = torch.arange(1, student.shape[1] + 1, device=student.device, dtype=student.dtype)
    return torch.tanh((steep * (rank - place)).clamp(min=0))
