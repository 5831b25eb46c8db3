"""The L2 penalty on the raw vectors of a batch. He et al., LightGCN, SIGIR 2020, arXiv:2002.02126, eq. 15.

The paper writes `lambda ||E^(0)||^2`; its official code takes the rows of the batch, halves the sum and divides it by
the batch size, beside a mean BPR loss. Summed over the batch, as everything is here, the ratio of the two is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from recdistill.knowledge.view import Kind
from recdistill.objective import Term
from recdistill.query import Rows

if TYPE_CHECKING:
    from recdistill.clock import Clock
    from recdistill.knowledge.view import View
    from recdistill.query import Batch
    from recdistill.runtime import How

__all__ = ["EmbeddingL2"]


class EmbeddingL2(Term):
    """`1/2 (||e_u||^2 + ||e_i||^2 + sum_j ||e_j||^2)` of each interaction's raw vectors (layer 0)."""

    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})

    def __init__(self, *, how: How = "sum") -> None:
        """Reduce as the base loss it stands beside does."""
        super().__init__()
        self.how = how

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher, clock
        users = student.entities("user", batch.query.row, 0).square().sum(1)  # (B,)
        seen = student.entities("item", batch.positive, 0).square().sum(1)
        drawn = student.entities("item", batch.negatives.flatten(), 0).square().sum(1)  # (B * N,)
        return Rows(0.5 * (users + seen + drawn.view(batch.negatives.shape).sum(1)), of="queries")
