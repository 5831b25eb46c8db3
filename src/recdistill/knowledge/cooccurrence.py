"""Who occurs together most: a sparse, symmetrically normalised graph among users, or among items.

Letters: n rows, k neighbours a row, e edges, c rows of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.data.draws import Taken

__all__ = ["Neighbours", "together"]

_COUNTS = 1 << 22
"""Counts that exist at a time (16 MiB)."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A graph by rows."""

    begin: Tensor
    """(n + 1,) int64 where each row's edges begin."""
    other: Tensor
    """(e,) int64 their other ends, ascending within a row."""
    weight: Tensor
    """(e,) float32 > 0."""

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(m,) rows -> of all their edges: (p,) which of them, and (p,) which edge."""
        count = self.begin[rows + 1] - self.begin[rows]
        which = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), count)
        place = torch.arange(len(which), device=rows.device) - (count.cumsum(0) - count)[which]
        return which, self.begin[rows][which] + place


def together(taken: Taken, turned: Taken, k: int) -> Neighbours:
    """`D^-1/2 (A + A') / 2 D^-1/2`, where A has an edge from each row to the k others it shares most columns with.

    Args:
        taken: what each row has.
        turned: `taken.turned()`.
        k: neighbours a row; of equal counts the smaller row, and none where nothing is shared.
    """
    n, device = taken.indptr.shape[0] - 1, taken.keys.device
    from_rows: list[Tensor] = []
    to_rows: list[Tensor] = []
    for rows in torch.arange(n, device=device).split(max(1, _COUNTS // max(n, 1))):
        which, column, _ = taken.pairs(rows)
        pair, other, _ = turned.pairs(column)  # everybody who has that column
        count = torch.zeros(len(rows) * n, device=device)
        count.index_add_(0, which[pair] * n + other, torch.ones(len(other), device=device))
        count = count.view(len(rows), n)
        count[torch.arange(len(rows), device=device), rows] = 0
        ordered = count.double() * n - torch.arange(n, device=device)  # ties by row
        best = ordered.topk(min(k, n), 1).indices
        there = count.gather(1, best) > 0
        from_rows.append(rows[:, None].expand_as(best)[there])
        to_rows.append(best[there])
    one, two = torch.cat(from_rows), torch.cat(to_rows)
    key, edge = torch.cat([one * n + two, two * n + one]).unique(return_counts=True)  # 2 where both name each other
    row, other, weight = key.div(max(n, 1), rounding_mode="floor"), key % max(n, 1), edge.float() / 2
    degree = torch.zeros(n, device=device).index_add_(0, row, weight).clamp(min=1e-12)
    weight = weight / (degree[row] * degree[other]).sqrt()
    begin = torch.searchsorted(row, torch.arange(n + 1, device=device))
    return Neighbours(begin, other, weight)
