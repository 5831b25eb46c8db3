"""The words that data and models share.

Letters: B interactions, Q queries, P asked positions, n distinct entities, N negatives, T time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MASK", "Batch", "Distinct", "Of", "Query", "Rows", "Side"]

MASK = -2
"""In a history: an item is here, and which one is hidden (Cloze)."""

Side = Literal["user", "item"]
Of = Literal["queries", "users", "items", "pairs"]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: "what next?", for a user or for a history of items."""

    row: Tensor
    """(Q,) int64: the user (or item) of each query, -1 = unknown."""
    side: Side = "user"
    history: Tensor | None = None
    """(Q, T) int64 item rows, oldest first, padded on the left with -1; `MASK` hides one. None: the one of the user."""
    at: Tensor | None = None
    """(P, 2) int64: which positions of which histories are asked, so that a view has P answers in place of Q; None asks
    each query once, at its end."""
    both_ways: bool = False
    """Whether a position may see what comes after it, as the answers of a Cloze text may."""
    key: int | None = None
    """Of the draws a model makes while it learns from this query (dropout), see `rng.key`; None = torch's generator."""

    def __len__(self) -> int:
        return self.row.shape[0]

    def __getitem__(self, index: Tensor) -> Query:
        """The queries at `index` (m,), each asked at its end."""
        return Query(self.row[index], self.side, None if self.history is None else self.history[index])


@dataclass(frozen=True, slots=True)
class Distinct:
    """A batch's distinct users or items."""

    ids: Tensor
    """(n,) int64, ascending."""
    first: Tensor
    """(n,) int64: one place of each in what it was taken from."""
    share: Tensor
    """(n,) float32: how much each counts; 1, or 1/2 for each role (positive, negative) an item plays."""

    @classmethod
    def of(cls, ids: Tensor) -> Distinct:
        """The distinct values of `ids` (B,), each counting 1."""
        ordered, place = torch.sort(ids, stable=True)  # (B,)
        new = torch.ones_like(ordered, dtype=torch.bool)
        torch.ne(ordered[1:], ordered[:-1], out=new[1:])
        return cls(ordered[new], place[new], torch.ones(int(new.sum()), device=ids.device))

    @classmethod
    def roles(cls, positive: Tensor, negatives: Tensor) -> Distinct:
        """The union of positives (B,) and negatives (B, N), an item counting 1/2 for each role it plays.

        Equal in expectation to DE-RRD's two calls at 1/2 each (official code), with one draw an item. `first` is a
        place in the positives followed by the flattened negatives.
        """
        one, other = cls.of(positive), cls.of(negatives.flatten())
        both = cls.of(torch.cat([one.ids, other.ids]))
        role = torch.zeros(both.ids.shape[0], device=positive.device)
        role[torch.searchsorted(both.ids, one.ids)] += 0.5
        role[torch.searchsorted(both.ids, other.ids)] += 0.5
        place = torch.cat([one.first, other.first + positive.shape[0]])
        return cls(both.ids, place[both.first], role)


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's interactions, on the runtime's device."""

    query: Query
    """Q = B, one query an interaction; or P = B, one asked position of a history an interaction."""
    positive: Tensor
    """(B,) int64 item rows."""
    negatives: Tensor
    """(B, N) int64 item rows."""
    weight: Tensor | None = None
    """(B,) float32, or None for all ones."""
    log_q: Tensor | None = None
    """(B, N) or (B, 1) float32 logarithm of the chance of each negative in one draw; None where nobody says."""

    @cached_property
    def users(self) -> Distinct:
        """The distinct users; `first` is a place among the queries."""
        return Distinct.of(self.query.row)

    @cached_property
    def items(self) -> Distinct:
        """The distinct items by role."""
        return Distinct.roles(self.positive, self.negatives)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a term returns: one value per row, never reduced, and what the rows are."""

    value: Tensor
    """(n,)"""
    of: Of
