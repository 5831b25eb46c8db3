"""Sampled softmax, corrected for how negatives were drawn. Bengio & Senecal, IEEE TNN 2008; Yi et al., RecSys 2019.

Negative n, drawn N times in all with probability q_n each time, stands for `1 / (N q_n)` items: its score is lowered by
`log(N q_n)`, and the expected sum is that of the full softmax (of the positive and of all items that can be drawn).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["sampled_softmax"]


def sampled_softmax(positive: Tensor, negatives: Tensor, log_q: Tensor) -> Tensor:
    """`-log( e^{s_pos} / (e^{s_pos} + sum_n e^{s_neg_n - log(N q_n)}) )`.

    Args:
        positive: (B,) scores of the items seen.
        negatives: (B, N) scores of sampled items not seen, N >= 1.
        log_q: (B, N), or (B, 1), logarithm of the chance of each negative in one draw.

    Returns:
        (B,) >= 0; `log(1 + M)` when all scores are equal and each of M items had the same chance.
    """
    lowered = negatives - log_q - math.log(max(negatives.shape[1], 1))
    return torch.logsumexp(torch.cat([positive[:, None], lowered], 1), 1) - positive
