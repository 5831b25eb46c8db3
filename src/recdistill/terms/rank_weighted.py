"""RD's term: the head of the teacher's list as weighted positives. Tang & Wang, KDD 2018, arXiv:1809.07428.

Letters: U users, Q distinct users of a batch, K items of the teacher, D items drawn to estimate a rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override

from recdistill import rng
from recdistill.data.draws import outside
from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.weighted_rank import discrepancy, position_weights, weighted_rank
from recdistill.objective import Term
from recdistill.query import Rows
from recdistill.terms.lists import TeacherLists

if TYPE_CHECKING:
    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import View
    from recdistill.query import Batch

__all__ = ["RankWeighted"]


class RankWeighted(Term):
    """`-sum_r w_r log sigmoid(s_r)` over the teacher's first K items of each distinct user of a batch.

    Until epoch `start` the weights are those of the positions; from then on they are multiplied by how much lower the
    student ranks each item, estimated from D items drawn afresh in every epoch. Weights carry no gradient. Users the
    teacher does not know cost nothing.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.RANKS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(
        self,
        taken: Taken,
        n_users: int,
        *,
        near: int = 10,
        sharpness: float = 1.0,
        steep: float = 0.1,
        sampled: int = 100,
        start: int = 10,
        normalise: Literal["one", "none"] = "one",
        seed: int = 0,
    ) -> None:
        """Say how items weigh.

        Args:
            taken: the users' training items, which are never drawn.
            n_users: U.
            near: K, items of the teacher.
            sharpness: lambda; place r (from 1) weighs `e^(-r / sharpness)`, normalised to sum 1.
            steep: mu, of the discrepancy.
            sampled: D, items a user that estimate a rank.
            start: the first epoch in which the discrepancy counts.
            normalise: "one" makes the products sum to 1 again (paper, eq. 10), "none" leaves them (official code).
            seed: of the draws.

        Raises:
            UsageError: a count is under 1, or sharpness or steep not positive.
        """
        super().__init__()
        if min(near, sampled) < 1 or min(sharpness, steep) <= 0:
            given = f"near={near}, sampled={sampled}, sharpness={sharpness}, steep={steep}"
            raise UsageError(problem("RD needs near >= 1, sampled >= 1, sharpness > 0 and steep > 0", given))
        self._taken, self._near, self._sharpness, self._steep = taken, min(near, taken.n_items), sharpness, steep
        self._sampled, self._start, self._normalise, self._seed = sampled, start, normalise, seed
        self._lists = TeacherLists(n_users, self._near, taken.keys.device)

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        assert teacher is not None  # noqa: S101 - the loop has checked it
        users = batch.users
        items = self._lists.of(teacher.select(users.first), users.ids)  # (Q, K)
        mine, there = student.select(users.first), items >= 0
        scores = mine.scores(items)
        weights = there * position_weights(self._near, self._sharpness, like=scores)
        if clock.epoch >= self._start:
            key = rng.key(self._seed, "rank samples", clock.epoch)
            drawn = outside(key, users.ids, self._sampled, self._taken, distinct=True)  # (Q, D)
            others = mine.scores(drawn).detach()  # what views keep stays in the graph
            weights = weights * discrepancy(scores.detach(), others, n_items=self._taken.n_items, steep=self._steep)
            if self._normalise == "one":
                weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
        return Rows(weighted_rank(scores, weights), of="users")
