"""UnKD's term: the teacher's order within groups of like popularity. Chen et al., WSDM 2023, arXiv:2211.14729.

Letters: U users, I items, G groups, R list length within a group, D list length, P pairs, Q distinct users of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.pairs import ordered_pairs
from recdistill.objective import Term
from recdistill.query import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import View
    from recdistill.query import Batch

__all__ = ["StratifiedPairs", "popularity_groups", "shared_out"]

_TRIES = 4
"""Of two draws that fall on one item others are taken; a pair for which all of these fail is left out."""
_LISTED = 1 << 22
"""Entries of whole lists at a time."""


class StratifiedPairs(Term):
    """Pairs of a user's items, both of one group, in the teacher's order; drawn anew in every epoch.

    Both items of a pair are drawn with weight `e^(-r / sharpness)` by their rank r within the group, among the items of
    the teacher's list; what a teacher of lists alone does not list is not drawn.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.RANKS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(
        self,
        taken: Taken,
        n_users: int,
        *,
        groups: int = 4,
        pairs: int = 40,
        lean: float = 0.0,
        depth: int = 5000,
        reach: int = 100,
        sharpness: float = 20.0,
        seed: int = 0,
    ) -> None:
        """Say what is drawn.

        Args:
            taken: the users' training items, whose counts are the popularity.
            n_users: U.
            groups: G, of equal total popularity.
            pairs: P, a user, over all groups.
            lean: 0 shares them out evenly, more gives less popular groups more, see `shared_out`.
            depth: D, how much of the teacher's list is divided.
            reach: R, of each group.
            sharpness: of the draws.
            seed: of the draws.

        Raises:
            UsageError: a count is under 1, more groups than items or pairs, or sharpness not positive.
        """
        super().__init__()
        if not 1 <= groups <= min(taken.n_items, pairs) or min(depth, reach) < 1 or sharpness <= 0:
            what = "UnKD needs 1 <= groups <= pairs and as many items, depth >= 1, reach >= 1 and sharpness > 0"
            given = f"groups={groups}, pairs={pairs}, depth={depth}, reach={reach}, sharpness={sharpness}"
            raise UsageError(problem(what, given))
        self._group, popularity = popularity_groups(taken, groups)
        self._of_pair = shared_out(popularity, pairs, lean)  # (P,)
        self._groups, self._depth, self._reach, self._seed = groups, min(depth, taken.n_items), reach, seed
        device = taken.keys.device
        self._lists = torch.empty(n_users, groups, reach, dtype=torch.int32, device=device)  # (U, G, R), as met
        self._count = torch.zeros(n_users, groups, dtype=torch.int64, device=device)  # (U, G) how many each holds
        self._met = torch.zeros(n_users, dtype=torch.bool, device=device)
        self._sharpness = sharpness

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        assert teacher is not None  # noqa: S101 - the loop has checked it
        users = batch.users
        self._meet(teacher.select(users.first), users.ids)
        better, worse, there = self.pairs(users.ids, clock.epoch)
        n = better.shape[1]
        scores = student.select(users.first).scores(torch.cat([better, worse], 1))
        return Rows(ordered_pairs(scores[:, :n], scores[:, n:], there), of="users")

    def pairs(self, users: Tensor, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """(Q,) users that were met -> (Q, P) items, (Q, P) worse ones of the same groups, (Q, P) which there are."""
        n, group = len(self._of_pair), self._of_pair
        count = self._count[users][:, group]  # (Q, P)
        words = rng.uniform(rng.key(self._seed, "pairs", epoch), users, 2 * _TRIES * n).view(-1, n, _TRIES, 2)
        last = (count - 1).clamp(min=0)[:, :, None, None]
        within = -torch.expm1(-(last + 1) / self._sharpness)  # 1 - e^(-n / T), what the n ranks have of all weights
        rank = (-self._sharpness * torch.log1p(-words * within)).long().minimum(last)  # (Q, P, tries, 2) from 0
        apart = rank[..., 0] != rank[..., 1]  # (Q, P, tries)
        chosen = apart.to(torch.uint8).argmax(2)[:, :, None, None].expand(-1, -1, 1, 2)  # the first that is
        found = rank.gather(2, chosen)[:, :, 0]  # (Q, P, 2)
        there = apart.any(2) & (count > 1)
        slot = group[:, None] * self._reach + found.sort(2).values  # (Q, P, 2)
        items = self._lists[users].flatten(1).gather(1, slot.flatten(1)).view_as(found).long()
        items = torch.where(there[:, :, None], items, 0)
        return items[:, :, 0], items[:, :, 1], there

    def _meet(self, teacher: View, ids: Tensor) -> None:
        new = (~self._met[ids]).nonzero()[:, 0]
        for some in new.split(max(1, _LISTED // self._depth)):
            if some.shape[0]:
                lists, count = self._divided(teacher.select(some).ranked(self._depth))
                self._lists[ids[some]], self._count[ids[some]] = lists, count
                self._met[ids[some]] = True

    def _divided(self, listed: Tensor) -> tuple[Tensor, Tensor]:
        """(m, D) items, best first, -1 past the end -> (m, G, R) int32 of each group, and (m, G) how many."""
        m, groups, reach = len(listed), self._groups, self._reach
        group = torch.where(listed >= 0, self._group[listed.clamp(min=0)], groups)  # (m, D)
        group, order = group.sort(dim=1, stable=True)  # by group, best first
        count = torch.zeros(m, groups + 1, dtype=torch.int64, device=listed.device)
        count.scatter_add_(1, group, torch.ones_like(group))
        begin = count.cumsum(1) - count
        place = torch.arange(listed.shape[1], device=listed.device) - begin.gather(1, group)  # (m, D)
        slot = torch.where(
            (place < reach) & (group < groups), group * reach + place, groups * reach
        )  # else a spare one
        out = torch.full((m, groups * reach + 1), -1, dtype=torch.int64, device=listed.device)
        out.scatter_(1, slot, listed.gather(1, order))
        return out[:, :-1].view(m, groups, reach).to(torch.int32), count[:, :-1].clamp(max=reach)


def popularity_groups(taken: Taken, groups: int) -> tuple[Tensor, Tensor]:
    """Items by popularity, cut where the popularity so far passes each G-th of the whole.

    Returns:
        (I,) int64 the group of each item, the most popular in group 0, and (G,) the mean popularity of each group.
    """
    count = torch.bincount(taken.keys % taken.n_items, minlength=taken.n_items)
    order = torch.argsort(-count, stable=True)
    before = count[order].cumsum(0) - count[order]
    group = torch.empty_like(count)
    group[order] = (before * groups).div(int(count.sum()) or 1, rounding_mode="floor").clamp(max=groups - 1)
    size = torch.bincount(group, minlength=groups).clamp(min=1)
    return group, torch.zeros(groups, device=count.device).index_add_(0, group, count.float()) / size


def shared_out(popularity: Tensor, pairs: int, lean: float) -> Tensor:
    """(G,) mean popularity -> (P,) each pair's group: shares ~ (greatest + least - own)^lean, each at least one."""
    share = (popularity.max() + popularity.min() - popularity).clamp(min=1e-6) ** lean
    end = (share.cumsum(0) / share.sum() * (pairs - len(popularity))).round().long()  # one each, then by share
    count = torch.diff(end, prepend=end.new_zeros(1)) + 1
    return torch.repeat_interleave(torch.arange(len(popularity), device=popularity.device), count)
