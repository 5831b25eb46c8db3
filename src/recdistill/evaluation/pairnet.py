"""Ranker of NeuMF: a weighted product of two vectors plus a small network over two others. He et al., WWW 2017.

    score(u, i) = w_mf . (p_mf * q_mf) + w_h . relu(W_L ... relu(W_1 [p_mlp ; q_mlp] + b_1) ... + b_L) + b

The first layer is linear in its two halves, so the item's half is computed once for the catalogue.

Letters: U users, I items, d dims, h width of the first layer, Q queries, n tile width, m block rows, T tiles, p pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import DataError, problem
from recdistill.evaluation.blocks import BlockRanker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["PairNetRanker"]

_UNIT = 2.0**-24  # half a unit in the last place of float32, relative
_TILES = 16  # tiles of the catalogue that go through the network at a time
_STEP = 1 << 19  # floats of first-layer activations at a time (2 MiB)


class PairNetRanker(BlockRanker):
    """Scores are those of a NeuMF network.

    Args:
        arrays: float32, may be memory-mapped: "user_mf" (U, d), "item_mf" (I, d), "user_mlp" (U, d'), "item_mlp"
            (I, d'), "hidden.{l}.weight" (out, in) and "hidden.{l}.bias" (out,) for l = 0, 1, ..., the first over
            [user ; item], and "out.weight" (1, d + last out) over [product ; last layer], "out.bias" (1,).
        threads: of a table of users; None = OMP_NUM_THREADS where set, else the CPUs this process may use.

    Raises:
        DataError: an array is missing, or of a shape that does not fit; later, where a number is not finite.
    """

    def __init__(self, arrays: Mapping[str, NDArray[np.float32]], *, threads: int | None = None) -> None:
        super().__init__(threads=threads)
        self.arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self.n_users, self.d = self._shaped("user_mf", None, None).shape
        self.n_items = len(self._shaped("item_mf", None, self.d))
        wide = self._shaped("user_mlp", self.n_users, None).shape[1]
        self._shaped("item_mlp", self.n_items, wide)
        self.layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        into = 2 * wide
        while f"hidden.{len(self.layers)}.weight" in self.arrays or not self.layers:
            name = f"hidden.{len(self.layers)}"
            weight = self._shaped(f"{name}.weight", None, into)
            into = len(weight)
            self.layers.append((weight, self._shaped(f"{name}.bias", into)))
        out = self._shaped("out.weight", 1, self.d + into)[0]
        self.w_mf, self.w_h = out[: self.d], out[self.d :]
        self.bias = self._shaped("out.bias", 1)
        for name, array in self.arrays.items():
            if not name.startswith("user") and not np.isfinite(array).all():
                raise DataError(problem(f"The array {name!r} holds a number that is not finite", remedy="Train again"))
        self.width = min(256, -(-max(self.n_items, 1) // 16) * 16)
        self.tiles = -(-max(self.n_items, 1) // self.width)
        self._wide = wide
        self._peaks = _greatest(self.arrays["item_mf"]), _greatest(self.arrays["item_mlp"])
        self._hidden: list[NDArray[np.float32]] = []
        self._made: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def _shaped(self, name: str, *shape: int | None) -> NDArray[np.float32]:
        array = self.arrays.get(name)
        if array is None:
            raise DataError(problem(f"The ranker's array {name!r} is missing", allowed=sorted(self.arrays)))
        if array.ndim != len(shape) or any(s not in (None, a) for s, a in zip(shape, array.shape, strict=True)):
            wanted = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
            raise DataError(problem(f"The ranker's array {name!r} is of the wrong shape", array.shape, allowed=wanted))
        return array

    @property
    def _halves(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(T, d, n) product vectors in tiles, and (T * n, h) the items' half of the first layer; made once."""
        if self._made is None:
            size = self.tiles * self.width
            product = np.zeros((size, self.d), np.float32)
            product[: self.n_items] = self.arrays["item_mf"]
            packed = np.ascontiguousarray(product.reshape(self.tiles, self.width, self.d).transpose(0, 2, 1))
            half = np.zeros((size, len(self.layers[0][0])), np.float32)
            half[: self.n_items] = self.arrays["item_mlp"] @ self.layers[0][0][:, self._wide :].T
            self._made = (packed, half)
        return self._made

    def _check(self, queries: NDArray[np.int64]) -> None:
        for a in range(0, len(queries), 65536):
            bound = self._margin(queries[a : a + 65536])
            if not (bound < 1e30).all():
                user = int(queries[a + int((~(bound < 1e30)).argmax())])
                remedy = "Train again with a smaller learning rate"
                raise DataError(problem(f"The scores of user row {user} are not finite numbers of use", remedy=remedy))

    def _fill(self, queries: NDArray[np.int64], first: int, out: NDArray[np.float32]) -> None:
        packed, half = self._halves
        begin, end = first, first + len(out)
        np.matmul(self.arrays["user_mf"][queries] * self.w_mf, packed[begin:end], out=out)  # (t, m, n)
        mine = self._user_half(queries)  # (m, h)
        work = self._hidden.pop() if self._hidden else np.empty(0, np.float32)
        for at in range(begin, end, _TILES):
            last = min(at + _TILES, end)
            items = half[at * self.width : last * self.width]  # (t * n, h)
            step = max(1, _STEP // items.size)
            if len(work) < step * items.size:
                work = np.empty(step * items.size, np.float32)
            for a in range(0, len(queries), step):
                some = mine[a : a + step]
                hidden = work[: len(some) * items.size].reshape(len(some), *items.shape)
                np.add(items, some[:, None, :], out=hidden)  # (s, t * n, h)
                deep = self._deep(hidden).reshape(len(some), last - at, self.width)
                out[at - begin : last - begin, a : a + step] += deep.transpose(1, 0, 2)
        self._hidden.append(work)

    def _gathered(
        self, queries: NDArray[np.int64], items: NDArray[np.int64], work: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        half = self._halves[1]
        split = items.size * self.d
        product = work[:split].reshape(*items.shape, self.d)
        np.take(self.arrays["item_mf"], items, axis=0, out=product, mode="clip")  # (m, n, d)
        near = np.matmul(product, (self.arrays["user_mf"][queries] * self.w_mf)[:, :, None])[:, :, 0]  # (m, n)
        hidden = work[split : split + items.size * half.shape[1]].reshape(*items.shape, half.shape[1])
        np.take(half, items, axis=0, out=hidden, mode="clip")  # (m, n, h)
        hidden += self._user_half(queries)[:, None, :]
        near += self._deep(hidden)
        return near

    @property
    def _floats(self) -> int:
        return self.d + len(self.layers[0][0])

    def _user_half(self, queries: NDArray[np.int64]) -> NDArray[np.float32]:
        weight, bias = self.layers[0]
        return self.arrays["user_mlp"][queries] @ weight[:, : self._wide].T + bias  # (m, h)

    def _deep(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """First-layer sums (..., h), overwritten -> (...) what the network adds to the product."""
        np.maximum(hidden, 0, out=hidden)
        for weight, bias in self.layers[1:]:
            hidden = hidden @ weight.T
            hidden += bias
            np.maximum(hidden, 0, out=hidden)
        return hidden @ self.w_h + self.bias[0]

    def _margin(self, queries: NDArray[np.int64]) -> NDArray[np.float64]:
        # running error: every rounding is at most `_UNIT` of the network of absolute values (Higham, ch. 3), whose
        # greatest value for a user takes the greatest coordinate of any item; relu does not enlarge an error
        arrays = self.arrays
        product = self._peaks[0] * np.abs(self.w_mf, dtype=np.float64)
        bound = np.abs(arrays["user_mf"][queries]) @ product + abs(float(self.bias[0]))  # (m,)
        sizes = np.abs(arrays["user_mlp"][queries], dtype=np.float64)
        entries = np.concatenate([sizes, np.broadcast_to(self._peaks[1], sizes.shape)], axis=1)
        roundings = self.d + 2 * self._wide + 8
        for weight, bias in self.layers:
            entries = entries @ np.abs(weight, dtype=np.float64).T + np.abs(bias)
            roundings += weight.shape[0] + 3
        bound = bound + entries @ np.abs(self.w_h, dtype=np.float64)
        return 1.05 * roundings * _UNIT * bound + 2.0**-120

    def _exact(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        # float64, every pair a product of its own: what stands beside it in the batch cannot change its last bit
        arrays = self.arrays
        product = np.multiply(arrays["user_mf"][queries], arrays["item_mf"][items], dtype=np.float64)  # (p, d)
        score = (product * self.w_mf).sum(axis=1)
        x = np.concatenate([arrays["user_mlp"][queries], arrays["item_mlp"][items]], axis=1).astype(np.float64)
        for weight, bias in self.layers:
            x = np.matmul(x[:, None, :], weight.T.astype(np.float64))[:, 0, :] + bias  # (p, out)
            np.maximum(x, 0, out=x)
        return (score + (x * self.w_h).sum(axis=1) + self.bias[0]).astype(np.float32)


def _greatest(table: NDArray[np.float32]) -> NDArray[np.float64]:
    """(I, d) -> (d,) greatest absolute value of each column."""
    if len(table) == 0:
        return np.zeros(table.shape[1])
    return np.maximum(table.max(axis=0), -table.min(axis=0)).astype(np.float64)
