"""BD's term: another model's probabilities for items the two disagree about. Kweon et al., WWW 2021, arXiv:2106.02870.

Letters: Q distinct users of a batch, I items, n candidates a user, k drawn items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.data.draws import outside
from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.rank_discrepancy import log_disagreement
from recdistill.losses.soft_labels import soft_bce
from recdistill.objective import Term
from recdistill.order import places
from recdistill.query import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import View
    from recdistill.query import Batch

__all__ = ["MutualLabels"]


class MutualLabels(Term):
    """`sum_j BCE(sigmoid(s(j)), sigmoid(s'(j) / temperature))` over k items a user that the two rank differently.

    Of n candidates, drawn uniformly at every step from what a user does not have, both rank all; a difference in places
    counts I / n as much. The other model's answer has no gradient.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES, Kind.WEIGHTS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(
        self,
        taken: Taken,
        *,
        form: Literal["tanh", "exp"],
        steep: float,
        candidates: int = 50,
        drawn: int = 2,
        temperature: float = 5.0,
        purpose: str = "",
        seed: int = 0,
    ) -> None:
        """Say what is drawn.

        Args:
            taken: the users' training items, which are never drawn.
            form: of the weights, see `log_disagreement`: "tanh" from a teacher, "exp" from a student.
            steep: e.
            candidates: n.
            drawn: k.
            temperature: of the labels, > 0.
            purpose: tells the draws of one direction from those of the other.
            seed: of the draws.

        Raises:
            UsageError: not 1 <= drawn <= candidates, or steep or temperature not positive.
        """
        super().__init__()
        if not 1 <= drawn <= candidates:
            raise UsageError(problem("BD needs 1 <= drawn <= candidates", f"drawn={drawn}, candidates={candidates}"))
        if min(steep, temperature) <= 0:
            given = f"steep={steep}, temperature={temperature}"
            raise UsageError(problem("BD needs its steepness and temperature > 0", given))
        self._form: Literal["tanh", "exp"] = form
        self._taken, self._steep, self._key = taken, steep, (seed, f"disagreement {purpose}")
        self._candidates, self._drawn, self._temperature = min(candidates, taken.n_items), drawn, temperature

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        assert teacher is not None  # noqa: S101 - the loop has checked it
        users = batch.users
        mine, theirs = student.select(users.first), teacher.select(users.first)
        items, labels, there = self.draw(mine, theirs, users.ids, clock)
        scores = torch.where(there, mine.scores(items), 0)
        return Rows((soft_bce(scores, labels) * there).sum(1), of="users")

    def draw(self, mine: View, theirs: View, ids: Tensor, clock: Clock) -> tuple[Tensor, Tensor, Tensor]:
        """(Q, k) items of the users (Q,), (Q, k) labels in [0, 1], and (Q, k) which there are."""
        key = rng.key(*self._key, clock.epoch, clock.step)
        pool = outside(key, ids, self._candidates, self._taken, distinct=True)  # (Q, n)
        own, other = mine.scores(pool).detach(), theirs.scores(pool).detach()  # what views keep stays in the graph
        steep = self._steep * self._taken.n_items / self._candidates
        weight = log_disagreement(places(own).to(own.dtype), places(other).to(own.dtype), steep=steep, form=self._form)
        noise = rng.gumbel(rng.key(*self._key, clock.epoch, clock.step, 1), ids, pool.shape[1])
        words = (noise + weight).masked_fill(pool < 0, -torch.inf)
        best = words.topk(min(self._drawn, words.shape[1]), 1)
        label = other.gather(1, best.indices)
        there = (best.values > -torch.inf) & (label > -torch.inf) & theirs.known()[:, None]
        labels = torch.sigmoid(torch.where(there, label, 0) / self._temperature)
        return pool.gather(1, best.indices).clamp(min=0), labels.to(own.dtype), there
