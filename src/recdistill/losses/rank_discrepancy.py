"""Which items two models disagree about. Kweon et al., Bidirectional Distillation, WWW 2021, arXiv:2106.02870.

Letters: Q users, n items a user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["log_disagreement"]


def log_disagreement(learner: Tensor, other: Tensor, *, steep: float, form: Literal["tanh", "exp"]) -> Tensor:
    """The logarithm of the weight by which an item is drawn: the farther the learner ranks it above the other.

    With the learner's rank r and the other's r', "tanh": `tanh(max(e (r' - r), 0))`, for what a teacher corrects;
    "exp": `e^(e (r' - r))`, for what a student tells.

    Args:
        learner: (Q, n) ranks.
        other: (Q, n) ranks.
        steep: e, > 0.
        form: "tanh" or "exp".

    Returns:
        (Q, n); -inf = never drawn.
    """
    over = steep * (other - learner)
    return torch.tanh(over.clamp(min=0)).log() if form == "tanh" else over
