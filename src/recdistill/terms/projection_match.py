"""FitNet's term: the student's vectors, projected, against the teacher's. Romero et al., ICLR 2015, arXiv:1412.6550.

Letters: n entities of one side, s student width, t teacher width, h hidden width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from recdistill import rng
from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.expert_match import squared_distance
from recdistill.objective import Term
from recdistill.query import Distinct, Rows
from recdistill.terms.embedding_match import projection

if TYPE_CHECKING:
    from recdistill.clock import Clock
    from recdistill.knowledge.view import Layer, View
    from recdistill.query import Batch, Side

__all__ = ["ProjectionMatch"]


class ProjectionMatch(Term):
    """`|| t_e - P(x_e) ||^2` of one side: its distinct entities in the batch, or as many drawn from all of them.

    P is linear with a bias, or has one hidden layer with ReLU. An item counts 1/2 for each role it plays in the batch;
    what the teacher has no vector of counts 0.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})

    def __init__(
        self,
        side: Side,
        *,
        student_dim: int,
        teacher_dim: int,
        rows: int,
        hidden: int = 0,
        lengths: Literal["kept", "unit"] = "kept",
        entities: Literal["batch", "uniform"] = "batch",
        layer: Layer = "served",
        teacher_layer: Layer = "served",
        seed: int = 0,
    ) -> None:
        """Build the projection of one side.

        Args:
            side: "user" or "item".
            student_dim: s.
            teacher_dim: t.
            rows: how many there are of that side.
            hidden: h; 0 = linear.
            lengths: "unit" divides both vectors by their lengths first.
            entities: "batch", or "uniform": drawn from all rows, so that who is rarely met is matched as often.
            layer: which of the student's vectors are matched.
            teacher_layer: which of the teacher's.
            seed: of the initial weights and the draws.

        Raises:
            UsageError: `hidden` is negative.
        """
        super().__init__()
        if hidden < 0:
            raise UsageError(problem("FitNet needs hidden >= 0", hidden))
        self._side: Side = side
        self._layer: Layer = layer
        self._teacher_layer: Layer = teacher_layer
        self._rows, self._lengths, self._entities, self._seed = rows, lengths, entities, seed
        widths = [student_dim, *([hidden] if hidden else []), teacher_dim]
        self.layers = nn.ModuleList(
            projection(widths[at], widths[at + 1], rng.key(seed, f"projection of {side}", at))
            for at in range(len(widths) - 1)
        )

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        assert teacher is not None  # noqa: S101 - the loop has checked it
        who = batch.users if self._side == "user" else batch.items
        if self._entities == "uniform":
            place = torch.arange(len(batch.positive), device=who.ids.device)
            key = rng.key(self._seed, f"entities {self._side}", clock.epoch, clock.step)
            who = Distinct.of(rng.integers(key, place, 1, self._rows)[:, 0])
        target = teacher.entities(self._side, who.ids, self._teacher_layer)  # (n, t)
        ours = student.entities(self._side, who.ids, self._layer)  # (n, s)
        for at, layer in enumerate(self.layers):
            ours = layer(ours if at == 0 else F.relu(ours))
        if self._lengths == "unit":
            target, ours = F.normalize(target, dim=1), F.normalize(ours, dim=1)
        there = teacher.has(self._side, who.ids)
        share = who.share if there is None else who.share * there
        return Rows(share * squared_distance(target, ours), of="users" if self._side == "user" else "items")
