"""RRD's term: each user's part of the teacher's list, relaxed. Kang et al., DE-RRD, CIKM 2020, arXiv:2012.04357.

Letters: U users, Q distinct users of a batch, R list length, K interesting items, L uninteresting items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.data.draws import outside
from recdistill.errors import MissingKnowledge, UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.relaxed_ranking import relaxed_ranking
from recdistill.objective import Term
from recdistill.query import Rows
from recdistill.terms.lists import TeacherLists

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import View
    from recdistill.query import Batch

__all__ = ["RelaxedRanking"]

_AT_ONCE = 1 << 11
"""Users drawn for at a time when an epoch begins: what is drawn for them stays in a core's cache."""


class RelaxedRanking(Term):
    """Interesting items from the teacher's list, in its order, above uninteresting ones drawn outside it.

    Both are drawn once an epoch for each user. The draw is a function of (seed, epoch, user), so it does not matter
    when: those met in earlier epochs are drawn when an epoch begins, others when they are met. The teacher is asked for
    a user's list once in a run. Users it does not know cost nothing.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.RANKS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(
        self,
        taken: Taken,
        n_users: int,
        *,
        near: int = 40,
        far: int = 40,
        depth: int = 500,
        reach: int = 128,
        sharpness: float = 10.0,
        draw: Literal["sampled", "top"] = "sampled",
        seed: int = 0,
    ) -> None:
        """Say what is drawn.

        Args:
            taken: the users' training items, which are never uninteresting.
            n_users: U.
            near: K, interesting items a user.
            far: L, uninteresting items a user.
            depth: R, how much of the teacher's list is never uninteresting.
            reach: the interesting items are drawn from the first `reach` of the list (at T = 10, beyond rank 100 the
                official code draws 0.013 items a user).
            sharpness: T; rank r (from 1) is drawn with weight `e^(-r / T)`.
            draw: "sampled" without replacement, as published; "top", the first K, as the authors advise since 2023.
            seed: of the draws.

        Raises:
            UsageError: not 1 <= near <= reach <= depth, or far < 1, or sharpness <= 0.
        """
        super().__init__()
        if not 1 <= near <= reach <= depth:
            msg = problem("RRD needs 1 <= near <= reach <= depth", f"near={near}, reach={reach}, depth={depth}")
            raise UsageError(msg)
        if far < 1 or sharpness <= 0:
            msg = problem("RRD needs far >= 1 and sharpness > 0", f"far={far}, sharpness={sharpness}")
            raise UsageError(msg)
        self._taken, self._near, self._far, self._depth = taken, near, far, min(depth, taken.n_items)
        self._reach, self._sharpness, self._draw, self._seed = min(reach, self._depth), sharpness, draw, seed
        device = taken.keys.device
        self._lists = TeacherLists(n_users, self._depth, device)
        self._drawn = torch.empty(n_users, near + far, dtype=torch.int32, device=device)  # (U, K + L)
        self._drawn_in = torch.full((n_users,), -1, dtype=torch.int32, device=device)  # (U,) the epoch of each draw
        self._epoch: int | None = None

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        if teacher is None:
            raise MissingKnowledge(Kind.RANKS, "No teacher", "Give the pass of this term a teacher")
        users = batch.users
        if clock.epoch != self._epoch:
            for some in self._lists.met.nonzero()[:, 0].split(_AT_ONCE):
                self._redraw(some, clock.epoch)
            self._epoch = clock.epoch
        stale = users.ids[self._drawn_in[users.ids] != clock.epoch]
        if stale.shape[0]:
            self._lists.meet(teacher.select(users.first), users.ids)
            self._redraw(stale, clock.epoch)
        items = self._drawn[users.ids].long()  # (Q, K + L)
        scores = student.select(users.first).scores(items)
        return Rows(relaxed_ranking(scores[:, : self._near], scores[:, self._near :]), of="users")

    def draws(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """(m,) user rows -> (m, K) interesting and (m, L) uninteresting items as last drawn; -1 = none."""
        items = self._drawn[users].long()
        return items[:, : self._near], items[:, self._near :]

    def _redraw(self, stale: Tensor, epoch: int) -> None:
        head = self._lists.items[stale, : self._reach]  # (m, reach)
        if self._draw == "top":
            near = head[:, : self._near]
        else:
            ranks = torch.arange(1, self._reach + 1, device=head.device, dtype=torch.float32)
            weights = rng.gumbel(rng.key(self._seed, "near", epoch), stale, self._reach) - ranks / self._sharpness
            weights.masked_fill_(head < 0, -torch.inf)
            chosen = weights.topk(min(self._near, self._reach), 1).indices.sort(1).values  # back in teacher order
            near = head.gather(1, chosen)
        far = outside(
            rng.key(self._seed, "far", epoch),
            stale,
            self._far,
            self._taken,
            more=self._lists.ordered[stale],
            distinct=True,
        )
        self._drawn[stale, : near.shape[1]] = near
        self._drawn[stale, near.shape[1] : self._near] = -1  # a list shorter than K
        self._drawn[stale, self._near :] = far.to(torch.int32)
        self._drawn_in[stale] = epoch
