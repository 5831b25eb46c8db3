"""The words that data and models share.

Letters: B interactions, Q queries, n distinct entities, N negatives, T time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Batch", "Distinct", "Of", "Query", "Rows", "Side"]

Side = Literal["user", "item"]
Of = Literal["queries", "users", "items", "pairs"]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: "what next?", for a user or for a history of items."""

    row: Tensor
    """(Q,) int64: the user (or item) of each query, -1 = unknown."""
    side: Side = "user"
    history: Tensor | None = None
    """(Q, T) int64 item rows, oldest first, -1 = padding."""
    at: Tensor | None = None
    """(P, 2) int64: which positions of which histories are asked; None asks all real ones."""

    def __len__(self) -> int:
        return self.row.shape[0]

    def __getitem__(self, index: Tensor) -> Query:
        """The queries at `index` (m,)."""
        return Query(self.row[index], self.side, None if self.history is None else self.history[index])


@dataclass(frozen=True, slots=True)
class Distinct:
    """A batch's distinct users or items."""

    ids: Tensor
    """(n,) int64, ascending."""
    first: Tensor
    """(n,) int64: where in the batch each of them stands (any one of its places)."""
    share: Tensor
    """(n,) float32: how much each counts; 1, or 1/2 for each role (positive, negative) an item plays."""

    @classmethod
    def of(cls, ids: Tensor, size: int) -> Distinct:
        """The distinct values of `ids` (B,), all in [0, size), each counting 1. O(B + size), no sort."""
        place = torch.full((size,), -1, dtype=torch.int64, device=ids.device)
        place[ids] = torch.arange(ids.shape[0], device=ids.device)
        distinct = (place >= 0).nonzero()[:, 0]  # (n,)
        return cls(distinct, place[distinct], torch.ones(distinct.shape[0], device=ids.device))

    @classmethod
    def halves(cls, positive: Tensor, negative: Tensor, size: int) -> Distinct:
        """The union of positives (B,) and negatives (B, N), an item counting 1/2 for each role it plays.

        Equal in expectation to DE-RRD's two separate calls at 1/2 each (official code), with one draw an item.
        `first` indexes the positives followed by the negatives, flattened.
        """
        both = torch.cat([positive, negative.flatten()])
        union = cls.of(both, size)
        share = torch.zeros(size, device=both.device)
        share[positive] = 0.5
        role = torch.zeros(size, device=both.device)
        role[negative.flatten()] = 0.5
        return cls(union.ids, union.first, (share + role)[union.ids])


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's interactions, on the runtime's device."""

    query: Query
    """Q = B: one query an interaction."""
    positive: Tensor
    """(B,) int64 item rows."""
    negatives: Tensor
    """(B, N) int64 item rows."""
    users: Distinct
    items: Distinct
    weight: Tensor | None = None
    """(B,) float32, or None for all ones."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a term returns: one value per row, never reduced, and what the rows are."""

    value: Tensor
    """(n,)"""
    of: Of
