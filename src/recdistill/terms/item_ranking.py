"""IR-RRD's item side: which users a teacher gives an item most, relaxed. Kang et al., Information Sciences 2021.

Letters: I items, U users, m items of a step, K interesting users, L uninteresting users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.relaxed_ranking import relaxed_ranking
from recdistill.objective import Term
from recdistill.query import Distinct, Rows
from recdistill.terms.list_draws import Draw, ListDraws, check_draws
from recdistill.terms.lists import TeacherLists

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import View
    from recdistill.query import Batch
    from recdistill.terms.relaxed_ranking import RelaxedRanking

__all__ = ["ItemRanking"]


class ItemRanking(Term):
    """RRD with users and items in each other's place, for many items a step.

    Items are those that occur among the draws of the batch's users in `users` (official code), or its positives.
    Interesting users keep the teacher's order and stay above uninteresting ones, who neither have the item nor stand in
    its list. Both are drawn once an epoch. An item to which nobody is drawn costs nothing.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.RANKS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES, Kind.VECTORS})

    def __init__(
        self,
        users: RelaxedRanking,
        lists: Callable[[], Tensor],
        taken: Taken,
        *,
        near: int = 20,
        far: int = 20,
        depth: int = 500,
        reach: int = 128,
        sharpness: float = 10.0,
        draw: Draw = "sampled",
        items: Literal["drawn", "positives"] = "drawn",
        most: int = 0,
        seed: int = 0,
    ) -> None:
        """Say what is drawn.

        Args:
            users: RRD's own term of the same objective.
            lists: gives (I, at most `depth`) int32 users, best first, -1 past the end; called once, at the first step.
            taken: the users' training items.
            near: K, interesting users an item.
            far: L, uninteresting users an item.
            depth: R, how much of an item's list is never uninteresting.
            reach: interesting users are drawn from the first `reach` of the list.
            sharpness: T; rank r (from 1) is drawn with weight `e^(-r / T)`.
            draw: "sampled" as published; "top", the first K.
            items: "drawn" as published: all items that occur among the draws of the batch's users; or "positives".
            most: the most items a step, drawn uniformly and weighed up to the whole; 0 = all.
            seed: of the draws.

        Raises:
            UsageError: not 1 <= near <= reach <= depth, far < 1, sharpness <= 0, or most < 0.
        """
        super().__init__()
        check_draws("IR-RRD", near=near, far=far, depth=depth, reach=reach, sharpness=sharpness, of="item_")
        if most < 0:
            raise UsageError(problem("IR-RRD needs most >= 0", most))
        self._users = (users,)  # a tuple: it is no part of this one
        self._ask, self._taken, self._most, self._seed = lists, taken, most, seed
        self._items: Literal["drawn", "positives"] = items
        self._how_drawn = {"near": near, "far": far, "reach": reach}
        self._sharpness = sharpness
        self._draw: Draw = draw
        self._draws: ListDraws | None = None

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        draws = self._ready(clock.epoch)
        if self._items == "drawn":
            (users,) = self._users
            users.prepare(teacher, batch, clock)
            some = torch.cat(users.draws(batch.users.ids), 1).flatten()
            ids = Distinct.of(some[some >= 0]).ids  # (m,)
        else:
            ids = Distinct.of(batch.positive).ids
        share = 1.0
        if 0 < self._most < len(ids):
            words = rng.bits(rng.key(self._seed, "items", clock.epoch, clock.step), ids, 1)[:, 0]
            share = len(ids) / self._most
            ids = ids[words.argsort()[: self._most].sort().values]
        near, far = draws.of(ids)
        there = (near >= 0).any(1)
        ids, near, far = ids[there], near[there], far[there]
        scores = student.scores_of(ids, torch.cat([near, far], 1))  # (m, K + L)
        return Rows(share * relaxed_ranking(scores[:, : near.shape[1]], scores[:, near.shape[1] :]), of="items")

    def _ready(self, epoch: int) -> ListDraws:
        if self._draws is None:
            self._draws = ListDraws(
                TeacherLists.whole(self._ask()),
                self._taken.turned(),
                near=self._how_drawn["near"],
                far=self._how_drawn["far"],
                reach=self._how_drawn["reach"],
                sharpness=self._sharpness,
                draw=self._draw,
                seed=self._seed,
                purpose=" users",
            )
        self._draws.begin(epoch)
        return self._draws
