"""Rankers of dot products: matrix factorisation, graph models, two towers.

Letters: U users, I items, d dims, Q queries, n tile width, m block rows, T tiles, p pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import DataError, problem
from recdistill.evaluation.blocks import BlockRanker

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VectorRanker"]

_SMALL = 1_000_000  # multiply-adds of one tile product: below it OpenBLAS neither packs nor starts threads
_VECTOR = 9000  # numbers of one matrix-vector product: OpenBLAS starts threads from 9,216
_UNIT = 2.0**-24  # half a unit in the last place of float32, relative


class VectorRanker(BlockRanker):
    """Scores are dot products of user and item vectors.

    Args:
        user: (U, d) float32, may be memory-mapped; rows are read when asked.
        item: (I, d) float32; a copy in tiles is made at the first list (I x d floats).
        threads: of a table of users; None = OMP_NUM_THREADS where set, else the CPUs this process may use.

    Raises:
        DataError: the two are not matrices of one width; later, where a vector asked for is not finite.
    """

    def __init__(self, user: NDArray[np.float32], item: NDArray[np.float32], *, threads: int | None = None) -> None:
        super().__init__(threads=threads)
        if user.ndim != 2 or item.ndim != 2 or user.shape[1] != item.shape[1] or user.shape[1] == 0:
            raise DataError(problem("User and item vectors must be (U, d) and (I, d)", (user.shape, item.shape)))
        self.user = user
        self.item = np.ascontiguousarray(item, np.float32)
        self.n_users, self.d = user.shape
        self.n_items = len(item)
        # 64 rows x width x d within _SMALL, in whole cache lines; a small catalogue is one tile
        fit = max(_SMALL // (64 * self.d) // 16 * 16, 16)
        self.width = min(256, fit, -(-max(self.n_items, 1) // 16) * 16)
        self.tiles = -(-max(self.n_items, 1) // self.width)
        self._packed: NDArray[np.float32] | None = None  # (T, d, n)
        self._longest: float | None = None

    def asked_by(self, user: NDArray[np.float32]) -> VectorRanker:
        """(Q, d) -> the same ranker for other users; what was made ready of the items is shared."""
        self._pack()
        self._check_items()
        other = VectorRanker(user, self.item, threads=self.threads)
        other._packed, other._longest = self._packed, self._longest
        return other

    def _check(self, queries: NDArray[np.int64]) -> None:
        self._check_items()
        for a in range(0, len(queries), 65536):
            _longest(self.user[queries[a : a + 65536]], "user", queries[a : a + 65536])

    def _check_items(self) -> None:
        if self._longest is None:
            self._longest = _longest(self.item, "item", np.arange(self.n_items))

    def _fill(self, queries: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        np.matmul(self._rows(queries), self._pack(), out=out)  # (m, d) x (T, d, n) -> (T, m, n)

    def _pack(self) -> NDArray[np.float32]:
        if self._packed is None:
            padded = np.zeros((self.tiles * self.width, self.d), np.float32)
            padded[: self.n_items] = self.item
            self._packed = np.ascontiguousarray(padded.reshape(self.tiles, self.width, self.d).transpose(0, 2, 1))
        return self._packed

    def _gathered(
        self, queries: NDArray[np.int64], items: NDArray[np.int64], work: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        (m, n), d = items.shape, self.d
        mine = work[: m * n * d].reshape(m, n, d)
        np.take(self.item, items, axis=0, out=mine, mode="clip")  # "clip" writes without a buffer of its own
        pieces = self._pieces(n)
        near = work[m * n * d : m * n * (d + 1)].reshape(m, pieces, n // pieces, 1)
        # (m, s, n / s, d) x (m, 1, d, 1)
        np.matmul(mine.reshape(m, pieces, n // pieces, d), self._rows(queries)[:, None, :, None], out=near)
        return near.reshape(m, n)

    def _padded(self, n: int) -> int:
        pieces = self._pieces(n)
        return -(-n // pieces) * pieces

    def _pieces(self, n: int) -> int:
        """Into how many products of at most _VECTOR numbers n items are cut; the same for n and for `_padded(n)`."""
        return -(-n // max(1, _VECTOR // self.d))

    @property
    def _floats(self) -> int:
        return self.d + 1

    def _margin(self, queries: NDArray[np.int64]) -> NDArray[np.float64]:
        # |fl(u.v) - u.v| <= d unit |u| |v| (Higham, Accuracy and Stability, eq. 3.5), and one rounding of the exact one
        length = np.sqrt(np.square(self._rows(queries), dtype=np.float64).sum(axis=1))  # (m,)
        bound = 1.01 * (self.d + 2) * _UNIT * length * (self._longest or 0.0) + self.d * 2.0**-149
        return np.where(length == 0, -1.0, bound)

    def _exact(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        # a product of two float32 is exact in float64; each row is summed by itself, in an order that d alone decides
        product = np.multiply(self._rows(queries), np.take(self.item, items, axis=0), dtype=np.float64)  # (p, d)
        return product.sum(axis=1).astype(np.float32)

    def _rows(self, queries: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(np.take(self.user, queries, axis=0), np.float32)


def _longest(vectors: NDArray[np.float32], side: str, rows: NDArray[np.int64]) -> float:
    """The greatest length of (n, d) vectors; `DataError` where one is not finite."""
    square = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    wrong = np.flatnonzero(~(square < 1e37))
    if len(wrong):
        at = int(wrong[0])
        remedy = "Train again with a smaller learning rate, or mend the file the vectors came from"
        raise DataError(
            problem(
                f"The vector of {side} row {int(rows[at])} is not made of finite numbers of use",
                [float(x) for x in vectors[at][:4]],
                allowed="lengths below 3e18",
                remedy=remedy,
            )
        )
    return float(np.sqrt(square.max(initial=0.0)))
