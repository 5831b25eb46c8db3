"""Pairs that a teacher has ordered. Chen et al., UnKD, WSDM 2023, arXiv:2211.14729, eq. 10; the pairwise form of BPR.

Letters: Q users, P pairs a user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ordered_pairs"]


def ordered_pairs(better: Tensor, worse: Tensor, there: Tensor) -> Tensor:
    """The mean over a user's pairs of `-log sigmoid(s_better - s_worse)`.

    Args:
        better: (Q, P) student scores of the items that the teacher ranks higher.
        worse: (Q, P) of those it ranks lower.
        there: (Q, P) bool, which pairs there are.

    Returns:
        (Q,) >= 0; `log 2` when all scores are equal, 0 for a user without a pair.
    """
    value = F.softplus(torch.where(there, worse - better, 0)) * there
    return value.sum(1) / there.sum(1).clamp(min=1)
