"""The summands that hold a search to its price: a weight on the cost, or a budget that is kept.

Letters: G architectures, E edges, O operators, S cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from typing_extensions import override

from recdistill.objective import Term
from recdistill.query import Rows
from recdistill.search.model import SupernetView

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.knowledge.view import View
    from recdistill.query import Batch
    from recdistill.search.cost import Costs
    from recdistill.search.sampling import Choice

__all__ = ["Chances", "Lagrangian", "Price"]

Chances = Literal["expected", "sampled"]
"""What is priced: the probabilities, or the sampled architecture with straight-through gradients (official code)."""


class Price(Term):
    """The cost of the student's cells as a share of the dearest there could be; one row a step.

    What is fixed has no part in it. In units of the official code's prices it is `sum_edges sum_operators a_eo cost_o`,
    without a factor for cells.
    """

    def __init__(self, costs: Costs, *, chances: Chances = "expected") -> None:
        """Price by `costs`."""
        super().__init__()
        self.how = "mean"
        self._costs = costs
        self._chances: Chances = chances

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher, batch, clock
        assert isinstance(student, SupernetView)  # noqa: S101 - a search has no other
        view, costs = student, self._costs
        chances, depth = _chances(view, self._chances)
        if costs.unit == "price":
            return Rows(costs.expected(chances, None, 1)[None] / len(chances), of="queries")
        cost = costs.expected(chances, depth, view.cells) - costs.fixed
        return Rows(cost[None] / costs.dearest(view.cells, chances.shape[1]), of="queries")


class Lagrangian(Term):
    """Holds the expected cost below a budget; one row a step.

    With v = cost / budget - 1 it is the augmented Lagrangian of `v <= 0`, `(max(l + r v, 0)^2 - l^2) / (2 r)`, and
    after each step in training `l <- max(l + s v, 0)`. The multiplier l is a buffer, so a checkpoint has it. Nocedal &
    Wright, Numerical Optimization, 2006, eq. 17.65 (where s = r; a step is a batch here, so s is smaller).
    """

    multiplier: Tensor

    def __init__(self, costs: Costs, most: float, *, penalty: float = 10.0, step: float = 0.1, begins: int = 0) -> None:
        """Keep `costs` at or below `most`.

        Args:
            costs: the price list.
            most: the budget, in its unit.
            penalty: r > 0.
            step: s > 0, of the multiplier.
            begins: the epoch from which the multiplier learns.
        """
        super().__init__()
        self.how = "mean"
        self._costs, self._most, self._penalty, self._step, self._begins = costs, most, penalty, step, begins
        self.register_buffer("multiplier", torch.zeros(()))  # l

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher, batch
        assert isinstance(student, SupernetView)  # noqa: S101 - a search has no other
        chances, depth = _chances(student, "expected")
        over = self._costs.expected(chances, depth, student.cells) / self._most - 1  # v
        r, multiplier = self._penalty, self.multiplier.clone()
        value = ((multiplier + r * over).clamp(min=0).square() - multiplier.square()) / (2 * r)
        if self.training and clock.epoch >= self._begins:
            with torch.no_grad():
                self.multiplier.add_(self._step * over.detach()).clamp_(min=0)
        return Rows(value[None], of="queries")


def _chances(view: SupernetView, what: Chances) -> tuple[Tensor, Tensor | None]:
    """(G, E, O) of the operators, (S,) of the depths or None."""
    choice: Choice = view.choice
    if what == "sampled" and choice.gates is not None:
        return choice.gates, choice.depth_gates
    architecture = view.architecture
    return architecture.probabilities(), architecture.depth_probabilities()
