"""PCKD's regulariser: projected vectors must prefer what the vectors themselves prefer. Zhu & Zhang, TKDE 2025.

Letters: U users, Q distinct users of a batch, n items a user, s student width, t teacher width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.soft_ranking import soft_ranking
from recdistill.objective import Term
from recdistill.query import Rows
from recdistill.terms.lists import TeacherLists
from recdistill.terms.mixture import Scratch

if TYPE_CHECKING:
    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.view import Layer, View
    from recdistill.query import Batch
    from recdistill.terms.expert_match import ExpertMatch

__all__ = ["PreferenceConsistency"]


class PreferenceConsistency(Term):
    """Cross-entropy of projected vectors' inner products with the unprojected ones', over items of the teacher's list.

    The student's vectors have no gradient: only the experts learn from it.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.RANKS, Kind.VECTORS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})

    def __init__(
        self,
        users: ExpertMatch,
        items: ExpertMatch,
        taken: Taken,
        n_users: int,
        *,
        drawn: int = 5,
        depth: int = 100,
        sharpness: float = 10.0,
        temperature: float = 0.1,
        layer: Layer = "served",
        teacher_layer: Layer = "served",
        seed: int = 0,
    ) -> None:
        """Say what is compared.

        Args:
            users: DE's term of the users in the same objective.
            items: DE's term of the items.
            taken: the users' training items.
            n_users: U.
            drawn: n, items a user and epoch.
            depth: how much of the teacher's list they are drawn from.
            sharpness: the item at rank r is drawn with weight `e^(-r / sharpness)`.
            temperature: of both softmaxes, > 0.
            layer: which of the student's vectors are projected.
            teacher_layer: which of the teacher's they are matched with.
            seed: of the draws.

        Raises:
            UsageError: not 2 <= drawn <= depth, or a factor not positive.
        """
        super().__init__()
        if not 2 <= drawn <= depth or min(sharpness, temperature) <= 0:
            what = "PCKD needs 2 <= drawn <= depth, sharpness and temperature > 0"
            raise UsageError(problem(what, f"drawn={drawn}, depth={depth}"))
        self._experts = (users, items)  # a tuple: they are no part of this one
        self._scratch = (Scratch(), Scratch())
        self._drawn, self._sharpness, self._temperature, self._seed = drawn, sharpness, temperature, seed
        self._layer: Layer = layer
        self._teacher_layer: Layer = teacher_layer
        self._lists = TeacherLists(n_users, min(depth, taken.n_items), taken.keys.device)

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        assert teacher is not None  # noqa: S101 - the loop has checked it
        ids = batch.users.ids
        listed = self._lists.of(teacher.select(batch.users.first), ids)  # (Q, R)
        ranks = torch.arange(1, listed.shape[1] + 1, device=ids.device)
        words = rng.gumbel(rng.key(self._seed, "preferences", clock.epoch), ids, len(ranks)) - ranks / self._sharpness
        words = words.masked_fill(listed < 0, -torch.inf)
        items = listed.gather(1, words.topk(min(self._drawn, len(ranks)), 1).indices)  # (Q, n)
        there = items >= 0
        some, place = items.clamp(min=0).unique(return_inverse=True)
        user = student.entities("user", ids, self._layer).detach()  # what views keep stays in the graph
        item = student.entities("item", some, self._layer).detach()
        of_user = teacher.entities("user", ids, self._teacher_layer)
        of_item = teacher.entities("item", some, self._teacher_layer)
        before = (user[:, None] * item[place]).sum(2)  # (Q, n)
        left, right = self._experts
        user = left.rebuilt(user, of_user, ids, clock, scratch=self._scratch[0])  # (Q, t)
        item = right.rebuilt(item, of_item, some, clock, scratch=self._scratch[1])
        after = (user[:, None] * item[place]).sum(2)
        return Rows(soft_ranking(after, before, there, temperature=self._temperature), of="users")
