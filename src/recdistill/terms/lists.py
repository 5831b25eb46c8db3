"""What a teacher ranks first, asked once in a run and kept: items of each user, and users of each item.

Letters: U users, I items, R list length, m rows, c items of a chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recdistill.knowledge.view import Kind
from recdistill.query import Query

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import Knows, View

__all__ = ["TeacherLists", "best_users", "own_best"]

_SCORES = 1 << 22
"""Scores that exist at a time (16 MiB)."""


class TeacherLists:
    """The first R items of each user in the teacher's order. A user the teacher does not know has -1 alone.

    Pages of these tables are touched only for the users that are met, so a huge table costs nothing up front.
    """

    def __init__(self, n_users: int, depth: int, device: torch.device) -> None:
        """Keep `depth` (R) items of each of `n_users` (U)."""
        self.items = torch.empty(n_users, depth, dtype=torch.int32, device=device)
        """(U, R) the teacher's order, -1 past the end; anything for users never met."""
        self.ordered = torch.empty_like(self.items)
        """(U, R) the same, ascending."""
        self.met = torch.zeros(n_users, dtype=torch.bool, device=device)
        """(U,) whose list is there."""

    @classmethod
    def whole(cls, lists: Tensor) -> TeacherLists:
        """(n, R) int32 lists that are all there."""
        out = cls(0, 0, lists.device)
        out.items, out.ordered = lists, lists.sort(1).values
        out.met = torch.ones(lists.shape[0], dtype=torch.bool, device=lists.device)
        return out

    def meet(self, teacher: View, ids: Tensor) -> None:
        """Ask for the lists of those among `ids` (m,) that were never met; `teacher` is the view of them, in order."""
        new = (~self.met[ids]).nonzero()[:, 0]
        if new.shape[0]:
            lists = teacher.select(new).ranked(self.items.shape[1]).to(torch.int32)  # (m, R)
            self.items[ids[new]] = lists
            self.ordered[ids[new]] = lists.sort(1).values
            self.met[ids[new]] = True

    def of(self, teacher: View, ids: Tensor) -> Tensor:
        """(m,) user rows -> (m, R) int64 items, best first, -1 past the end."""
        self.meet(teacher, ids)
        return self.items[ids].long()


@torch.no_grad()
def best_users(teacher: Knows, taken: Taken, n_users: int, k: int, *, depth: int = 500) -> Tensor:
    """The users to whom a teacher gives each item most, among those who do not have it.

    By its scores where it has any; a teacher of lists alone names the users in whose lists of `depth` an item stands
    highest. Equal places go to the smaller user row where lists decide.

    Args:
        teacher: provides scores or ranks.
        taken: the users' training items.
        n_users: U.
        k: users an item, at most U.
        depth: how long the lists are that a teacher without scores is asked for.

    Returns:
        (I, k) int32 user rows, best first, -1 past the end.
    """
    n_items, device = taken.n_items, taken.keys.device
    users = torch.arange(n_users, device=device)
    view = teacher.view(Query(users))
    k = min(k, n_users)
    if Kind.SCORES not in teacher.provides:
        return _from_lists(view.ranked(min(depth, n_items)), n_items, k)
    out = torch.full((n_items, k), -1, dtype=torch.int32, device=device)
    known = view.known()  # (U,)
    owner, column = taken.keys.div(n_items, rounding_mode="floor"), taken.keys % n_items
    column, order = torch.sort(column, stable=True)
    owner = owner[order]
    size = max(1, _SCORES // max(n_users, 1))
    for start in range(0, n_items, size):
        items = torch.arange(start, min(start + size, n_items), device=device)
        scores = view.scores_among(items).masked_fill(~known[:, None], -torch.inf)  # (U, c)
        begin, end = torch.searchsorted(column, torch.tensor([start, start + len(items)], device=device)).tolist()
        scores[owner[begin:end], column[begin:end] - start] = -torch.inf
        best, who = scores.T.contiguous().topk(k, 1)  # (c, k)
        out[items] = torch.where(best > -torch.inf, who, -1).to(torch.int32)
    return out


def own_best(student: View, taken: Taken, ids: Tensor, k: int) -> Tensor:
    """(Q, k) int64 the items that a student scores most for the users (Q,), without their training items; -1 = none."""
    everything = torch.arange(taken.n_items, device=ids.device)
    parts: list[Tensor] = []
    for part in torch.arange(len(ids), device=ids.device).split(max(1, _SCORES // max(taken.n_items, 1))):
        scores = student.select(part).scores_among(everything).detach()  # what views keep stays in the graph
        row, item, _ = taken.pairs(ids[part])
        scores[row, item] = -torch.inf
        best = scores.topk(k, 1)
        parts.append(torch.where(best.values > -torch.inf, best.indices, -1))
    return torch.cat(parts)


def _from_lists(lists: Tensor, n_items: int, k: int) -> Tensor:
    """(U, R) items -> (I, k) users by the place that each gives an item."""
    place = torch.arange(lists.shape[1], device=lists.device).expand_as(lists)
    user = torch.arange(lists.shape[0], device=lists.device)[:, None].expand_as(lists)
    there = lists >= 0
    item, place, user = lists[there], place[there], user[there]  # (n,), by user and then by place
    order = place.argsort(stable=True)
    order = order[item[order].argsort(stable=True)]  # by item, then place, then user
    item, user = item[order], user[order]
    column = torch.arange(len(item), device=item.device) - torch.searchsorted(item, item)
    out = torch.full((n_items, k), -1, dtype=torch.int32, device=lists.device)
    kept = column < k
    out[item[kept], column[kept]] = user[kept].to(torch.int32)
    return out
