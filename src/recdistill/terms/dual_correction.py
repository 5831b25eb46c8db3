"""DCD's terms: what the student errs about within the teacher's list. Lee & Kim, CIKM 2021, arXiv:2109.03459.

Letters: Q rows of a batch, R list length, K under-estimated, L over-estimated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.dual_correction import errors_of_rank
from recdistill.losses.relaxed_ranking import relaxed_ranking
from recdistill.objective import Term
from recdistill.query import Distinct, Rows
from recdistill.terms.lists import TeacherLists

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import View
    from recdistill.query import Batch

__all__ = ["ItemCorrection", "UserCorrection"]


class _Correction(Term):
    """What is under-estimated keeps the teacher's order and stays above what is over-estimated."""

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.RANKS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(self, purpose: str, *, near: int, far: int, steep: float, seed: int) -> None:
        super().__init__()
        if min(near, far) < 1 or steep <= 0:
            raise UsageError(problem("DCD needs near >= 1, far >= 1 and steep > 0", f"{near}, {far}, {steep}"))
        self._near, self._far, self._steep, self._key = near, far, steep, (seed, purpose)

    def _value(self, scores: Tensor, listed: Tensor, ids: Tensor, clock: Clock) -> Tensor:
        """(Q, R) scores of (Q, R) lists of the rows (Q,) -> (Q,)."""
        with torch.no_grad():
            under, over = errors_of_rank(scores.detach(), listed >= 0, steep=self._steep)
            noise = rng.gumbel(rng.key(*self._key, clock.epoch, clock.step), ids, 2 * listed.shape[1])
            up, down = noise.to(scores.dtype).chunk(2, 1)
            near, no_near = _drawn(up + under.log(), self._near)
            near, order = near.sort(1)  # back in the teacher's order
            far, no_far = _drawn(down + over.log(), self._far)
        above = scores.gather(1, near).masked_fill(no_near.gather(1, order), -torch.inf)
        return relaxed_ranking(above, scores.gather(1, far).masked_fill(no_far, -torch.inf))


class UserCorrection(_Correction):
    """For each distinct user, items of the teacher's list."""

    def __init__(
        self,
        taken: Taken,
        n_users: int,
        *,
        near: int = 40,
        far: int = 40,
        depth: int = 200,
        steep: float = 0.1,
        seed: int = 0,
    ) -> None:
        """Say what is drawn, anew at every step, from the student's ranks as they are.

        Args:
            taken: the users' training items.
            n_users: U.
            near: K, under-estimated items a user.
            far: L, over-estimated items a user.
            depth: R, how much of the teacher's list is looked at.
            steep: e; an item at a distance of n places is drawn with weight `tanh(e n)`.
            seed: of the draws.

        Raises:
            UsageError: a count is under 1, or steep not positive.
        """
        super().__init__("errors of users", near=near, far=far, steep=steep, seed=seed)
        self._lists = TeacherLists(n_users, min(depth, taken.n_items), taken.keys.device)

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        assert teacher is not None  # noqa: S101 - the loop has checked it
        users = batch.users
        items = self._lists.of(teacher.select(users.first), users.ids)  # (Q, R)
        scores = student.select(users.first).scores(items.clamp(min=0))
        return Rows(self._value(scores, items, users.ids, clock), of="users")


class ItemCorrection(_Correction):
    """For each distinct positive item, users of the teacher's list."""

    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES, Kind.VECTORS})

    def __init__(
        self, lists: Callable[[], Tensor], *, near: int = 40, far: int = 40, steep: float = 0.1, seed: int = 0
    ) -> None:
        """As `UserCorrection`; `lists` gives (I, R) int32 users, best first, -1 past the end, and is called once."""
        super().__init__("errors of items", near=near, far=far, steep=steep, seed=seed)
        self._ask = lists
        self._lists: Tensor | None = None

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        if self._lists is None:
            self._lists = self._ask()
        ids = Distinct.of(batch.positive).ids  # (Q,)
        users = self._lists[ids].long()  # (Q, R)
        scores = student.scores_of(ids, users.clamp(min=0))
        return Rows(self._value(scores, users, ids, clock), of="items")


def _drawn(words: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(Q, R), -inf = never -> (Q, min(k, R)) places of the greatest, and which of them are not to be."""
    best = words.topk(min(k, words.shape[1]), 1)
    return best.indices, best.values == -torch.inf
