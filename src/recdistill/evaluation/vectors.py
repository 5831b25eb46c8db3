"""Rankers of dot products: matrix factorisation, graph models, two towers.

Letters: U users, I items, d dims, Q queries, n tile width, m block rows, T tiles, p pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import DataError, problem
from recdistill.evaluation.blocks import BlockRanker
from recdistill.evaluation.tables import Tiles, longest, taken

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VectorRanker"]

_SMALL = 1_000_000  # multiply-adds of one tile product: below it OpenBLAS neither packs nor starts threads
_VECTOR = 9000  # numbers of one matrix-vector product: OpenBLAS starts threads from 9,216
_GATHERED = 1 << 16  # numbers of gathered vectors at a time: they stay in the cache
_UNIT = 2.0**-24  # half a unit in the last place of float32, relative


class VectorRanker(BlockRanker):
    """Scores are dot products of user and item vectors.

    Args:
        user: (U, d) float32, or float16, or int8 with `user_scale`; may be memory-mapped: rows are read when asked.
        item: (I, d) of such a type; a copy in tiles is made at the first list, of the type it has here.
        threads: of a table of users; None = OMP_NUM_THREADS where set, else the CPUs this process may use.
        user_scale: (U,) float32: what the integers of each row are multiplied with.
        item_scale: (I,) likewise.

    Raises:
        DataError: the two are not matrices of one width, or scales do not fit; later, where a vector asked for is not
            finite.
    """

    def __init__(
        self,
        user: NDArray[Any],
        item: NDArray[Any],
        *,
        threads: int | None = None,
        user_scale: NDArray[np.float32] | None = None,
        item_scale: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__(threads=threads)
        if user.ndim != 2 or item.ndim != 2 or user.shape[1] != item.shape[1] or user.shape[1] == 0:
            raise DataError(problem("User and item vectors must be (U, d) and (I, d)", (user.shape, item.shape)))
        for side, table, scale in (("user", user, user_scale), ("item", item, item_scale)):
            if (table.dtype == np.int8) != (scale is not None) or (
                scale is not None and scale.shape != table.shape[:1]
            ):
                what = f"The {side} vectors must be floats, or int8 with one scale a row"
                found = f"{table.dtype}, scales {None if scale is None else scale.shape}"
                raise DataError(problem(what, found))
        self.user, self.user_scale, self.item_scale = user, user_scale, item_scale
        kept = item.dtype.name in ("float16", "int8")
        self.item: NDArray[Any] = np.ascontiguousarray(item, None if kept else np.float32)
        self.n_users, self.d = user.shape
        self.n_items = len(item)
        # 64 rows x width x d within _SMALL, in whole cache lines; wider tiles take three times as long for one user
        fit = max(_SMALL // (64 * self.d) // 16 * 16, 16)
        self.width = min(64, fit, -(-max(self.n_items, 1) // 16) * 16)
        self.tiles = -(-max(self.n_items, 1) // self.width)
        self._packed: Tiles | None = None  # (T, d, n)
        self._longest: float | None = None

    def asked_by(self, user: NDArray[np.float32]) -> VectorRanker:
        """(Q, d) -> the same ranker for other users; what was made ready of the items is shared."""
        self._pack()
        self._check_items()
        other = VectorRanker(user, self.item, threads=self.threads, item_scale=self.item_scale)
        other.share(self)
        return other

    def share(self, other: VectorRanker) -> None:
        """Take over what another ranker of the same items has made ready of them."""
        self._packed, self._longest = other._packed, other._longest

    def vectors_of_items(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """(m,) item rows -> (m, d)."""
        return taken(self.item, self.item_scale, items)

    def vectors_of_users(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """(m,) user rows -> (m, d)."""
        return self._rows(users)

    def _check(self, queries: NDArray[np.int64]) -> None:
        self._check_items()
        longest(self.user, self.user_scale, "user", queries)

    def _check_items(self) -> None:
        if self._longest is None:
            self._longest = longest(self.item, self.item_scale, "item", None)

    def _fill(self, queries: NDArray[np.int64], first: int, out: NDArray[np.float32]) -> None:
        self._pack().fill(self._rows(queries), first, out)  # (m, d) x (t, d, n)

    def _near(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        near = np.empty(len(items), np.float32)
        step = max(_GATHERED // self.d, 16)
        for a in range(0, len(items), step):
            at = slice(a, a + step)
            np.einsum("pd,pd->p", self._rows(queries[at]), self.vectors_of_items(items[at]), out=near[at])
        return near

    def _pack(self) -> Tiles:
        if self._packed is None:
            self._packed = Tiles(self.item, self.item_scale, self.width)
        return self._packed

    def _gathered(
        self, queries: NDArray[np.int64], items: NDArray[np.int64], work: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        (m, n), d = items.shape, self.d
        mine = work[: m * n * d].reshape(m, n, d)
        if self.item.dtype == np.float32:
            np.take(self.item, items, axis=0, out=mine, mode="clip")  # "clip" writes without a buffer of its own
        else:
            mine[...] = self.vectors_of_items(np.maximum(items, 0))
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
        # |fl(u.v) - u.v| <= d unit |u| |v| (Higham, Accuracy and Stability, eq. 3.5), and one rounding each of
        # the exact one, of a scaled vector and of a scaled product
        length = np.sqrt(np.square(self._rows(queries), dtype=np.float64).sum(axis=1))  # (m,)
        bound = 1.01 * (self.d + 4) * _UNIT * length * (self._longest or 0.0) + self.d * 2.0**-149
        return np.where(length == 0, -1.0, bound)

    def _exact(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        # a product of two float32 is exact in float64; each row is summed by itself, in an order that d alone decides
        product = np.multiply(self._rows(queries), self.vectors_of_items(items), dtype=np.float64)  # (p, d)
        return product.sum(axis=1).astype(np.float32)

    def _rows(self, queries: NDArray[np.int64]) -> NDArray[np.float32]:
        return taken(self.user, self.user_scale, queries)
