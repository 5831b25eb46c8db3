"""The base loss: the student against the interactions themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from typing_extensions import override

from recdistill.errors import UnknownName
from recdistill.knowledge.view import Kind
from recdistill.losses.bce import bce
from recdistill.losses.bpr import bpr
from recdistill.losses.softmax import softmax
from recdistill.objective import Term
from recdistill.query import Rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.knowledge.view import View
    from recdistill.query import Batch
    from recdistill.runtime import How

__all__ = ["BASE_LOSSES", "FromInteractions"]

BASE_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"bpr": bpr, "bce": bce, "softmax": softmax}


class FromInteractions(Term):
    """A loss of the scores of seen items (B,) and of sampled ones (B, N); one value per interaction."""

    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(self, loss: str = "bpr", *, how: How = "sum") -> None:
        """Use the loss "bpr", "bce" or "softmax"; DE-RRD sums over the batch, and its weights are relative to that."""
        super().__init__()
        if loss not in BASE_LOSSES:
            raise UnknownName("base loss", loss, BASE_LOSSES)
        self._loss = BASE_LOSSES[loss]
        self.how = how

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher, clock
        scores = student.scores(torch.cat([batch.positive[:, None], batch.negatives], 1))  # (B, 1 + N)
        value = self._loss(scores[:, 0], scores[:, 1:])
        return Rows(value if batch.weight is None else value * batch.weight, of="queries")
