"""BPR, the pairwise base loss. Rendle et al., UAI 2009, arXiv:1205.2618, BPR-Opt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bpr"]


def bpr(positive: Tensor, negatives: Tensor) -> Tensor:
    """`-sum_n log sigmoid(s_pos - s_neg_n)`.

    Args:
        positive: (B,) scores of the items seen.
        negatives: (B, N) scores of sampled items not seen.

    Returns:
        (B,) >= 0; `N log 2` when all scores are equal.
    """
    return F.softplus(negatives - positive[:, None]).sum(1)
