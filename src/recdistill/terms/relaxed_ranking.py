"""RRD's term: each user's part of the teacher's list, relaxed. Kang et al., DE-RRD, CIKM 2020, arXiv:2012.04357.

Letters: U users, Q distinct users of a batch, R list length, K interesting items, L uninteresting items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from typing_extensions import override

from recdistill.errors import MissingKnowledge
from recdistill.knowledge.view import Kind
from recdistill.losses.relaxed_ranking import relaxed_ranking
from recdistill.objective import Term
from recdistill.query import Rows
from recdistill.terms.list_draws import Draw, ListDraws, check_draws
from recdistill.terms.lists import TeacherLists

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import View
    from recdistill.query import Batch

__all__ = ["RelaxedRanking"]


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
        draw: Draw = "sampled",
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
        check_draws("RRD", near=near, far=far, depth=depth, reach=reach, sharpness=sharpness)
        self._lists = TeacherLists(n_users, min(depth, taken.n_items), taken.keys.device)
        self._draws = ListDraws(
            self._lists, taken, near=near, far=far, reach=reach, sharpness=sharpness, draw=draw, seed=seed
        )

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        self.prepare(teacher, batch, clock)
        users = batch.users
        near, far = self._draws.of(users.ids)
        scores = student.select(users.first).scores(torch.cat([near, far], 1))  # (Q, K + L)
        return Rows(relaxed_ranking(scores[:, : near.shape[1]], scores[:, near.shape[1] :]), of="users")

    def prepare(self, teacher: View | None, batch: Batch, clock: Clock) -> None:
        """See that the batch's users have draws of this epoch."""
        if teacher is None:
            raise MissingKnowledge(Kind.RANKS, "No teacher", "Give the pass of this term a teacher")
        users = batch.users
        self._draws.begin(clock.epoch)
        stale = self._draws.stale(users.ids, clock.epoch)
        if stale.shape[0]:
            self._lists.meet(teacher.select(users.first), users.ids)
            self._draws.renew(stale, clock.epoch)

    def draws(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """(m,) user rows -> (m, K) interesting and (m, L) uninteresting items as last drawn; -1 = none."""
        return self._draws.of(users)
