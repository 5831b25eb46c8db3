"""The base loss: the student against the interactions themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from typing_extensions import override

from recdistill.errors import UnknownName, UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.bce import bce
from recdistill.losses.bpr import bpr
from recdistill.losses.sampled_softmax import sampled_softmax
from recdistill.losses.softmax import softmax
from recdistill.objective import Term
from recdistill.query import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.knowledge.view import View
    from recdistill.query import Batch
    from recdistill.runtime import How

__all__ = ["BASE_LOSSES", "SAMPLED_LOSSES", "BaseLoss", "FromInteractions", "check_negatives"]

BaseLoss = Callable[["View", "Batch"], "Tensor"]
"""A student's view of a batch -> (B,) one value per interaction."""


class FromInteractions(Term):
    """A loss of the scores of what was seen; one value per interaction."""

    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(self, loss: str = "bpr", *, how: How = "sum") -> None:
        """Use a loss of `BASE_LOSSES`; DE-RRD sums over the batch, and its weights are relative to that."""
        super().__init__()
        if loss not in BASE_LOSSES:
            raise UnknownName("base loss", loss, BASE_LOSSES)
        self._loss = BASE_LOSSES[loss]
        self.how = how

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher, clock
        value = self._loss(student, batch)
        return Rows(value if batch.weight is None else value * batch.weight, of="queries")


def _sampled(loss: Callable[[Tensor, Tensor], Tensor]) -> BaseLoss:
    """A loss of the scores of seen items (B,) and of drawn ones (B, N)."""

    def of(student: View, batch: Batch) -> Tensor:
        return loss(*_scores(student, batch))

    return of


def _corrected(student: View, batch: Batch) -> Tensor:
    if batch.log_q is None:
        remedy = "Set `log_q` of the batches, or use the loss 'softmax'"
        raise UsageError(problem("The loss 'sampled-softmax' must know how negatives were drawn", remedy=remedy))
    return sampled_softmax(*_scores(student, batch), batch.log_q)


def _whole(student: View, batch: Batch) -> Tensor:
    """`losses.cross_entropy` in the words of a view: whatever the model, over its whole catalogue."""
    nothing = batch.positive.new_empty(len(batch.positive), 0)
    return student.log_partition(nothing) - student.scores(batch.positive[:, None])[:, 0]


def _scores(student: View, batch: Batch) -> tuple[Tensor, Tensor]:
    scores = student.scores(torch.cat([batch.positive[:, None], batch.negatives], 1))  # (B, 1 + N)
    return scores[:, 0], scores[:, 1:]


def check_negatives(loss: object, negatives: int) -> int:
    """How many items are sampled; a loss that compares with sampled items learns nothing without any.

    Raises:
        ValueError: none is sampled for such a loss; settings say which key it is.
    """
    if negatives < 1 and loss in SAMPLED_LOSSES:
        msg = f"the loss {loss!r} compares what was seen with sampled items and needs at least 1 for each interaction"
        raise ValueError(msg)
    return negatives


BASE_LOSSES: dict[str, BaseLoss] = {
    "bpr": _sampled(bpr),
    "bce": _sampled(bce),
    "softmax": _sampled(softmax),
    "sampled-softmax": _corrected,
    "cross-entropy": _whole,
}
SAMPLED_LOSSES = frozenset({"bpr", "bce", "softmax", "sampled-softmax"})
"""Those of the scores of sampled items."""
