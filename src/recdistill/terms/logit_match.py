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
    """`KL` of the two softmaxes over all items, for each answer of the views.

    It holds (n, I) scores of both models: for large catalogues ask fewer positions a step.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(
        self,
        n_items: int,
        *,
        direction: Direction = "forward",
        temperature: float = 1.0,
        per: Per = "position",
        how: How = "mean",
    ) -> None:
        """Compare over items 0..I-1.

        Args:
            n_items: I.
            direction: "forward" KL(teacher || student), or "reverse" (AdaRec's official code).
            temperature: of both softmaxes, > 0.
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
        self._per: Per = per

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del clock
        assert teacher is not None  # noqa: S101 - the loop has checked it
        self._items = self._items.to(batch.query.row.device)
        with torch.no_grad():
            target = teacher.scores_among(self._items)  # (n, I)
        value = kl(student.scores_among(self._items), target, direction=self._direction, temperature=self._temperature)
        return rows(value, batch.query, "asked", self._per, self.how)
