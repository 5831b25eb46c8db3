"""FreqD's term: projected vectors against the teacher's, both smoothed over neighbours. Zhu & Zhang, KDD 2025.

Letters: n entities of one side, s student width, t teacher width, m entities of a batch and their neighbours, p edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from recdistill import rng
from recdistill.errors import UsageError, problem
from recdistill.knowledge.cooccurrence import together
from recdistill.knowledge.view import Kind
from recdistill.losses.expert_match import squared_distance
from recdistill.objective import Term
from recdistill.query import Rows
from recdistill.terms.embedding_match import projection

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.draws import Taken
    from recdistill.knowledge.cooccurrence import Neighbours
    from recdistill.knowledge.view import Layer, View
    from recdistill.query import Batch, Side

__all__ = ["LowPass"]


class LowPass(Term):
    """`|| (H P(X))_e - (H T)_e ||^2` with `H = a A + (1 - a) I`, for the distinct entities of a batch.

    A is the graph of what occurs together. P is linear with a bias, or has one hidden layer with ReLU. An item counts
    1/2 for each role; whom the teacher has no vector of is nobody's neighbour, and counts 0.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})

    def __init__(
        self,
        side: Side,
        taken: Taken,
        *,
        student_dim: int,
        teacher_dim: int,
        neighbours: int = 10,
        smooth: float = 0.5,
        keep: float = 1.0,
        hidden: int = 0,
        match: Literal["squared", "cosine"] = "squared",
        layer: Layer = "served",
        teacher_layer: Layer = "served",
        seed: int = 0,
    ) -> None:
        """Build the projection of one side; the graph is made at the first step.

        Args:
            side: "user" or "item".
            taken: the users' training items.
            student_dim: s.
            teacher_dim: t.
            neighbours: edges from each entity, before the graph is made symmetric.
            smooth: a, in [0, 1]; 0 compares as FitNet does.
            keep: chance that an edge is there in a step, in (0, 1]; those that are weigh 1 / keep.
            hidden: width of a hidden layer; 0 = linear.
            match: "squared" distance, or 1 - "cosine".
            layer: which of the student's vectors are matched.
            teacher_layer: which of the teacher's.
            seed: of the initial weights and of the edges.

        Raises:
            UsageError: a number is out of range.
        """
        super().__init__()
        if neighbours < 1 or hidden < 0 or not 0 <= smooth <= 1 or not 0 < keep <= 1:
            what = "FreqD needs neighbours >= 1, hidden >= 0, smooth in [0, 1] and keep in (0, 1]"
            raise UsageError(problem(what, f"{neighbours}, {hidden}, {smooth}, {keep}"))
        self._side: Side = side
        self._layer: Layer = layer
        self._teacher_layer: Layer = teacher_layer
        self._taken, self._neighbours, self._smooth, self._keep = taken, neighbours, smooth, keep
        self._match, self._seed = match, seed
        self._graph: Neighbours | None = None
        widths = [student_dim, *([hidden] if hidden else []), teacher_dim]
        layers = [
            projection(widths[at], widths[at + 1], rng.key(seed, f"projection of {side}", at))
            for at in range(len(widths) - 1)
        ]
        self.layers, self._last = nn.ModuleList(layers), (layers[-1],)  # a tuple: it is registered once

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        assert teacher is not None  # noqa: S101 - the loop has checked it
        who = batch.users if self._side == "user" else batch.items
        graph = self.graph()
        row, edge = graph.of(who.ids)  # (p,), (p,)
        weight = graph.weight[edge] * self._smooth
        if self._keep < 1:
            key = rng.key(self._seed, f"edges {self._side}", clock.epoch, clock.step)
            weight = weight * (rng.uniform(key, edge, 1)[:, 0] < self._keep) / self._keep
        everybody, place = torch.cat([who.ids, graph.other[edge]]).unique(return_inverse=True)  # (m,)
        target = teacher.entities(self._side, everybody, self._teacher_layer)  # (m, t)
        ours = student.entities(self._side, everybody, self._layer)
        there = teacher.has(self._side, everybody)
        own, other = place[: len(who.ids)], place[len(who.ids) :]
        if there is not None:
            weight = weight * there[other]
        theirs, mine = (self._smoothed(vectors, own, row, other, weight) for vectors in (target, self._hidden(ours)))
        (last,) = self._last
        total = (1 - self._smooth) + mine.new_zeros(len(own)).index_add_(0, row, weight.to(mine.dtype))
        mine = F.linear(mine, last.weight) + total[:, None] * last.bias  # H (X W' + b) = (H X) W' + (H 1) b: fewer rows
        if self._match == "cosine":
            value = 1 - F.cosine_similarity(theirs, mine, dim=1)
        else:
            value = squared_distance(theirs, mine)
        share = who.share if there is None else who.share * there[own]
        return Rows(share * value, of="users" if self._side == "user" else "items")

    def graph(self) -> Neighbours:
        """The graph of the side."""
        if self._graph is None:
            turned = self._taken.turned()
            both = (self._taken, turned) if self._side == "user" else (turned, self._taken)
            self._graph = together(*both, self._neighbours)
        return self._graph

    def _hidden(self, ours: Tensor) -> Tensor:
        """All layers but the last, which is linear and so may come after the smoothing."""
        for layer in self.layers[:-1]:
            ours = F.relu(layer(ours))
        return ours

    def _smoothed(self, vectors: Tensor, own: Tensor, row: Tensor, other: Tensor, weight: Tensor) -> Tensor:
        """(m, d) -> (n, d)."""
        begin = torch.searchsorted(row, torch.arange(len(own), device=row.device))  # rows come in order
        near = F.embedding_bag(other, vectors, begin, mode="sum", per_sample_weights=weight.to(vectors.dtype))
        return (1 - self._smooth) * vectors.index_select(0, own) + near
