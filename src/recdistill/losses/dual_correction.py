"""How much a student errs about the items of a teacher's list. Lee & Kim, DCD, CIKM 2021, arXiv:2109.03459.

Letters: Q rows, R list length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recdistill.order import places

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["errors_of_rank"]


def errors_of_rank(scores: Tensor, there: Tensor, *, steep: float) -> tuple[Tensor, Tensor]:
    """Weights of what a student ranks too low and too high within a list.

    `tanh(max(e (r_S - r_T), 0))` and `tanh(max(e (r_T - r_S), 0))`, with the teacher's rank r_T, the column, and the
    student's r_S, its place among the list's own scores (equal scores by column).

    Args:
        scores: (Q, R) the student's, of the list in the teacher's order.
        there: (Q, R) which places of the list hold anything; those that do stand first.
        steep: e, > 0.

    Returns:
        (Q, R) of what is under-estimated and (Q, R) of what is over-estimated, in [0, 1); 0 where nothing is.
    """
    place = torch.arange(scores.shape[1], device=scores.device)
    rank = places(torch.where(there, scores, -torch.inf))  # (Q, R)
    lower = steep * (rank - place).to(scores.dtype) * there
    return torch.tanh(lower.clamp(min=0)), torch.tanh((-lower).clamp(min=0))
