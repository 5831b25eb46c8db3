"""What an architecture costs: a number for every operator, added up, and differentiable in the chances of each.

    cost = fixed + sum_s P(depth >= s) (cell + sum_e sum_o p_eo operator_o)

The numbers are parameters, bytes or multiply-adds of the real shape, milliseconds measured on this device
(`search.latency`), or the official code's prices. Chen et al., AdaRec, arXiv:2107.07173 (cost-sensitive loss).

Letters: C width, T time, I items, S cells, G architectures (1 or S), E edges, O operators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from recdistill.search.derive import Design
    from recdistill.search.space import Space

__all__ = ["FROZEN", "Costs", "Priced", "Shape", "counted", "published"]

Priced = Literal["macs", "params", "bytes", "latency", "published", "frozen"]
"""What a price is; "frozen" is the official code's table, made for width 128 and length 100 whatever the shape."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a student is asked to do; prices are of this."""

    width: int
    """C."""
    length: int
    """T."""
    items: int = 0
    """I, whose tables and scores are the fixed part of the cost."""
    batch: int = 1
    """Histories at a time, of a measured latency."""
    tied: bool = True
    """Whether one table serves as input and output."""
    positions: bool = True
    """Whether positions are learned."""
    norm: bool = True
    """Whether embedded histories go through a norm."""
    bias: bool = False
    """Whether items have a bias."""
    exit: bool = False
    """Whether the last cell ends in a norm of its own, as where depth is searched."""

    @property
    def table_params(self) -> int:
        """Numbers outside the cells."""
        norms = 2 * self.width * (self.norm + self.exit)
        rows = self.items * (1 if self.tied else 2) + (self.length if self.positions else 0)
        return rows * self.width + (self.items if self.bias else 0) + norms


FROZEN = Shape(width=128, length=100)
"""What the official code's prices were computed for."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The price list of a space at a shape."""

    unit: str
    """ "parameters", "bytes", "multiply-adds", "ms", or "price"."""
    operators: tuple[float, ...]
    """Of each operator of the space on one edge, in its order."""
    cell: float = 0.0
    """Of a cell, whatever is on its edges."""
    fixed: float = 0.0
    """Of all that is no cell."""
    digest: str = ""
    """Of the table it came from; empty when it was counted."""

    def expected(self, chances: Tensor, depth: Tensor | None, cells: int) -> Tensor:
        """The mean cost.

        Args:
            chances: (G, E, O) of the operators: probabilities, or straight-through gates of a sample.
            depth: (S,) of the depths from 1, or None when all cells are there.
            cells: S.

        Returns:
            () in `unit`, differentiable in both.
        """
        price = chances.new_tensor(self.operators)
        each = (chances * price).sum((1, 2)) + self.cell  # (G,)
        each = each.expand(cells) if len(each) == 1 else each  # (S,)
        if depth is not None:
            each = each * depth.flip(0).cumsum(0).flip(0)  # P(depth >= s)
        return each.sum() + self.fixed

    def of(self, design: Design, space: Space) -> float:
        """What a design costs, in `unit`."""
        rows = ([self.operators[space.index(name)] for name in names] for names in design.operators)
        return self.fixed + sum(self.cell + sum(row) for row in rows)

    def dearest(self, cells: int, edges: int) -> float:
        """What can be saved at most, in `unit`: all that is not fixed, of the dearest architecture."""
        return cells * (self.cell + edges * max(self.operators))


def counted(space: Space, shape: Shape, what: Literal["macs", "params", "bytes"]) -> Costs:
    """Parameters, bytes (of float32) or multiply-adds (of one history, scored at its end against all items).

    An operator counts what it says of itself: a convolution k C^2 + 3 C numbers (bias and norm included) and T times as
    many multiply-adds. A cell adds its mixing (N numbers) and norm (2 C).
    """
    c, t = shape.width, shape.length
    if what == "macs":
        each = tuple(float(operator.macs(c, t)) for operator in space.operators)
        return Costs("multiply-adds", each, float(t * c * (space.nodes + 2)), float(shape.items * c))
    size = 4 if what == "bytes" else 1
    each = tuple(float(size * operator.params(c)) for operator in space.operators)
    unit = "bytes" if what == "bytes" else "parameters"
    return Costs(unit, each, float(size * (space.nodes + 2 * c)), float(size * shape.table_params))


def published(space: Space, shape: Shape = FROZEN) -> Costs:
    """The official code's prices: `10 * 1/2 (softmax(MACs / 1e6) + softmax(params / 1e6))`, zeros taken as 1.

    They sum to 10 over the operators. Neither fixed costs nor cells have a price, and the number of cells has none in
    the official code: see `Price`. A softmax of absolute numbers depends on their unit; computed for another shape
    than (128, 100) the prices come out nearly equal.
    """
    macs = [operator.macs(shape.width, shape.length) or 1 for operator in space.operators]
    params = [operator.params(shape.width) or 1 for operator in space.operators]
    both = zip(_softmax(macs), _softmax(params), strict=True)
    return Costs("price", tuple(5 * (one + other) for one, other in both))


def _softmax(counts: Sequence[int]) -> list[float]:
    top = max(counts)
    each = [math.exp((count - top) / 1e6) for count in counts]
    return [one / sum(each) for one in each]


def one_hot(paths: Sequence[Sequence[int]], operators: int) -> Tensor:
    """G x E operators -> (G, E, O) float64 chances that are sure."""
    return torch.nn.functional.one_hot(torch.tensor([list(row) for row in paths]), operators).double()
