"""Relations between entities: cosines of the teacher's vectors against cosines of the student's.

Kang et al., Topology Distillation, KDD 2021, arXiv:2106.08700: the full topology (FTD, eq. 4) and the hierarchical one
(HTD, eq. 9): pairs within a group, and each entity with the prototypes of the groups.

Letters: n entities, t teacher width, s student width, K groups, c groups of about one size, m the most members of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Own", "PairsOf", "between_prototypes", "full_topology", "to_prototypes", "within_groups"]

PairsOf = Literal["positive", "all"]
Own = Literal["kept", "left-out"]


def full_topology(teacher: Tensor, student: Tensor) -> Tensor:
    """`sum_j (cos(t_i, t_j) - cos(x_i, x_j))^2` for each i, with nothing of size n x n.

    With unit rows T and X, `sum_j (T_i T_j - X_i X_j)^2 = T_i (T'T) T_i - 2 T_i (T'X) X_i + X_i (X'X) X_i`: products of
    widths, so n d^2 in place of n^2 d.

    Args:
        teacher: (n, t); a row of zeros is related to nobody.
        student: (n, s)

    Returns:
        (n,) >= 0 but for rounding; an entity with itself costs nothing.
    """
    there = (teacher != 0).any(1, keepdim=True)
    t, x = F.normalize(teacher, dim=1), F.normalize(student, dim=1) * there
    both = t.T @ x  # (t, s)
    return ((t @ (t.T @ t)) * t).sum(1) - 2 * ((t @ both) * x).sum(1) + ((x @ (x.T @ x)) * x).sum(1)


def within_groups(teacher: Tensor, student: Tensor, group: Tensor, *, pairs: PairsOf = "positive") -> Tensor:
    """`sum_{j in the group of i} (cos(t_i, t_j) - cos(x_i, x_j))^2` for each i.

    Groups are stacked by size, each class of sizes padded to one power of two, so that products are few and large.

    Args:
        teacher: (n, t); a row of zeros is related to nobody.
        student: (n, s)
        group: (n,) int64 >= 0.
        pairs: "positive" leaves out pairs whose teacher cosine is not positive, as the official code does; "all" is the
            paper's formula.

    Returns:
        (n,) >= 0
    """
    there = (teacher != 0).any(1, keepdim=True)
    t, x = F.normalize(teacher, dim=1), F.normalize(student, dim=1) * there
    order = torch.sort(group, stable=True).indices
    count = torch.bincount(group)  # (K,)
    begin = count.cumsum(0) - count
    exponent = (count.clamp(min=1) - 1).to(torch.float64).add_(1).log2_().ceil_().long()  # the least 2^e >= count
    out = t.new_zeros(len(t))
    for power in exponent[count > 0].unique().tolist():  # at most log2(n) classes, however many groups
        mine = ((exponent == power) & (count > 0)).nonzero()[:, 0]  # (c,)
        column = torch.arange(1 << power, device=t.device)
        inside = column < count[mine, None]  # (c, m)
        place = order[torch.where(inside, begin[mine, None] + column, begin[mine, None])]  # (c, m)
        mask = inside[:, :, None]
        ts, xs = t[place] * mask, x[place] * mask  # (c, m, d)
        cosine = ts @ ts.mT  # (c, m, m)
        apart = (cosine - xs @ xs.mT).square()
        if pairs == "positive":
            apart = apart * (cosine > 0)
        out = out.index_add(0, place.flatten(), (apart.sum(2) * inside).flatten())
    return out


def to_prototypes(teacher: Tensor, student: Tensor, group: Tensor, *, groups: int, own: Own = "kept") -> Tensor:
    """`sum_k (cos(P_k, t_i) - cos(P'_k, x_i))^2` for each i, with the groups' mean vectors.

    The means have no gradient.

    Args:
        teacher: (n, t); a row of zeros is related to nobody and in no mean.
        student: (n, s)
        group: (n,) int64 in [0, groups).
        groups: K; a group without a member is related to nobody.
        own: "kept" compares an entity with its own group's prototype too, as the official code does; "left-out" is the
            paper's formula.

    Returns:
        (n,) >= 0
    """
    there = (teacher != 0).any(1, keepdim=True)
    with torch.no_grad():
        of_teacher, of_student = _means(teacher, group, there, groups), _means(student, group, there, groups)
    t = F.normalize(teacher, dim=1) @ F.normalize(of_teacher, dim=1).T  # (n, K)
    x = (F.normalize(student, dim=1) * there) @ F.normalize(of_student, dim=1).T
    apart = (t - x).square()
    if own == "left-out":
        apart = apart.scatter(1, group[:, None], 0.0)
    return apart.sum(1)


def between_prototypes(teacher: Tensor, student: Tensor, group: Tensor, *, groups: int) -> Tensor:
    """`sum_l (cos(P_k, P_l) - cos(P'_k, P'_l))^2` for each group k: the paper's Group(P, P).

    Here the student's means carry the gradient: the official code stops it, and its term then teaches nothing.

    Returns:
        (K,) >= 0; arguments as in `to_prototypes`.
    """
    there = (teacher != 0).any(1, keepdim=True)
    return full_topology(_means(teacher, group, there, groups), _means(student, group, there, groups))


def _means(vectors: Tensor, group: Tensor, there: Tensor, groups: int) -> Tensor:
    """(n, d) -> (K, d), zeros where a group has no member."""
    total = vectors.new_zeros(groups, vectors.shape[1]).index_add(0, group, vectors * there)
    return total / torch.bincount(group[there[:, 0]], minlength=groups).clamp(min=1)[:, None]
