"""Pointwise binary cross-entropy, the base loss of NeuMF. He et al., WWW 2017, arXiv:1708.05031, eq. 7."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bce"]


def bce(positive: Tensor, negatives: Tensor) -> Tensor:
    """`-log sigmoid(s_pos) - sum_n log(1 - sigmoid(s_neg_n))`.

    Args:
        positive: (B,) scores (logits) of the items seen.
        negatives: (B, N) scores of sampled items not seen.

    Returns:
        (B,) >= 0; `(1 + N) log 2` when all scores are 0.
    """
    return F.softplus(-positive) + F.softplus(negatives).sum(1)
