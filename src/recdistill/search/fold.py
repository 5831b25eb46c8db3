"""A derived chain made ready to serve: norms folded into what they follow, `none` edges and dead nodes gone.

Letters: Q queries, T time, C width.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.search.cells import Cell
from recdistill.search.operators import OnEdge

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.search.cells import Chain

M = TypeVar("M", bound=nn.Module)

__all__ = ["Folded", "fold"]


def fold(chain: Chain) -> Folded:
    """The same function in evaluation, with fewer operations.

    Raises:
        UsageError: an edge holds several operators: it is a supernet, not a derived chain.
    """
    return Folded(chain)


class Folded(nn.Module):
    """(Q, T, C), (Q, T) bool -> (Q, T, C): the output of a chain in evaluation."""

    def __init__(self, chain: Chain) -> None:
        """Copy what is live in `chain`."""
        super().__init__()
        cells = [cell for cell in chain.cells if isinstance(cell, Cell)]
        if any(len(edge) != 1 for cell in cells for edge in cell.operators):
            raise UsageError(problem("Only a derived chain can be folded", remedy="Derive one from the supernet first"))
        self.cells = nn.ModuleList(_FoldedCell(cell) for cell in cells)
        exits = [module for name, module in chain.exits.items() if name == str(len(cells))]
        self.exit = _copied(exits[0]) if exits else nn.Identity()
        self.eval()

    @override
    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        for cell in self.cells:
            x = cell(x, real)
        return self.exit(x)


class _FoldedCell(nn.Module):
    """The live edges, by the node they lead to; a node is the sum of its edges and a constant."""

    constant: Tensor

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.pads = cell.pads
        self.share: list[float] = cell.mix.detach().softmax(0).tolist()
        self.norm = _copied(cell.norm)
        constant = cell.norm.weight.new_zeros(cell.space.nodes + 1, len(cell.norm.weight)).detach()  # (N + 1, C)
        live: dict[int, list[tuple[int, OnEdge]]] = {0: []}  # node -> (source, operator)
        dead = set[int]()
        for edge, (source, target) in enumerate(cell.space.edges):
            live.setdefault(target, [])
            (operator,) = cell.operators[edge]
            module = _operator(cell, edge)
            if not operator.reads:
                pass
            elif source not in dead:
                live[target].append((source, module.folded()))
            elif (given := module.of_zeros()) is not None:
                constant[target] += given
            if source == target - 1 and not live[target] and not constant[target].any():
                dead.add(target)
        self.dead = frozenset(dead)
        self.sources = {target: [source for source, _ in edges] for target, edges in live.items()}
        self.edges = nn.ModuleDict({str(t): nn.ModuleList(module for _, module in edges) for t, edges in live.items()})
        self.register_buffer("constant", constant[:, :, None])  # (N + 1, C, 1)

    @override
    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        mask = real[:, None]  # (Q, 1, T)
        h = x.transpose(1, 2)  # (Q, C, T)
        nodes = [self._opened(h, mask)]
        total = torch.zeros_like(h)
        for target in range(1, len(self.sources)):
            node = self.constant[target].expand_as(h)
            if target not in self.dead:
                operators = self.edges[str(target)]
                assert isinstance(operators, nn.ModuleList)  # noqa: S101 - ModuleDict forgets what it holds
                for source, operator in zip(self.sources[target], operators, strict=True):
                    node = node + operator(nodes[source], mask)
                total = total + self.share[target - 1] * node
            nodes.append(self._opened(node, mask))
        y = x + F.relu(self.norm(total.transpose(1, 2)))  # (Q, T, C)
        return y if self.pads else y * real[..., None]

    def _opened(self, h: Tensor, mask: Tensor) -> Tensor:
        return F.relu(h) if self.pads else F.relu(h) * mask


def _operator(cell: Cell, edge: int) -> OnEdge:
    operators = cell.edges[edge]
    assert isinstance(operators, nn.ModuleDict)  # noqa: S101
    module = next(iter(operators.values()))
    assert isinstance(module, OnEdge)  # noqa: S101
    return module


def _copied(module: M) -> M:
    return copy.deepcopy(module)
