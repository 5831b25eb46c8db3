"""The teacher's softmax over chosen items against the student's. Hinton et al., 2015, arXiv:1503.02531.

Letters: Q users, n items a user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["soft_ranking"]


def soft_ranking(student: Tensor, teacher: Tensor, there: Tensor, *, temperature: float = 1.0) -> Tensor:
    """`-sum_i softmax(t / tau)_i log softmax(s / tau)_i` over the items that are there.

    Args:
        student: (Q, n) scores.
        teacher: (Q, n) scores, without gradient.
        there: (Q, n) bool.
        temperature: tau, > 0.

    Returns:
        (Q,) >= 0, least, the entropy of the teacher's, where both are equal up to a constant; 0 for nobody's items.
    """
    target = (teacher / temperature).masked_fill(~there, -torch.inf)
    some = there.any(1, keepdim=True)
    share = torch.where(some, target, 0).softmax(1) * there
    scores = (student / temperature).masked_fill(~there, -torch.inf)
    ours = torch.where(some, scores, 0).log_softmax(1)
    return -(share * torch.where(there, ours, 0)).sum(1)
