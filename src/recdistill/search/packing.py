"""Several histories in one row, so that a chain of cells in training works on few paddings.

Norms of cells are of the whole batch, so short histories cannot be encoded apart from long ones, as other models do
(`models.sequence_view.by_length`); of short histories most positions would be padding. Packing changes where positions
stand and nothing that is computed of them: between two histories of a row there are as many paddings as operators
reach over, and attention stays within a history.

Letters: Q histories, T time, N items that are no padding, R rows, W their width, C width of states.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Packing"]

_WORTH = 0.8
"""Where more than this share of the positions would be left, packing costs more than it saves."""


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Where the items of a batch stand."""

    real: Tensor
    """(R, W) bool: what is no padding in the rows."""
    _before: Tensor
    """(N,) places in the batch, row by row."""
    _after: Tensor
    """(N,) their places in the rows."""

    @classmethod
    def of(cls, real: Tensor, gap: int) -> Packing | None:
        """Lay the histories of a batch into rows; None where that is not worth it.

        Args:
            real: (Q, T) bool, what is no padding; it stands on the left.
            gap: paddings between two histories of a row, >= 1.
        """
        n, time = real.shape
        lengths: list[int] = real.sum(1).tolist()
        width = max(lengths, default=0)
        begins, rows = _begins(lengths, width, gap)
        if not rows or rows * width > _WORTH * n * time:
            return None
        query, at = real.nonzero(as_tuple=True)  # (N,)
        first = torch.tensor([begin + length - time for begin, length in zip(begins, lengths, strict=True)])
        after = first.to(real.device)[query] + at
        there = real.new_zeros(rows * width)
        there[after] = True
        return cls(there.view(rows, width), query * time + at, after)

    def packed(self, x: Tensor) -> Tensor:
        """(Q, T, C) -> (R, W, C), 0 at padding."""
        out = x.new_zeros(self.real.numel(), x.shape[2])
        return out.index_copy(0, self._after, x.flatten(0, 1).index_select(0, self._before)).view(*self.real.shape, -1)

    def unpacked(self, x: Tensor, like: Tensor) -> Tensor:
        """(R, W, C) -> (Q, T, C) as in `like` (Q, T, C), 0 at padding."""
        out = x.new_zeros(like.shape[0] * like.shape[1], x.shape[2])
        return out.index_copy(0, self._before, x.flatten(0, 1).index_select(0, self._after)).view(like.shape)


def _begins(lengths: list[int], width: int, gap: int) -> tuple[list[int], int]:
    """Where each history begins in the rows laid end to end, and how many there are; by size, into the emptiest row."""
    begins = [0] * len(lengths)
    rows: list[tuple[int, int]] = []  # a heap of (where the next one would begin, row)
    for history in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        length = lengths[history]
        if not length:
            break
        used, row = rows[0] if rows else (width, 0)
        if used + length <= width:
            heapq.heapreplace(rows, (used + length + gap, row))
        else:
            used, row = 0, len(rows)
            heapq.heappush(rows, (length + gap, row))
        begins[history] = row * width + used
    return begins, len(rows)
