"""A student around a chain of cells: embedded histories in, states and logits out.

Chen et al., AdaRec, arXiv:2107.07173, as in the official code, where the rows of padding are learned, the output
layer is its own, and padding is a class of it that is never a target.

Letters: Q queries, T time, C width, I items, L most positions, n rows of states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from typing_extensions import override

from recdistill import rng
from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.search.cells import Chain, States
    from recdistill.search.sampling import Choice

__all__ = ["Head", "Student"]

Head = Literal["tied", "own"]
""" "tied": the item table scores (I classes); "own": a linear layer with bias does (I + 1 classes, official code)."""


class Student(nn.Module):
    """Item table (+ learned positions) -> cells -> output layer."""

    def __init__(
        self,
        chain: Chain,
        n_items: int,
        *,
        length: int = 50,
        positions: bool = True,
        pads: bool = False,
        head: Head = "tied",
        dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        """Build it.

        Args:
            chain: the cells, of width C.
            n_items: I.
            length: L, the most positions a history may have; only positions care.
            positions: whether a learned vector of its place, counted from the end, is added to each item's.
            pads: whether padding has a learned vector (official code), or is zero.
            head: what scores.
            dropout: share of the embedded and of the last states set to zero in training, in [0, 1).
            seed: of the weights and of dropout.
        """
        super().__init__()
        self.chain, self.n_items, self.length, self.pads = chain, n_items, length, pads
        self.dropout, self._seed = dropout, seed
        generator = torch.Generator().manual_seed(rng.key(seed, "student"))
        std = 1.0 if head == "own" else chain.width**-0.5
        rows = n_items + 1 if pads else n_items
        self.item = nn.Parameter(torch.randn(rows, chain.width, generator=generator) * std)  # padding's row is last
        self.position = nn.Parameter(torch.randn(length, chain.width, generator=generator) * std) if positions else None
        self.head: nn.Linear | None = None
        if head == "own":
            self.head = nn.Linear(chain.width, n_items + 1)  # padding's class is last
            for parameter in self.head.parameters():
                nn.init.uniform_(parameter, -(chain.width**-0.5), chain.width**-0.5, generator=generator)

    def embedded(self, history: Tensor, clock: Clock | None = None) -> Tensor:
        """(Q, T) item rows, -1 = padding -> (Q, T, C).

        Raises:
            UsageError: T is above `length` and positions are learned.
        """
        real = history >= 0
        x = self.item[history.where(real, self.n_items if self.pads else 0)]  # (Q, T, C)
        if self.position is not None:
            if history.shape[1] > self.length:
                remedy = "Keep the last items, or learn no positions"
                message = f"A history may have {self.length} positions"
                raise UsageError(problem(message, history.shape[1], remedy=remedy))
            x = x + self.position[self.length - history.shape[1] :]
        x = x if self.pads else x * real[..., None]
        return self._dropped(x, "embedded", clock)

    @override
    def forward(self, history: Tensor, choice: Choice | None = None, clock: Clock | None = None) -> States:
        """(Q, T) item rows, -1 = padding -> the states.

        Args:
            history: item rows, oldest first.
            choice: which operators; None for a derived chain.
            clock: when; dropout is a function of (seed, epoch, step), and there is none without a clock.
        """
        return self.chain(self.embedded(history, clock), history >= 0, choice)

    def logits(self, states: Tensor, clock: Clock | None = None) -> Tensor:
        """(n, C) -> (n, I), or (n, I + 1) with padding's class last when the head is its own."""
        states = self._dropped(states, "states", clock)
        return states @ self.item[: self.n_items].T if self.head is None else self.head(states)

    def _dropped(self, x: Tensor, purpose: str, clock: Clock | None) -> Tensor:
        if clock is None or not self.training or self.dropout == 0:
            return x
        generator = torch.Generator(device=x.device)
        generator.manual_seed(rng.key(self._seed, f"dropout of {purpose}", clock.epoch, clock.step))
        kept = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=generator)
        return x * kept / (1 - self.dropout)
