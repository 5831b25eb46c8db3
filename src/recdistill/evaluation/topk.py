"""The blocked partial sort: the best K of each row of a product that never exists as a whole.

Scores are made for so many tiles at a time as the processor's cache holds, and only the greatest of every `depth` of
them is kept. The k-th greatest of those maxima bounds the k-th greatest score from below, so what can be in a list
stands in the few groups that reach the bound: these items alone are scored again, exactly. Memory traffic is that of
reading the item table once for a block of users, and 1/depth of the scores.

Letters: n tile width, m block rows, q <= m of them asked, T tiles, g groups a column, K list, I items, p pairs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.data.csr import Csr

__all__ = ["DEPTH", "Gone", "Scratch", "Shown", "TopK", "ordered"]

DEPTH = 16
"""Items a group."""

_CACHE = 1 << 17
"""Floats of scores that are made at a time (512 KiB): they stay in the second-level cache until they are reduced."""
_PAIRS = 1 << 16
"""Pairs that are scored again at a time."""


class Shown:
    """Which items may be shown: the availability that a search obeys.

    Args:
        mask: (I,) True where an item may be shown. Copied.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = np.array(mask, np.bool_)
        self.mask.flags.writeable = False
        self.n = int(np.count_nonzero(self.mask))
        """How many may be shown."""
        self._added: NDArray[np.float32] | None = None

    def added(self, size: int) -> NDArray[np.float32]:
        """(size,), size >= I: what is added to scores, 0 or -inf; -inf past the last item."""
        if self._added is None or len(self._added) != size:
            added = np.full(size, -np.inf, np.float32)
            added[: len(self.mask)][self.mask] = 0
            self._added = added
        return self._added


class Scratch:
    """The buffers of one thread, made once and used for every block: fresh ones cost more than the product."""

    def __init__(self, rows: int, tiles: int, width: int, depth: int) -> None:
        self.rows = rows
        self.depth = depth
        groups = -(-tiles // depth)
        upper = -(-groups // DEPTH)
        self.groups = min(groups, max(1, _CACHE // (depth * rows * width)))
        """How many groups of tiles are made at a time."""
        self.scores = np.empty((self.groups * depth, rows, width), np.float32)  # (t, m, n)
        whole = np.full((upper * DEPTH, rows, width), -np.inf, np.float32)
        self.best = whole[:groups]  # (g, m, n) the greatest of each group
        self.sixteens = whole.reshape(upper, DEPTH, rows, width)
        self.upper = np.empty((upper, rows, width), np.float32)  # (g / 16, m, n) the greatest of 16 groups


class TopK(ABC):
    """Exact lists out of approximate tiles; a subclass scores."""

    n_items: int
    tiles: int
    """T: how many tiles the catalogue is cut into."""
    width: int
    """n: items a tile; the last one is padded."""

    @abstractmethod
    def _fill(self, queries: NDArray[np.int64], first: int, out: NDArray[np.float32]) -> None:
        """Approximate scores of (m,) users and the items of t tiles from tile `first` on, into `out` (t, m, n)."""

    @abstractmethod
    def _near(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """(p,) users, (p,) items -> (p,) approximate scores."""

    @abstractmethod
    def _exact(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """(p,) users, (p,) items -> (p,) scores, each a function of its own pair alone."""

    @abstractmethod
    def _margin(self, queries: NDArray[np.int64]) -> NDArray[np.float64]:
        """(m,) how far an approximate score may be from the exact one; negative where a user scores all items 0."""

    def _depth(self, k: int) -> int:
        """How many items a group has when lists of k are asked: 1 where the catalogue is too small for groups."""
        return DEPTH if -(-self.tiles // DEPTH) * self.width >= 4 * k else 1

    def _in_parts(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """`_exact`, a bounded number of pairs at a time."""
        if len(queries) <= _PAIRS:
            return self._exact(queries, items) + np.float32(0.0)  # -0.0 becomes 0.0, so that they tie
        parts = range(0, len(queries), _PAIRS)
        return np.concatenate([self._in_parts(queries[a : a + _PAIRS], items[a : a + _PAIRS]) for a in parts])

    def _best(
        self, queries: NDArray[np.int64], k: int, exclude: Csr | None, shown: Shown | None, scratch: Scratch
    ) -> NDArray[np.int64]:
        """One block: (q,) known users, q <= m -> (q, K)."""
        q, m = len(queries), scratch.rows
        padded = queries if q == m else np.concatenate([queries, np.repeat(queries[:1], m - q)])
        gone = None if exclude is None else Gone(exclude, queries, self.n_items)
        self._maxima(padded, gone, shown, scratch)
        margin = self._margin(queries)  # (q,)
        indifferent = margin < 0
        np.maximum.reduce(scratch.sixteens, axis=1, out=scratch.upper)
        upper = scratch.upper[:, :q].transpose(1, 0, 2).reshape(q, -1)  # (q, g / 16 * n)
        # a k-th greatest maximum of coarser groups is a bound too, nearly as tight, and far cheaper to find
        coarse = upper if upper.shape[1] >= 8 * k else scratch.best[:, :q].transpose(1, 0, 2).reshape(q, -1)
        if coarse.shape[1] > k:
            bound = np.partition(coarse, -k, axis=1)[:, -k].astype(np.float64)  # (q,)
        else:
            bound = np.full(q, -np.inf)
        cut = np.nextafter((bound - 2 * margin).astype(np.float32), np.float32(-np.inf))
        cut = np.where(indifferent, np.float32(np.inf), np.maximum(cut, np.finfo(np.float32).min))  # never -inf itself
        row, start = _reaching(upper, cut, scratch)
        row, item, score = self._candidates(queries, row, start, cut, (gone, shown, scratch))
        out = ordered(row, item, score, q, k)
        if indifferent.any():
            out[indifferent] = _first_free(queries[indifferent], k, exclude, shown, self.n_items)
        return out

    def _maxima(self, padded: NDArray[np.int64], gone: Gone | None, shown: Shown | None, scratch: Scratch) -> None:
        """The greatest score of every group, of what may be in a list, into `scratch.best`."""
        m, n, depth = scratch.rows, self.width, scratch.depth
        added = None if shown is None else shown.added(self.tiles * n).reshape(-1, 1, n)
        for begin in range(0, len(scratch.best), scratch.groups):
            end = min(begin + scratch.groups, len(scratch.best))
            first, last = begin * depth, min(end * depth, self.tiles)
            part = scratch.scores[: (end - begin) * depth]
            self._fill(padded, first, part[: last - first])
            if added is not None:
                part[: last - first] += added[first:last]
            if last == self.tiles:
                part[last - first :] = -np.inf
                part[last - first - 1, :, self.n_items - (last - 1) * n :] = -np.inf
            if gone is not None:
                row, item = gone.between(first * n, last * n)
                tile = item // n
                np.put(part, ((tile - first) * m + row) * n + item - tile * n, -np.inf)
            np.maximum.reduce(part.reshape(-1, depth, m, n), axis=1, out=scratch.best[begin:end])

    def _candidates(
        self,
        queries: NDArray[np.int64],
        row: NDArray[np.int64],
        start: NDArray[np.int64],
        cut: NDArray[np.float32],
        about: tuple[Gone | None, Shown | None, Scratch],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """(c,) groups that reach the cut: their rows and first items -> rows, items and exact scores of what does."""
        gone, shown, scratch = about
        within = np.arange(scratch.depth) * self.width
        found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        step = max(1, _PAIRS // scratch.depth)
        for at in range(0, len(row), step):
            item = (start[at : at + step, None] + within).reshape(-1)
            mine = np.repeat(row[at : at + step], scratch.depth)
            near = self._near(np.take(queries, mine), np.minimum(item, self.n_items - 1))
            kept = (near >= np.take(cut, mine)) & (item < self.n_items)
            if shown is not None:
                kept &= np.take(shown.mask, item, mode="clip")
            place = np.flatnonzero(kept)
            mine, item = np.take(mine, place), np.take(item, place)
            if gone is not None:
                left = np.flatnonzero(~gone.has(mine, item))
                mine, item = np.take(mine, left), np.take(item, left)
            found.append((mine, item, self._in_parts(np.take(queries, mine), item)))
        found = found or [(row, start, np.zeros(0, np.float32))]  # nothing reaches it
        if len(found) == 1:
            return found[0]
        rows, items, scores = zip(*found, strict=True)
        return np.concatenate(rows), np.concatenate(items), np.concatenate(scores)


class Gone:
    """What is left out of the lists of a block, in the order of items: (place in the block, item) pairs."""

    def __init__(self, rows: Csr, wanted: NDArray[np.int64], n_items: int) -> None:
        start = rows.indptr[wanted]
        degrees = rows.indptr[wanted + 1] - start
        row = np.repeat(np.arange(len(wanted)), degrees)
        within = np.arange(len(row)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
        item = rows.indices[start[row] + within].astype(np.int64)
        self._keys, self._n = row * n_items + item, n_items  # ascending: rows in order, items ascending within
        order = np.argsort(item, kind="stable") if len(wanted) > 1 else slice(None)
        self._row, self._item = row[order], item[order]

    def between(self, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pairs of items begin <= item < end."""
        part = slice(*np.searchsorted(self._item, (begin, end)).tolist())
        return self._row[part], self._item[part]

    def has(self, row: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(p,), (p,) -> (p,) whether the pair is left out."""
        if not len(self._keys):
            return np.zeros(len(row), np.bool_)
        key = row * self._n + item
        place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
        return self._keys[place] == key


def _reaching(
    upper: NDArray[np.float32], cut: NDArray[np.float32], scratch: Scratch
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(q, g / 16 * n) maxima of 16 groups, (q,) cuts -> rows in order, and the first items, of groups that reach it."""
    n = scratch.best.shape[2]
    row, column = np.divmod(np.flatnonzero(upper >= cut[:, None]), upper.shape[1])
    sixteen, column = np.divmod(column, n)
    inner = scratch.sixteens[sixteen, :, row, column] >= np.take(cut, row)[:, None]  # (c, 16)
    chosen, within = np.divmod(np.flatnonzero(inner), DEPTH)
    group = np.take(sixteen, chosen) * DEPTH + within
    return np.take(row, chosen), group * scratch.depth * n + np.take(column, chosen)


def _first_free(
    queries: NDArray[np.int64], k: int, exclude: Csr | None, shown: Shown | None, n_items: int
) -> NDArray[np.int64]:
    """(q,) users to whom all items are equal -> (q, K): the smallest rows that may be in a list."""
    out = np.full((len(queries), k), -1, np.int64)
    allowed = None if shown is None else np.flatnonzero(shown.mask)
    for place, user in enumerate(queries.tolist()):
        gone = np.zeros(0, np.int64) if exclude is None else exclude.row(user)
        first = np.arange(min(k + len(gone), n_items)) if allowed is None else allowed[: k + len(gone)]
        free = np.setdiff1d(first, gone, assume_unique=True)[:k]
        out[place, : len(free)] = free
    return out


def ordered(
    row: NDArray[np.int64], item: NDArray[np.int64], score: NDArray[np.float32], q: int, k: int
) -> NDArray[np.int64]:
    """Pairs grouped by row -> (q, K) items, greatest score first, then smallest item; -1 past the end."""
    if not np.isfinite(score).all():
        raise DataError(problem("A score is not a finite number", remedy="The vectors are too large: train again"))
    word = score.view(np.int32).astype(np.int64)
    word ^= (word >> 31) & 0x7FFFFFFF  # float32 in the order of integers
    key = (word << 32) | (0xFFFFFFFF - item)  # distinct, so that any sort gives the same order
    count = np.bincount(row, minlength=q)  # (q,)
    start = np.cumsum(count) - count
    lowest = np.iinfo(np.int64).min
    table = np.full((q, max(int(count.max(initial=0)), k)), lowest, np.int64)  # (q, C)
    table[row, np.arange(len(row)) - start[row]] = key
    table = np.sort(table, axis=1)[:, : -k - 1 : -1]  # (q, K)
    return np.where(table == lowest, -1, 0xFFFFFFFF - (table & 0xFFFFFFFF))
