"""RCE-KD's term: cross-entropy where the student already looks, and where only the teacher does. arXiv:2509.20989.

Letters: U users, Q distinct users of a batch, K items of each, M of the student's list, L drawn items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.soft_ranking import soft_ranking
from recdistill.objective import Term
from recdistill.order import ascending
from recdistill.query import Rows
from recdistill.terms.lists import TeacherLists, own_best

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import View
    from recdistill.query import Batch

__all__ = ["Rejuvenated", "log_weights"]

_MOST = 50
"""The official code counts no more shared items than these."""


class Rejuvenated(Term):
    """`(1 - w) CE(items of the student) + w CE(drawn items of the student, and the teacher's others)`.

    `w = e^(-beta share)` with the share of the teacher's K items that were drawn: at first the student looks elsewhere,
    and the second part decides. Items of the student's list above many of the teacher's are drawn most ("shared"). The
    list is found again every `period` epochs, and part of a checkpoint.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.RANKS, Kind.SCORES})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    own: Tensor
    found_in: Tensor

    def __init__(
        self,
        taken: Taken,
        n_users: int,
        *,
        near: int = 50,
        drawn: int = 50,
        reach: int = 200,
        draw: Literal["shared", "own"] = "shared",
        sharpness: float = 10.0,
        beta: float = 3.0,
        temperature: float = 1.0,
        period: int = 1,
        seed: int = 0,
    ) -> None:
        """Say what is compared.

        Args:
            taken: the users' training items.
            n_users: U.
            near: K, first items of the teacher, and of the student.
            drawn: L, items drawn from the student's list.
            reach: M, how much of the student's list they are drawn from.
            draw: by what weight: "shared", how many of the teacher's items stand at a place or further down, see
                `log_weights`; "own", `e^(-r / sharpness)` at rank r.
            sharpness: of these weights.
            beta: how fast the second part loses weight.
            temperature: of both softmaxes.
            period: epochs between two looks at the student's list.
            seed: of the draws.

        Raises:
            UsageError: a count is under 1, more items drawn than are within reach, or a factor not positive.
        """
        super().__init__()
        if min(near, drawn, period) < 1 or max(near, drawn) > reach or min(sharpness, temperature) <= 0 or beta < 0:
            what = "RCE-KD needs 1 <= near, drawn <= reach, period >= 1, beta >= 0, sharpness and temperature > 0"
            raise UsageError(problem(what, f"near={near}, drawn={drawn}, reach={reach}, period={period}"))
        n = taken.n_items
        self._taken, self._near, self._drawn, self._reach = taken, min(near, n), min(drawn, n), min(reach, n)
        self._sharpness, self._beta, self._temperature, self._period = sharpness, beta, temperature, period
        self._draw, self._seed = draw, seed
        device = taken.keys.device
        self._lists = TeacherLists(n_users, self._near, device)
        self.register_buffer("own", torch.full((n_users, self._reach), -1, dtype=torch.int32, device=device))
        self.register_buffer("found_in", torch.full((n_users,), -1, dtype=torch.int32, device=device))

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        assert teacher is not None  # noqa: S101 - the loop has checked it
        users = batch.users
        mine, theirs = student.select(users.first), teacher.select(users.first)
        wanted = self._lists.of(theirs, users.ids)  # (Q, K)
        own, drawn = self._looks(mine, users.ids, wanted, clock.epoch)  # (Q, K), (Q, L)
        with torch.no_grad():
            in_drawn, in_own = _inside(wanted, drawn), _inside(wanted, own)
            weight = torch.exp(-self._beta * in_drawn.float().mean(1))  # (Q,)
            other = torch.where(in_drawn | in_own, -1, wanted)
            items = torch.cat([own, drawn, other], 1)
            target = theirs.scores(items)
            there = (items >= 0) & (target > -torch.inf) & theirs.known()[:, None]
        scores, k = torch.where(there, mine.scores(items), 0), own.shape[1]
        first = soft_ranking(scores[:, :k], target[:, :k], there[:, :k], temperature=self._temperature)
        second = soft_ranking(scores[:, k:], target[:, k:], there[:, k:], temperature=self._temperature)
        return Rows((1 - weight) * first + weight * second, of="users")

    def _looks(self, student: View, ids: Tensor, wanted: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """(Q, K) the student's first items, (Q, L) drawn ones, int64; -1 = none."""
        now = epoch - epoch % self._period
        stale = (self.found_in[ids] != now).nonzero()[:, 0]
        if len(stale):
            best = own_best(student.select(stale), self._taken, ids[stale], self._reach)
            self.own[ids[stale]], self.found_in[ids[stale]] = best.to(torch.int32), now
        listed = self.own[ids].long()  # (Q, M)
        if self._draw == "shared":
            weights = log_weights(listed, wanted, self._sharpness)
        else:
            weights = -torch.arange(1, self._reach + 1, device=ids.device) / self._sharpness
        words = rng.gumbel(rng.key(self._seed, "own items", epoch), ids, self._reach) + weights  # the greatest: a draw
        chosen = words.masked_fill(listed < 0, -torch.inf).topk(self._drawn, 1).indices
        return listed[:, : self._near], listed.gather(1, chosen)


def log_weights(own: Tensor, wanted: Tensor, sharpness: float) -> Tensor:
    """The paper's weights of a student's items: greater where more of the teacher's are there or further down.

    Args:
        own: (Q, M) the student's items, best first, -1 past the end.
        wanted: (Q, K) the teacher's.
        sharpness: > 0.

    Returns:
        (Q, M) the logarithm of each place's weight, `(1 + n) / sharpness`: n, at most 50, of the teacher's items are at
        that place of the student's list or after it.
    """
    left = _inside(own, wanted).long().flip(1).cumsum(1).flip(1)
    return (1 + left.clamp(max=_MOST)) / sharpness


def _inside(items: Tensor, others: Tensor) -> Tensor:
    """(Q, n), (Q, m) -> (Q, n) which of the items are among the others; -1 never is."""
    ordered = ascending(others)
    place = torch.searchsorted(ordered, items.contiguous()).clamp(max=ordered.shape[1] - 1)
    return (ordered.gather(1, place) == items) & (items >= 0)
