"""Lists merged: what the same item is worth in several lists, summed.

Letters: Q queries, C entries a query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NOBODY", "best_of_merged", "merged"]

NOBODY = 2**31 - 1
"""Stands past the end of ascending items."""


def merged(items: Tensor, worth: Tensor) -> tuple[Tensor, Tensor]:
    """Sum what equal items of a row are worth.

    Args:
        items: (Q, C) int64, -1 = none.
        worth: (Q, C) float.

    Returns:
        (Q, C) int64 distinct items, ascending, `NOBODY` past the end, and (Q, C) their sums, 0 there.
    """
    ordered, order = torch.where(items >= 0, items, NOBODY).sort(1)
    new = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[:, 1:], ordered[:, :-1], out=new[:, 1:])
    slot = new.cumsum(1) - 1
    distinct = torch.full_like(ordered, NOBODY).scatter_(1, slot, ordered)
    value = torch.zeros_like(worth).scatter_add_(1, slot, worth.gather(1, order))
    return distinct, value.masked_fill(distinct == NOBODY, 0)


def best_of_merged(items: Tensor, values: Tensor, k: int) -> Tensor:
    """(Q, C) twice, from `merged` -> (Q, k) int64 items of the greatest values, equal ones by item; -1 = none."""
    order = values.masked_fill(items == NOBODY, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :k]
    best = items.gather(1, order).long()
    best = torch.where(best == NOBODY, -1, best)
    return torch.nn.functional.pad(best, (0, k - best.shape[1]), value=-1)
