"""The architecture as numbers that are learned, and one sample of it a step.

With z = (log softmax(alpha) + g) / tau and g Gumbel noise, the operator of greatest z is sampled for each edge: it is
the edge's value. Gradients reach alpha straight through, in one of two estimators:

* all operators asked (`paths` = O, official code): gate = one-hot + softmax(z) - its constant copy, so that
  d loss / d gate_o = <gradient, output_o> for every operator;
* the `paths` operators of greatest z asked: the same with the softmax over these alone. The others are never computed.
  Beside the sampled one they are computed forward only, for their gates; their weights get no gradient. It keeps what
  matters of the full form: adding a constant to all outputs' products changes nothing, and as tau falls the others'
  part of the softmax, and with it the difference of the two estimators, vanishes. With one path alpha gets nothing
  from the task, which is what a step that trains weights alone wants.

The gates of the price are those of the full form either way, for prices ask no operator.

Chen et al., AdaRec, arXiv:2107.07173; straight-through Gumbel: Jang et al., ICLR 2017, arXiv:1611.01144; asking two
paths: Cai et al., ProxylessNAS, ICLR 2019, arXiv:1812.00332. Depth: Chen et al., AdaBERT, arXiv:2001.04246.

Letters: G architectures (1 shared by all cells, or one a cell), E edges, O operators, P paths, S cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from recdistill import rng
from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock, Schedule
    from recdistill.search.space import Space

__all__ = ["Architecture", "Choice", "annealed", "straight_through"]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One sampled architecture, or one that is fixed."""

    paths: tuple[tuple[tuple[int, ...], ...], ...]
    """G x E x P: the operators that are asked on each edge; the first one is its value."""
    weights: Tensor | None = None
    """(G, E, P) straight-through gates of `paths`: 1, 0, ... in value. None: there is nothing to learn."""
    gates: Tensor | None = None
    """(G, E, O) straight-through gates of all operators, for prices."""
    whole: bool = False
    """Whether all paths are part of the graph, as in the official code, and learn their statistics."""
    depths: tuple[int, ...] = ()
    """The depths that are asked, from 1; the first one is the value. Empty: all cells, always."""
    depth_weights: Tensor | None = None
    """(P',) straight-through gates of `depths`."""
    depth_gates: Tensor | None = None
    """(S,) straight-through gates of all depths, for prices."""


class Architecture(nn.Module):
    """alpha, and the depth's logits when depth is searched."""

    def __init__(
        self,
        space: Space,
        *,
        cells: int,
        temperature: Schedule,
        shared: bool = True,
        depth: bool = False,
        seed: int = 0,
    ) -> None:
        """Begin near uniform.

        Args:
            space: which operators there are.
            cells: S, the most cells there can be.
            temperature: tau as a function of the clock, > 0.
            shared: whether all cells have one architecture (official code), or each its own.
            depth: whether the number of cells, 1..S, is searched too.
            seed: of the start (1e-2 N(0, 1), official code) and of the samples.
        """
        super().__init__()
        self.space, self.cells = space, cells
        self._temperature, self._seed = temperature, seed
        generator = torch.Generator().manual_seed(rng.key(seed, "alpha"))
        shape = (1 if shared else cells, len(space.edges), len(space))
        self.alpha = nn.Parameter(1e-2 * torch.randn(shape, generator=generator))  # (G, E, O)
        self.depth = nn.Parameter(1e-2 * torch.randn(cells, generator=generator)) if depth else None  # (S,)

    def sample(self, clock: Clock, *, paths: int = 2) -> Choice:
        """One architecture for the whole batch: a function of alpha and of (seed, epoch, step).

        The operators' numbers come to the CPU: one synchronisation a step on an accelerator.

        Args:
            clock: gives the temperature and the noise.
            paths: how many operators are asked on each edge, 1..O; O asks all of them (official code).

        Raises:
            UsageError: `paths` is out of range.
        """
        if not 1 <= paths <= len(self.space):
            raise UsageError(problem("`paths` must be a number of operators", paths, allowed=f"1 to {len(self.space)}"))
        tau = self._temperature(clock)
        z = self._perturbed(self.alpha, "operators", clock, tau)  # (G, E, O)
        top = z.detach().topk(paths, dim=-1).indices  # (G, E, P)
        depths = depth_weights = depth_gates = None
        if self.depth is not None:
            y = self._perturbed(self.depth, "depth", clock, tau)  # (S,)
            deep = y.detach().topk(min(paths, self.cells)).indices
            depths = tuple(1 + index for index in deep.tolist())
            depth_weights, depth_gates = straight_through(y[deep]), straight_through(y)
        return Choice(
            tuple(tuple(tuple(edge) for edge in group) for group in top.tolist()),
            straight_through(z.gather(-1, top)),
            straight_through(z),
            paths == len(self.space),
            depths or (),
            depth_weights,
            depth_gates,
        )

    def best(self) -> Choice:
        """The arg-max architecture: what will be derived, and what is validated."""
        top = self.alpha.detach().argmax(-1, keepdim=True)  # (G, E, 1)
        depths = () if self.depth is None else (1 + int(self.depth.detach().argmax()),)
        return Choice(tuple(tuple(tuple(edge) for edge in group) for group in top.tolist()), depths=depths)

    def probabilities(self) -> Tensor:
        """(G, E, O) softmax of alpha: in expectation the gates, up to the temperature."""
        return self.alpha.softmax(-1)

    def depth_probabilities(self) -> Tensor | None:
        """(S,) softmax of the depth's logits, or None when depth is not searched."""
        return None if self.depth is None else self.depth.softmax(-1)

    def entropy(self) -> Tensor:
        """(G, E) of the operators' probabilities, in nats: log O while nothing is decided, 0 at the end."""
        log_p = self.alpha.detach().log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)

    def _perturbed(self, logits: Tensor, purpose: str, clock: Clock, tau: float) -> Tensor:
        """(..., n) -> (..., n) log-probabilities plus Gumbel noise, over the temperature."""
        rows = torch.arange(logits.numel() // logits.shape[-1], device=logits.device)
        noise = rng.gumbel(rng.key(self._seed, purpose, clock.epoch, clock.step), rows, logits.shape[-1])
        return (logits.log_softmax(-1) + noise.view(logits.shape)) / tau


def straight_through(z: Tensor) -> Tensor:
    """(..., n) -> (..., n) one-hot at the greatest in value, softmax(z) in gradient."""
    soft = z.softmax(-1)
    hard = torch.zeros_like(soft).scatter_(-1, z.detach().argmax(-1, keepdim=True), 1.0)
    return hard + soft - soft.detach()


def annealed(start: float = 1.0, factor: float = 0.8, period: int = 5, floor: float = 0.2, lag: int = 0) -> Schedule:
    """`max(floor, start * factor ** (max(epoch - lag, 0) // period))`.

    The official code has no floor: at epoch 100 the temperature is 0.0115, and alpha's gradient is gone. AdaBERT ends
    at 0.2.

    Args:
        start: at epoch 0, > 0.
        factor: of every step, in (0, 1].
        period: epochs between two steps, >= 1.
        floor: least value, >= 0.
        lag: epochs before it begins to fall, >= 0.
    """

    def at(clock: Clock) -> float:
        return max(floor, start * factor ** (max(clock.epoch - lag, 0) // period))

    return at
