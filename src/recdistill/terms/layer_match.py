"""The hidden-layer term: every student layer learns from the teacher layers that transport assigns to it.

Chen et al., AdaRec, arXiv:2107.07173, as in the official code: one projection for all cells, channels read as
distributions, one plan for the average of a batch, masses that follow the costs.

Letters: Q histories, n positions, S student layers, T teacher layers, s and t widths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.knowledge.view import Kind
from recdistill.losses.layer_kl import layer_costs, transported
from recdistill.objective import Term
from recdistill.terms.embedding_match import projection
from recdistill.terms.positions import rows, taken
from recdistill.terms.transport import attended, exact_plan, one_to_one, one_to_one_plan

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.knowledge.view import View
    from recdistill.losses.kl import Direction
    from recdistill.query import Batch, Query, Rows
    from recdistill.runtime import How
    from recdistill.terms.positions import Per, Positions
    from recdistill.terms.transport import Attention

__all__ = ["LayerMatch", "Mapping", "Opposite"]

Mapping = Literal["emd", "left", "right", "left-jump", "right-jump", "random", "last", "skip", "uniform"]
Opposite = Literal["same", "opposite"]


class LayerMatch(Term):
    """`sum_ij F_ij KL_ij` over the states that leave each layer, a row a position or a history.

    The plan and the masses are constants of a step. In training the masses turn after each step, once, whatever
    calls `forward`; they are buffers, so a checkpoint has them. A student of fewer layers than S (searched depth)
    shares out the masses of those it has.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.STATES})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.STATES})
    scope: ClassVar[Literal["row", "batch"]] = "batch"
    student_mass: Tensor
    teacher_mass: Tensor

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        *,
        students: int,
        teachers: int,
        mapping: Mapping = "emd",
        direction: Direction = "forward",
        attention: Attention = "relative",
        teacher_costs: Opposite = "same",
        positions: Positions = "asked",
        per: Per = "position",
        how: How = "mean",
        seed: int = 0,
    ) -> None:
        """Say what is compared.

        Args:
            student_dim: s.
            teacher_dim: t; states are projected from s to t with a bias, all layers alike.
            students: S, the most layers the student may have.
            teachers: T.
            mapping: "emd", or a fixed pairing of layers (`one_to_one`) for comparison.
            direction: of the divergence.
            attention: how the masses turn, see `attended`.
            teacher_costs: what the teacher's masses follow: the costs of the plan, or (official code) those of the
                opposite direction.
            positions: which positions are compared.
            per: what a row is.
            how: the mean over rows, or their sum beside a base loss that is summed.
            seed: of the projection, and of a random mapping.
        """
        super().__init__()
        self.how = how
        self._mapping: Mapping = mapping
        self._direction: Direction = direction
        self._attention: Attention = attention
        self._teacher_costs: Opposite = teacher_costs
        self._positions: Positions = positions
        self._per: Per = per
        self._seed = seed
        self.projection = projection(student_dim, teacher_dim, rng.key(seed, "projection of states"))
        self.register_buffer("student_mass", torch.full((students,), 1 / students))  # w
        self.register_buffer("teacher_mass", torch.full((teachers,), 1 / teachers))  # u

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del clock
        assert teacher is not None  # noqa: S101 - the loop has checked it
        q, p = self._compared(student, teacher, batch.query)
        with torch.no_grad():
            costs = layer_costs(q, p, direction=self._direction) / max(p.shape[1], 1)  # (S', T)
            plan = self.plan(costs)
            if self.training and self._mapping == "emd" and p.shape[1]:
                opposite: Direction = "reverse" if self._direction == "forward" else "forward"
                same = self._teacher_costs == "same" or self._attention == "none"
                other = costs if same else layer_costs(q, p, direction=opposite) / p.shape[1]
                self.turn(plan, costs, other)
        return rows(
            transported(q, p, plan, direction=self._direction), batch.query, self._positions, self._per, self.how
        )

    @torch.no_grad()
    def mapping(self, student: View, teacher: View, query: Query) -> Tensor:
        """(S', T): the plan for a query from the masses as they stand, which stay; to look at."""
        q, p = self._compared(student, teacher, query)
        return self.plan(layer_costs(q, p, direction=self._direction) / max(p.shape[1], 1))

    def plan(self, costs: Tensor) -> Tensor:
        """(S', T) costs -> (S', T): the plan of this step, from the masses as they stand."""
        if self._mapping == "emd":
            return exact_plan(costs.clamp(min=0), self.student_mass[: costs.shape[0]], self.teacher_mass)
        return one_to_one_plan(one_to_one(self._mapping, *costs.shape, seed=self._seed), costs.shape[1], costs)

    @torch.no_grad()
    def turn(self, plan: Tensor, costs: Tensor, teacher_costs: Tensor) -> None:
        """Let the masses follow the costs (S', T) of a step."""
        there = self.student_mass[: len(plan)]
        held = there.sum()
        there.copy_(held * attended(plan, costs, there / held, side="student", rule=self._attention))
        self.teacher_mass.copy_(attended(plan, teacher_costs, self.teacher_mass, side="teacher", rule=self._attention))

    def _compared(self, student: View, teacher: View, query: Query) -> tuple[Tensor, Tensor]:
        """(S', n, t) and (T, n, t) log-probabilities; the teacher's without a gradient."""
        with torch.no_grad():
            p = taken(teacher.states()[1:], query, self._positions).log_softmax(-1)
        return self.projection(taken(student.states()[1:], query, self._positions)).log_softmax(-1), p
