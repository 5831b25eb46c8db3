"""Sorted rows of integers: the one sparse structure of the house.

Letters: R rows, n stored values, m questions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Csr"]


@dataclass(frozen=True, slots=True)
class Csr:
    """R rows of ascending distinct integers in [0, n_columns): who has what."""

    indptr: NDArray[np.int64]
    """(R + 1,) where each row begins."""
    indices: NDArray[np.int32]
    """(n,) ascending and distinct within a row."""
    n_columns: int
    _keys: list[NDArray[np.int64]] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def from_pairs(cls, rows: ArrayLike, columns: ArrayLike, n_rows: int, n_columns: int) -> Csr:
        """Pairs in any order, repeats allowed -> sorted rows without repeats. O(n log n)."""
        keys = np.asarray(rows, np.int64) * n_columns + np.asarray(columns, np.int64)  # (n,)
        keys.sort()  # np.unique would hash: 20 times slower here
        keys = keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys
        row, column = np.divmod(keys, max(n_columns, 1))
        indptr = np.zeros(n_rows + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=n_rows), out=indptr[1:])
        return cls(indptr, column.astype(np.int32), n_columns, [keys])

    @classmethod
    def empty(cls, n_rows: int, n_columns: int) -> Csr:
        """Rows with nothing in them."""
        return cls(np.zeros(n_rows + 1, np.int64), np.zeros(0, np.int32), n_columns)

    @property
    def n_rows(self) -> int:
        """R."""
        return len(self.indptr) - 1

    @property
    def degrees(self) -> NDArray[np.int64]:
        """(R,) how many values each row has."""
        return np.diff(self.indptr)

    @property
    def keys(self) -> NDArray[np.int64]:
        """(n,) `row * n_columns + column`, ascending: what membership is searched in. Computed once."""
        if not self._keys:
            self._keys.append(np.repeat(np.arange(self.n_rows), self.degrees) * self.n_columns + self.indices)
        return self._keys[0]

    def __len__(self) -> int:
        return len(self.indices)

    def row(self, index: int) -> NDArray[np.int32]:
        """The values of one row, ascending."""
        return self.indices[self.indptr[index] : self.indptr[index + 1]]

    def select(self, rows: NDArray[np.int64]) -> Csr:
        """The rows at `rows` (m,), in that order; -1 gives an empty row."""
        if self.n_rows == 0:
            return Csr.empty(len(rows), self.n_columns)
        safe = np.maximum(rows, 0)
        start = self.indptr[safe]  # (m,)
        degrees = np.where(rows >= 0, self.indptr[safe + 1] - start, 0)
        indptr = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(degrees, out=indptr[1:])
        within = np.arange(indptr[-1]) - np.repeat(indptr[:-1], degrees)
        return Csr(indptr, self.indices[np.repeat(start, degrees) + within], self.n_columns)

    def contains(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each (row, column) pair is stored; the two broadcast. O(m log n)."""
        wanted = rows * self.n_columns + columns
        if len(self.keys) == 0:
            return np.zeros(wanted.shape, np.bool_)
        place = np.searchsorted(self.keys, wanted)
        return self.keys[np.minimum(place, len(self.keys) - 1)] == wanted

    def transposed(self) -> Csr:
        """Columns become rows."""
        rows = np.repeat(np.arange(self.n_rows), self.degrees)
        return Csr.from_pairs(self.indices, rows, self.n_columns, self.n_rows)

    def widened(self, n_rows: int, n_columns: int) -> Csr:
        """The same values in a matrix of at least as many rows and columns."""
        more = np.full(n_rows - self.n_rows, self.indptr[-1])
        return Csr(np.concatenate([self.indptr, more]), self.indices, n_columns)

    def union(self, other: Csr) -> Csr:
        """Row by row, the values of either."""
        keys = np.concatenate([self.keys, other.keys])
        row, column = np.divmod(keys, max(self.n_columns, 1))
        return Csr.from_pairs(row, column, self.n_rows, self.n_columns)
