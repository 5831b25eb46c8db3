"""What each user did, oldest first: the ragged array that sequential models read.

Letters: U users, n interactions, m rows asked, T time, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.data.interactions import Interactions

__all__ = ["Histories", "Windows"]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Stretches of histories: what one training sequence is cut from."""

    row: NDArray[np.int64]
    """(W,) whose history."""
    start: NDArray[np.int64]
    """(W,) the place of the first item in `Histories.items`."""
    stop: NDArray[np.int64]
    """(W,) the place after the last."""

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """U rows of items, oldest first; repeats stay."""

    indptr: NDArray[np.int64]
    """(U + 1,) where each row begins."""
    items: NDArray[np.int32]
    """(n,) item rows."""

    @classmethod
    def of(cls, log: Interactions) -> Histories:
        """By time; ties, and logs without times, by the order of the log. O(n log n)."""
        indptr = np.zeros(log.n_users + 1, np.int64)
        np.cumsum(np.bincount(log.user, minlength=log.n_users), out=indptr[1:])
        return cls(indptr, log.item[log.in_time()])

    @property
    def n_rows(self) -> int:
        """U."""
        return len(self.indptr) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(U,) how long each history is."""
        return np.diff(self.indptr)

    def row(self, index: int) -> NDArray[np.int32]:
        """One history, oldest first."""
        return self.items[self.indptr[index] : self.indptr[index + 1]]

    def padded(self, rows: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """(m,) rows, -1 = nobody -> (m, T) the last items of each, padded on the left with -1.

        T is the longest of what is kept, at least 1 and at most `length`.
        """
        known = rows >= 0
        safe = np.where(known, rows, 0) if self.n_rows else np.zeros_like(rows)
        stop = self.indptr[safe + known]  # of nobody: where row 0 begins
        kept = np.minimum(stop - self.indptr[safe], length)  # (m,)
        width = max(int(kept.max(initial=0)), 1)
        ago = np.arange(width, 0, -1)  # (T,)
        real = ago <= kept[:, None]  # (m, T)
        out = np.full(real.shape, -1, np.int64)
        out[real] = self.items[(stop[:, None] - ago)[real]]
        return out

    def ends(self, length: int) -> Histories:
        """The last `length` items of each row, or all of it where it is shorter. O(n)."""
        kept = np.minimum(self.lengths, length)  # (U,)
        if (kept == self.lengths).all():
            return self
        indptr = np.zeros_like(self.indptr)
        np.cumsum(kept, out=indptr[1:])
        place = np.arange(indptr[-1]) + np.repeat(self.indptr[1:] - indptr[1:], kept)
        return Histories(indptr, self.items[place])

    def windows(self, length: int, *, every: bool = False, least: int = 2) -> Windows:
        """Stretches of at most `length` items, cut from the end of each history, the latest first.

        Args:
            length: the most items a window may have.
            every: cut the whole history into consecutive windows (AdaRec's slicing); off, its end alone is taken.
            least: shorter windows are dropped.

        Raises:
            UsageError: not 1 <= least <= length.
        """
        if not 1 <= least <= length:
            raise UsageError(problem("Windows of a history need 1 <= least <= length", f"{least=}, {length=}"))
        whole, rest = np.divmod(self.lengths, length)  # (U,)
        count = whole + (rest >= least)
        count = count if every else np.minimum(count, 1)
        row = np.repeat(np.arange(self.n_rows), count)  # (W,)
        first = np.cumsum(count) - count
        back = (np.arange(len(row)) - first[row]) * length
        stop = self.indptr[row + 1] - back
        return Windows(row, np.maximum(stop - length, self.indptr[row]), stop)
