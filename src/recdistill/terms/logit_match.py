"""Distillation of logits over the whole catalogue, or over items that are named.

Hinton et al., 2015, arXiv:1503.02531; AdaRec's third term, Chen et al., arXiv:2107.07173.

Letters: n answers of a view, I items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.kl import kl
from recdistill.objective import Term
from recdistill.terms.positions import rows

if TYPE_CHECKING:
    from recdistill.clock import Clock
    from recdistill.knowledge.view import View
    from recdistill.losses.kl import Direction
    from recdistill.query import Batch, Rows
    from recdistill.runtime import How
    from recdistill.terms.positions import Per

__all__ = ["LogitMatch"]


class LogitMatch(Term):
    """`KL` of the two softmaxes over all items, or over the teacher's best, for each answer of the views.

    Over all items it holds (n, I) scores of both models.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(
        self,
        n_items: int,
        *,
        direction: Direction = "forward",
        temperature: float = 1.0,
        best: int = 0,
        per: Per = "position",
        how: How = "mean",
    ) -> None:
        """Compare over items 0..I-1.

        Args:
            n_items: I.
            direction: "forward" KL(teacher || student), or "reverse" (AdaRec's official code).
            temperature: of both softmaxes, > 0.
            best: how many items of the teacher's greatest scores the softmaxes are over; 0 = all.
            per: what a row is.
            how: the mean over rows, or their sum beside a base loss that is summed.

        Raises:
            UsageError: the temperature is not above 0.
        """
        super().__init__()
        self.how = how
        if temperature <= 0:
            raise UsageError(problem("The temperature of logits must be above 0", temperature))
        self._items = torch.arange(n_items)
        self._direction: Direction = direction
        self._temperature = temperature
        self._best = best if 0 < best < n_items else 0
        self._per: Per = per

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del clock
        assert teacher is not None  # noqa: S101 - the loop has checked it
        with torch.no_grad():
            if self._best:
                items, target = teacher.best(self._best)  # (n, k), (n, k)
            else:
                items = self._items = self._items.to(batch.query.row.device)
                target = teacher.scores_among(items)  # (n, I)
        ours = student.scores(items) if self._best else student.scores_among(items)
        value = kl(ours, target, direction=self._direction, temperature=self._temperature)
        return rows(value, batch.query, "asked", self._per, self.how)
