"""HetComp's loss in its two stages, and how far a student is from a teacher. Kang et al., WWW 2023, arXiv:2303.01130.

Letters: Q users, P observed items, K items of the teachers, n items of a list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from recdistill.losses.relaxed_ranking import relaxed_ranking
from recdistill.order import ascending

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["above_the_rest", "distance_of_lists", "in_order"]


def above_the_rest(scores: Tensor, rest: Tensor) -> Tensor:
    """`-sum_i [ s_i - log(Z + e^{s_i}) ]`: each item above everything else, none above another.

    Args:
        scores: (Q, K); -inf = there is no such item.
        rest: (Q, 1) `log Z`.

    Returns:
        (Q,) >= 0; `K log 2` where every item scores as much as all the rest together.
    """
    there = scores > -torch.inf
    return (F.softplus(torch.where(there, rest - scores, 0)) * there).sum(1)


def in_order(top: Tensor, rest: Tensor) -> Tensor:
    """Half of the relaxed ranking of the list's first half, and half of that of its first tenth.

    What of the list is not ordered is among the rest. The scores are not clamped, as the official code does: logarithms
    do not overflow.

    Args:
        top: (Q, K) scores of the teachers' items, best first; -inf = there is no such item.
        rest: (Q, 1) `log Z` of everything that is neither observed nor in the list.

    Returns:
        (Q,) >= 0
    """
    k = top.shape[1]
    parts = [max(k // 2, 1), max(k // 10, 1)]
    return sum((relaxed_ranking(top[:, :n], torch.cat([rest, top[:, n:]], 1)) for n in parts), top.new_zeros(())) / 2


def distance_of_lists(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - a graded NDCG: place t of the student gains `2^(e^(-t / 10)) - 1` where the teacher lists its item too.

    Args:
        student: (Q, n) items, best first, -1 = none.
        teacher: (Q, n) items in any order, -1 = none.

    Returns:
        (Q,) in [0, 1]; 0 where both hold the same items.
    """
    n = student.shape[1]
    place = torch.arange(n, device=student.device)
    gain = (2 ** torch.exp(-place / 10) - 1) / torch.log2(place + 2)
    ordered = ascending(teacher)
    at = torch.searchsorted(ordered, student.contiguous()).clamp(max=teacher.shape[1] - 1)
    found = (ordered.gather(1, at) == student) & (student >= 0)
    return 1 - (found * gain).sum(1) / gain.sum()
