"""Sampled softmax over one positive and N negatives, as in e.g. Wu et al., TOIS 2024, arXiv:2201.02327, eq. 3.

No correction for the sampling distribution: with uniform negatives it would be the same constant for every item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["softmax"]


def softmax(positive: Tensor, negatives: Tensor) -> Tensor:
    """`-log( e^{s_pos} / (e^{s_pos} + sum_n e^{s_neg_n}) )`; with N = 1 it is BPR.

    Args:
        positive: (B,) scores of the items seen.
        negatives: (B, N) scores of sampled items not seen.

    Returns:
        (B,) >= 0; `log(1 + N)` when all scores are equal.
    """
    return torch.logsumexp(torch.cat([positive[:, None], negatives], 1), 1) - positive
