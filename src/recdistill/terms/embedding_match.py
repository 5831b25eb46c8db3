"""AdaRec's embedding term: the student's embedded histories, projected, against the teacher's.

Chen et al., AdaRec, arXiv:2107.07173 (official code: `MSE(P_e e_s, e_t)`, the mean over all positions and channels).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from typing_extensions import override

from recdistill import rng
from recdistill.knowledge.view import Kind
from recdistill.losses.embedding_mse import embedding_mse
from recdistill.objective import Term
from recdistill.terms.positions import rows, taken

if TYPE_CHECKING:
    from recdistill.clock import Clock
    from recdistill.knowledge.view import View
    from recdistill.query import Batch, Rows
    from recdistill.runtime import How
    from recdistill.terms.positions import Positions

__all__ = ["EmbeddingMatch", "projection"]


class EmbeddingMatch(Term):
    """The mean squared error of what enters the first layer (state 0), a row a position."""

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.STATES})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.STATES})

    def __init__(
        self, student_dim: int, teacher_dim: int, *, positions: Positions = "asked", how: How = "mean", seed: int = 0
    ) -> None:
        """Project from the student's width to the teacher's with a bias; `seed` is of the projection's start."""
        super().__init__()
        self.how = how
        self._positions: Positions = positions
        self.projection = projection(student_dim, teacher_dim, rng.key(seed, "projection of embeddings"))

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del clock
        assert teacher is not None  # noqa: S101 - the loop has checked it
        with torch.no_grad():
            target = taken(teacher.states()[:1], batch.query, self._positions)[0]  # (n, t)
        ours = self.projection(taken(student.states()[:1], batch.query, self._positions)[0])
        return rows(embedding_mse(ours, target), batch.query, self._positions, "position", self.how)


def projection(inward: int, outward: int, key: int) -> nn.Linear:
    """A linear layer with bias, U(-b, b) with b = 1 / sqrt(inward) as torch has it, drawn from `key`."""
    layer = nn.Linear(inward, outward, device="meta").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(key)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(inward**-0.5), inward**-0.5, generator=generator)
    return layer
