"""CD's term: the teacher's scores as soft labels of drawn items. Lee et al., ICDM 2019, arXiv:1911.05276.

Letters: Q distinct users of a batch, n candidates a user, k drawn items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.data.draws import outside
from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.soft_labels import soft_bce
from recdistill.objective import Term
from recdistill.order import best_first
from recdistill.query import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import View
    from recdistill.query import Batch

__all__ = ["SoftLabels"]


class SoftLabels(Term):
    """`sum_i BCE(sigmoid(s_S(i)), sigmoid((s_T(i) + shift) / temperature))` over k drawn items of each distinct user.

    Of n candidates, drawn uniformly from what the user does not have, k are drawn with weight `e^(-sharpness j / n)` by
    the place j that the guide gives them; candidates as many as there are items make it the paper's draw over the whole
    catalogue. A candidate the teacher has no score for is not drawn, and users it does not know
    cost nothing.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(
        self,
        taken: Taken,
        *,
        guide: Literal["student", "teacher"] = "student",
        candidates: int = 200,
        drawn: int = 20,
        sharpness: float = 10.0,
        temperature: float = 2.0,
        shift: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Say what is drawn, anew at every step.

        Args:
            taken: the users' training items, which are never drawn.
            guide: whose ranking of the candidates decides.
            candidates: n.
            drawn: k.
            sharpness: gamma, >= 0; 0 draws uniformly.
            temperature: T1, > 0, of the labels.
            shift: T2, added to the teacher's scores.
            seed: of the draws.

        Raises:
            UsageError: not 1 <= drawn <= candidates, sharpness < 0, or temperature <= 0.
        """
        super().__init__()
        if not 1 <= drawn <= candidates:
            raise UsageError(problem("CD needs 1 <= drawn <= candidates", f"drawn={drawn}, candidates={candidates}"))
        if sharpness < 0 or temperature <= 0:
            given = f"sharpness={sharpness}, temperature={temperature}"
            raise UsageError(problem("CD needs sharpness >= 0 and temperature > 0", given))
        self._taken, self._guide, self._seed = taken, guide, seed
        self._candidates, self._drawn, self._sharpness = min(candidates, taken.n_items), drawn, sharpness
        self._temperature, self._shift = temperature, shift

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        assert teacher is not None  # noqa: S101 - the loop has checked it
        users = batch.users
        mine, theirs = student.select(users.first), teacher.select(users.first)
        items, labels, there = self.draw(mine, theirs, users.ids, clock)
        scores = torch.where(there, mine.scores(items), 0)
        return Rows((soft_bce(scores, labels) * there).sum(1), of="users")

    def draw(self, student: View, teacher: View, ids: Tensor, clock: Clock) -> tuple[Tensor, Tensor, Tensor]:
        """(Q, k) items of the users (Q,), (Q, k) labels in [0, 1], and (Q, k) which there are."""
        key = rng.key(self._seed, "candidates", clock.epoch, clock.step)
        pool = outside(key, ids, self._candidates, self._taken, distinct=True)  # (Q, n)
        by_teacher = self._guide == "teacher"
        guided = (teacher if by_teacher else student).scores(pool).detach()  # what views keep stays in the graph
        place = best_first(guided)  # (Q, n) what is not there last
        pool = pool.gather(1, place)
        j = torch.arange(1, pool.shape[1] + 1, device=pool.device)
        noise = rng.gumbel(rng.key(self._seed, "soft labels", clock.epoch, clock.step), ids, pool.shape[1])
        words = noise - self._sharpness * j / self._candidates
        missing = pool < 0
        if by_teacher:
            missing = missing | (guided.gather(1, place) == -torch.inf)
        best = words.masked_fill(missing, -torch.inf).topk(min(self._drawn, pool.shape[1]), 1)
        items = pool.gather(1, best.indices)
        target = teacher.scores(items).detach()
        there = (best.values > -torch.inf) & (target > -torch.inf) & teacher.known()[:, None]
        labels = torch.sigmoid((torch.where(there, target, 0) + self._shift) / self._temperature)
        return items.clamp(min=0), labels.to(guided.dtype), there
