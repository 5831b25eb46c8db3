"""DE's term: experts rebuild the teacher's vectors from the student's. Kang et al., CIKM 2020, arXiv:2012.04357.

Letters: n entities of one side, M experts, h their hidden width, s student width, t teacher width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import nn
from typing_extensions import override

from recdistill import rng
from recdistill.errors import MissingKnowledge, UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.expert_match import distance, squared_distance
from recdistill.objective import Term
from recdistill.query import Rows
from recdistill.terms.mixture import Experts, Scratch, mixture

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock, Schedule
    from recdistill.knowledge.view import Layer, View
    from recdistill.query import Batch, Side
    from recdistill.terms.mixture import Precision

__all__ = ["ExpertMatch"]


class ExpertMatch(Term):
    """`|| t_e - sum_m s_em E_m(x_e) ||^2` for the distinct users, or the distinct items, of a batch.

    The weights `s_e = softmax((log(softmax(W t_e + b) + 1e-10) + g) / tau)` see the teacher's vector alone and are
    always soft: no arg-max and no straight-through step, they only approach one expert as tau falls. `g` is Gumbel
    noise, a function of (seed, side, epoch, step, entity). An item counts 1/2 for each role it plays in the batch;
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
        temperature: Schedule,
        experts: int = 30,
        layer: Layer = "served",
        teacher_layer: Layer = "served",
        norm: Literal["squared", "plain"] = "squared",
        dropped: float = 1e-3,
        precision: Precision = "float32",
        roles: Literal["half", "once"] = "half",
        seed: int = 0,
    ) -> None:
        """Build the experts of one side.

        Args:
            side: "user" or "item".
            student_dim: s, the width of the student's vectors.
            teacher_dim: t, the width of the teacher's.
            temperature: tau as a function of the clock, > 0.
            experts: M; with 1 there is no selection.
            layer: which of the student's vectors are matched.
            teacher_layer: which of the teacher's.
            norm: "squared", as the official code; "plain", as the paper prints.
            dropped: how much of an entity's weight may be left out by not asking its least experts, in [0, 1).
            precision: of the large products, see `mixture`.
            roles: "half" counts an item 1/2 for each role it plays in the batch; "once" counts everybody 1.
            seed: of the initial weights and of the noise.

        Raises:
            UsageError: a count is under 1.
        """
        super().__init__()
        for name, value in (("experts", experts), ("student_dim", student_dim), ("teacher_dim", teacher_dim)):
            if value < 1:
                raise UsageError(problem(f"DE needs {name} >= 1", value))
        self._side: Side = side
        self._layer: Layer = layer
        self._teacher_layer: Layer = teacher_layer
        self._temperature, self._seed = temperature, seed
        self._distance = squared_distance if norm == "squared" else distance
        self._roles: Literal["half", "once"] = roles
        self._dropped: float = dropped
        self._precision: Precision = precision
        self._scratch = Scratch()
        self.experts = experts
        hidden = max((student_dim + teacher_dim) // 2 if student_dim != teacher_dim else student_dim // 2, 1)
        generator = torch.Generator().manual_seed(rng.key(seed, f"experts of {side}"))

        def linear(fan_in: int, *shape: int) -> nn.Parameter:  # the initialisation of nn.Linear, weights and biases
            bound = 1 / math.sqrt(fan_in)
            return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound, generator=generator))

        self.gate_weight = linear(teacher_dim, experts, teacher_dim)  # (M, t)
        self.gate_bias = linear(teacher_dim, experts)  # (M,)
        self.w1 = linear(student_dim, experts * hidden, student_dim)  # (M * h, s)
        self.b1 = linear(student_dim, experts * hidden)  # (M * h,)
        self.w2 = linear(hidden, experts * hidden, teacher_dim)  # (M * h, t)
        self.b2 = linear(hidden, experts, teacher_dim)  # (M, t)

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        if teacher is None:
            raise MissingKnowledge(Kind.VECTORS, "No teacher", "Give the pass of this term a teacher")
        who = batch.users if self._side == "user" else batch.items
        target = teacher.entities(self._side, who.ids, self._teacher_layer)  # (n, t)
        x = student.entities(self._side, who.ids, self._layer)  # (n, s)
        rebuilt = self.rebuilt(x, target, who.ids, clock, scratch=self._scratch)  # (n, t)
        there = teacher.has(self._side, who.ids)
        share = who.share if self._roles == "half" else torch.ones_like(who.share)
        share = share if there is None else share * there
        return Rows(share * self._distance(target, rebuilt), of="users" if self._side == "user" else "items")

    def rebuilt(self, x: Tensor, target: Tensor, ids: Tensor, clock: Clock, *, scratch: Scratch) -> Tensor:
        """(n, s) student and (n, t) teacher vectors of the rows (n,) -> (n, t) what the experts make of the former."""
        experts = Experts(self.w1, self.b1, self.w2, self.b2)
        weights = self.weights(target, ids, clock)
        return mixture(x, weights, experts, dropped=self._dropped, precision=self._precision, scratch=scratch)

    def group(self, target: Tensor) -> Tensor:
        """(n, t) teacher vectors -> (n,) int64 which expert each would choose without noise."""
        with torch.no_grad():
            return torch.addmm(self.gate_bias, target, self.gate_weight.T).argmax(1)

    def weights(self, target: Tensor, ids: Tensor, clock: Clock) -> Tensor:
        """(n, t) teacher vectors, (n,) their rows -> (n, M) how much each expert counts; rows sum to 1."""
        if self.experts == 1:
            return target.new_ones(target.shape[0], 1)
        choice = torch.addmm(self.gate_bias, target, self.gate_weight.T).softmax(1)  # (n, M)
        noise = rng.gumbel(rng.key(self._seed, f"gumbel {self._side}", clock.epoch, clock.step), ids, self.experts)
        return (((choice + 1e-10).log() + noise) / self._temperature(clock)).softmax(1)
