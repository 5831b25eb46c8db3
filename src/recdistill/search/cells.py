"""A cell, and a chain of them: what the search trains and what is derived are the same two classes.

Chen et al., AdaRec, arXiv:2107.07173, as in the official code: `h_j = sum_{i < j} edge_ij(ReLU(h_i))` with h_0 the
input, and `y = x + ReLU(LN(sum_j softmax(w)_j h_j))`.

Letters: Q queries, T time, C width, S cells, E edges, P paths, N nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from recdistill import rng
from recdistill.errors import UsageError, problem
from recdistill.search.operators import OnEdge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from recdistill.search.norm import Over
    from recdistill.search.operators import Operator
    from recdistill.search.sampling import Choice
    from recdistill.search.space import Space

__all__ = ["Cell", "Chain", "States"]


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """What a chain makes of a batch."""

    output: Tensor
    """(Q, T, C): what the output layer scores with."""
    layers: Tensor
    """(S', Q, T, C): the state after every cell that was needed, S' <= S."""


class Cell(nn.Module):
    """Nodes joined by edges; an edge holds one operator (derived) or all of a space's (supernet)."""

    def __init__(
        self, space: Space, edges: Sequence[Sequence[Operator]], width: int, *, over: Over, pads: bool
    ) -> None:
        """Hold the operators of each edge, in the order of `space.edges`; `pads`: whether padding is read."""
        super().__init__()
        self.space, self.pads = space, pads
        self.operators = tuple(tuple(edge) for edge in edges)
        self.edges = nn.ModuleList(nn.ModuleDict({one.name: one.build(width, over) for one in edge}) for edge in edges)
        self.mix = nn.Parameter(torch.empty(space.nodes))  # (N,)
        self.norm = nn.LayerNorm(width, eps=1e-8)

    def forward(
        self, x: Tensor, real: Tensor, paths: Sequence[Sequence[int]], weights: Tensor | None, *, whole: bool
    ) -> Tensor:
        """Apply the cell.

        Args:
            x: (Q, T, C)
            real: (Q, T) bool
            paths: E x P operators to ask on each edge, the sampled one first.
            weights: (E, P) their gates, or None when the first ones are all there is.
            whole: whether every path belongs to the graph.

        Returns:
            (Q, T, C)
        """
        mask = real[:, None]  # (Q, 1, T)
        nodes = [self._opened(x.transpose(1, 2), mask)]  # ReLU(h_i): (Q, C, T)
        total = x.new_zeros(())
        share = self.mix.softmax(0)  # (N,)
        for target in range(1, self.space.nodes + 1):
            first = target * (target - 1) // 2  # the edges into a node stand together, by source
            node = x.new_zeros(())
            for edge, source in enumerate(range(target), first):
                gate = None if weights is None else weights[edge]
                node = node + self._edge(edge, nodes[source], mask, paths[edge], gate, whole=whole)
            total = total + share[target - 1] * node
            nodes.append(self._opened(node, mask))
        y = x + F.relu(self.norm(total.transpose(1, 2)))  # (Q, T, C)
        return y if self.pads else y * real[..., None]

    def _opened(self, h: Tensor, mask: Tensor) -> Tensor:
        return F.relu(h) if self.pads else F.relu(h) * mask

    def _edge(
        self, edge: int, x: Tensor, mask: Tensor, paths: Sequence[int], gate: Tensor | None, *, whole: bool
    ) -> Tensor:
        value = self._ask(edge, paths[0], x, mask, track=True)
        if gate is None:
            return value
        value = value * gate[0]
        for place, path in enumerate(paths[1:], 1):
            with torch.set_grad_enabled(whole and torch.is_grad_enabled()):
                other = self._ask(edge, path, x, mask, track=whole)
            value = value + other * gate[place]
        return value

    def _ask(self, edge: int, path: int, x: Tensor, mask: Tensor, *, track: bool) -> Tensor:
        operators = self.edges[edge]
        assert isinstance(operators, nn.ModuleDict)  # noqa: S101 - ModuleList forgets what it holds
        operator = operators[self.operators[edge][path].name]
        assert isinstance(operator, OnEdge)  # noqa: S101
        return operator(x, mask, track=track)


class Chain(nn.Module):
    """Cells one after the other: the body of a student."""

    def __init__(
        self,
        space: Space,
        cells: Sequence[Sequence[Sequence[Operator]]],
        *,
        width: int,
        over: Over = "real",
        pads: bool = False,
        exits: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        """Build the cells and draw their weights.

        Args:
            space: what the operators belong to.
            cells: S x E x operators: the operators of each edge of each cell.
            width: C.
            over: which positions make the statistics of norms.
            pads: whether padding is read by its neighbours (official code); if not, its states are zero.
            exits: the depths, from 1, that end in a norm of their own, as all must where depth is searched: states
                grow with depth, and one output layer serves them all.
            seed: of the weights; each is a function of (seed, its name), so a derived cell's fresh weights do not
                depend on what else was built.

        Raises:
            UsageError: there is no cell.
        """
        super().__init__()
        if not cells:
            raise UsageError(problem("A chain needs at least one cell"))
        self.space, self.width = space, width
        self.cells = nn.ModuleList(Cell(space, edges, width, over=over, pads=pads) for edges in cells)
        self.exits = nn.ModuleDict({str(depth): nn.LayerNorm(width, eps=1e-8) for depth in exits})
        self._draw(seed)

    @classmethod
    def supernet(
        cls, space: Space, *, cells: int = 4, width: int = 64, over: Over = "real", pads: bool = False,
        depth: bool = False, seed: int = 0,
    ) -> Chain:  # fmt: skip
        """All operators of the space on every edge of `cells` cells; with `depth` there is an exit after each."""
        edges = [space.operators] * len(space.edges)
        exits = range(1, cells + 1) if depth else ()
        return cls(space, [edges] * cells, width=width, over=over, pads=pads, exits=exits, seed=seed)

    @override
    def forward(self, x: Tensor, real: Tensor, choice: Choice | None = None) -> States:
        """Apply the cells that the choice needs.

        Args:
            x: (Q, T, C) embedded histories.
            real: (Q, T) bool, which positions are items.
            choice: the operators of each edge; None: the only ones there are.
        """
        depths = (len(self.cells),) if choice is None or not choice.depths else choice.depths
        layers: list[Tensor] = []
        for place in range(max(depths)):
            weights = None
            if choice is not None and choice.weights is not None:
                weights = choice.weights[min(place, len(choice.weights) - 1)]
            with torch.set_grad_enabled(torch.is_grad_enabled() and place < depths[0]):
                cell = self.cells[place]
                x = cell(x, real, self._paths(choice, place), weights, whole=choice is not None and choice.whole)
            layers.append(x)
        output = self._exit(depths[0], layers)
        if choice is not None and choice.depth_weights is not None:
            output = output * choice.depth_weights[0]
            for depth, gate in zip(depths[1:], choice.depth_weights[1:], strict=True):
                with torch.no_grad():
                    other = self._exit(depth, layers)
                output = output + other * gate
        return States(output, torch.stack(layers[: depths[0]]))

    def gap(self, choice: Choice | None) -> int:
        """Paddings between two histories of one row that keep the operators of a choice from reading across."""
        asked = (
            cell.operators[edge][path].gap
            for place, cell in enumerate(self._cells)
            for edge, paths in enumerate(self._paths(choice, place))
            for path in paths
        )
        return max(1, *asked)

    @property
    def _cells(self) -> list[Cell]:
        return [cell for cell in self.cells if isinstance(cell, Cell)]  # ModuleList forgets what it holds

    def _paths(self, choice: Choice | None, place: int) -> Sequence[Sequence[int]]:
        """E x P: the operators that are asked on each edge of the cell at `place`."""
        if choice is None:
            return [(0,)] * len(self.space.edges)
        return choice.paths[min(place, len(choice.paths) - 1)]

    def _exit(self, depth: int, layers: Sequence[Tensor]) -> Tensor:
        state = layers[depth - 1]
        return self.exits[str(depth)](state) if str(depth) in self.exits else state

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        for name, module in self.named_modules():
            generator = torch.Generator().manual_seed(rng.key(seed, f"cells {name}"))
            if isinstance(module, Cell):
                nn.init.normal_(module.mix, std=1e-2, generator=generator)
            elif isinstance(module, OnEdge):
                module.draw(generator)
