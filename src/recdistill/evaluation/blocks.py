"""Exact top-k and exact ranks out of an approximate product: the product proposes, one exact dot decides.

A float32 product of a block differs in its last bits with the shape of the block, the BLAS and its threads. So the
product only proposes: with a bound on its error, the candidates that could be among the best k are kept, scored again
one pair at a time in float64, rounded to float32, and ordered. An answer therefore never depends on the batch, the
block size or the number of threads, and equal scores are equal, whichever column they stand in.

The partial sort is blocked: the k-th greatest of the maxima of every `depth` items bounds the k-th greatest score from
below, and only the groups that reach it are looked at again. That is exact, and looks at 1/depth of what a partition of
whole rows would.

Letters: Q queries, n tile width, m block rows, T tiles, g groups a column, K list, p pairs.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import DataError, UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from recdistill.data.csr import Csr

__all__ = ["BlockRanker", "Scratch", "Work", "default_threads"]

_ROWS = (1, 8, 32)  # block heights: one user, a small request, a whole table
_SCORES = 1 << 22  # floats of one block's scores that a thread may hold (16 MiB), down to 8 rows
_PAIRS = 1 << 16  # pairs that are scored exactly at a time
_DEPTH = 16  # items a group
_WORK = 1 << 20  # floats of work space a thread when targets are ranked (4 MiB)


def default_threads() -> int:
    """How many threads a ranker uses when not told: OMP_NUM_THREADS where set, else the CPUs this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Scratch:
    """The buffers of one thread, made once and used for every block: fresh ones cost more than the product."""

    def __init__(self, rows: int, tiles: int, width: int, depth: int) -> None:
        self.rows = rows
        self.depth = depth
        groups = -(-tiles // depth)
        self.scores = np.full((groups * depth, rows, width), -np.inf, np.float32)  # (T, m, n), padded with -inf
        self.best = np.empty((groups, rows, width), np.float32)  # (g, m, n)
        self.reach = np.empty((rows, groups, width), np.bool_)  # (m, g, n)


class Work:
    """The buffers of one thread that ranks targets."""

    def __init__(self, rows: int, n: int, floats: int) -> None:
        self.items = np.zeros((rows, n), np.int64)
        self.floats = np.empty(rows * n * floats, np.float32)


class BlockRanker(ABC):
    """What every ranker of this house shares: blocks, threads, exclusions, ties; a subclass scores.

    A subclass sets `n_users`, `n_items`, `tiles`, `width` before use.
    """

    n_users: int
    n_items: int
    tiles: int
    """T: how many tiles the catalogue is cut into."""
    width: int
    """n: items a tile; the last one is padded."""

    def __init__(self, *, threads: int | None) -> None:
        if threads is not None and threads < 1:
            raise UsageError(problem("A ranker needs at least one thread", threads, remedy="Leave `threads` out"))
        self.threads = default_threads() if threads is None else threads
        self._idle: dict[tuple[int, int], list[Scratch]] = {}
        self._work: list[Work] = []

    # what a subclass knows

    @abstractmethod
    def _check(self, queries: NDArray[np.int64]) -> None:
        """Raise `DataError` where a score of these users would not be a finite number."""

    @abstractmethod
    def _fill(self, queries: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        """Approximate scores of (m,) users and all items, tile by tile, into `out` (T, m, n)."""

    @abstractmethod
    def _gathered(
        self, queries: NDArray[np.int64], items: NDArray[np.int64], work: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Approximate scores of (m,) users and their own items (m, n), -1 = any score -> (m, n), in `work`.

        `work` holds `_floats` numbers for each of the m x n pairs.
        """

    def _padded(self, n: int) -> int:
        """The least number of items, at least n, that `_gathered` takes at once for each user."""
        return n

    @property
    @abstractmethod
    def _floats(self) -> int:
        """How many numbers of work space `_gathered` needs a pair."""

    @abstractmethod
    def _margin(self, queries: NDArray[np.int64]) -> NDArray[np.float64]:
        """(m,) how far an approximate score may be from the exact one; negative where a user scores all items 0."""

    @abstractmethod
    def _exact(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """(p,) users, (p,) items -> (p,) scores, each a function of its own pair alone."""

    # what everybody asks

    def top_k(self, queries: NDArray[np.int64], k: int, exclude: Csr | None = None) -> NDArray[np.int64]:
        """The best k items of each user; of items with equal scores the smaller row comes first.

        Args:
            queries: (Q,) user rows; a row the ranker does not have (-1, or n_users and beyond) gets an empty list.
            k: how many, at least 1; more than there are items is allowed.
            exclude: what is left out, one row per USER ROW (n_users x n_items), indexed by the queries.

        Returns:
            (Q, k) int64 item rows, best first, -1 past the end.

        Raises:
            UsageError: k is less than 1, or `exclude` is of another shape.
            DataError: a score is not a finite number.
        """
        queries = self._asked(queries)
        if k < 1:
            raise UsageError(problem("A list needs at least one place: `k` must be at least 1", k))
        known = (queries >= 0) & (queries < self.n_users)
        if exclude is not None and (
            exclude.n_columns != self.n_items or (known.any() and exclude.n_rows <= queries[known].max())
        ):
            raise UsageError(
                problem(
                    "`exclude` must have a row for every user asked and a column for every item",
                    (exclude.n_rows, exclude.n_columns),
                    allowed=f"({self.n_users}, {self.n_items})",
                )
            )
        out = np.full((len(queries), k), -1, np.int64)
        places = np.flatnonzero(known)
        if len(places) == 0 or self.n_items == 0:
            return out
        asked = queries[places]
        self._check(asked)
        rows = self._height(len(asked))
        depth = _DEPTH if -(-self.tiles // _DEPTH) * self.width >= 4 * k else 1

        def block(start: int) -> None:
            at = slice(start, start + rows)
            scratch = self._borrow(rows, depth)
            try:
                out[places[at]] = self._best(asked[at], k, exclude, scratch)
            finally:
                self._idle[rows, depth].append(scratch)

        self._each(block, range(0, len(asked), rows))
        return out

    def ranks_among(
        self, queries: NDArray[np.int64], target: NDArray[np.int64], others: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """Where each user's target stands among other items: 1 + how many score more + half of how many score the same.

        Args:
            queries: (Q,) user rows; a row the ranker does not have gets rank infinity.
            target: (Q,) item rows; or (Q, t), each ranked by itself among the same others, which are scored once.
            others: (Q, n) item rows, no target among them; -1 = none.

        Returns:
            Float64 of the shape of `target`: ranks in [1, n + 1], in halves; infinity for an unknown user.

        Raises:
            UsageError: shapes differ, or an item row does not exist.
            DataError: a score is not a finite number.
        """
        queries = self._asked(queries)
        target = np.asarray(target)
        if target.shape[:1] != queries.shape or target.ndim > 2 or others.ndim != 2 or len(others) != len(queries):
            shapes = (queries.shape, target.shape, others.shape)
            raise UsageError(problem("Ranks need (Q,) queries, (Q,) or (Q, t) targets and (Q, n) others", shapes))
        last = self.n_items - 1
        for what, items, least in (("target", target, 0), ("candidate", others, -1)):
            if items.size and (items.min() < least or items.max() > last):
                wrong = int(items.min()) if items.min() < least else int(items.max())
                raise UsageError(problem(f"A {what} is not an item row", wrong, allowed=f"{least} to {last}"))
        ranks = np.full(target.shape, np.inf)
        places = np.flatnonzero((queries >= 0) & (queries < self.n_users))
        if target.size == 0 or len(places) == 0:
            return ranks
        asked = queries[places]
        self._check(asked)
        goals = target.reshape(len(queries), -1)[places].astype(np.int64)  # (q, t)
        score = self._in_parts(np.repeat(asked, goals.shape[1]), goals.ravel()).reshape(goals.shape)
        margin = np.maximum(2 * self._margin(asked), 0)[:, None]
        low = np.nextafter((score - margin).astype(np.float32), np.float32(-np.inf))
        high = np.nextafter((score + margin).astype(np.float32), np.float32(np.inf))
        n = self._padded(max(others.shape[1], 1))
        rows = max(1, min(_WORK // (n * self._floats), -(-len(places) // self.threads)))
        holes = bool((others < 0).any())
        found = np.empty(goals.shape)  # (q, t)

        def block(start: int) -> None:
            at = slice(start, start + rows)
            work = self._workspace(rows, n)
            try:
                mine = others[places[at]] if len(places) < len(queries) else others[at]
                items = work.items[: len(mine)]
                items[:, : mine.shape[1]] = mine
                near = self._gathered(asked[at], items, work.floats)[:, : mine.shape[1]]
                if holes:
                    near[mine < 0] = -np.inf
                for j in range(goals.shape[1]):
                    place = (asked[at], items, score[at, j])
                    found[at, j] = 1 + self._above(near, low[at, j, None], high[at, j, None], place)
            finally:
                self._work.append(work)

        self._each(block, range(0, len(places), rows))
        ranks[places] = found.reshape(len(places), *target.shape[1:])
        return ranks

    def scores_of(self, queries: NDArray[np.int64], items: NDArray[np.integer]) -> NDArray[np.float32]:
        """The scores that order the lists: (Q,) users, (Q, K) items -> (Q, K) float32; -inf where either is unknown."""
        queries = self._asked(queries)
        known = ((queries >= 0) & (queries < self.n_users))[:, None] & (items >= 0) & (items < self.n_items)  # (Q, K)
        out = np.full(items.shape, -np.inf, np.float32)
        row, column = np.nonzero(known)
        self._check(np.unique(queries[row]))
        out[row, column] = self._in_parts(queries[row], items[row, column].astype(np.int64))
        return out

    # helpers

    def _asked(self, queries: NDArray[np.int64]) -> NDArray[np.int64]:
        queries = np.asarray(queries)
        if queries.ndim != 1 or queries.dtype.kind not in "iu":
            raise UsageError(
                problem("Queries must be a vector of user rows", f"{queries.dtype} of shape {queries.shape}")
            )
        return queries.astype(np.int64, copy=False)

    def _height(self, wanted: int) -> int:
        room = max(_SCORES // (self.tiles * self.width), 8)
        return next((r for r in _ROWS if r >= wanted or r * 2 > room), _ROWS[-1])

    def _borrow(self, rows: int, depth: int) -> Scratch:
        idle = self._idle.setdefault((rows, depth), [])
        try:
            return idle.pop()  # atomic, so that requests may share a ranker
        except IndexError:
            return Scratch(rows, self.tiles, self.width, depth)

    def _workspace(self, rows: int, n: int) -> Work:
        try:
            work = self._work.pop()  # atomic, as above
        except IndexError:
            return Work(rows, n, self._floats)
        return work if work.items.shape == (rows, n) else Work(rows, n, self._floats)

    def _each(self, work: Callable[[int], None], starts: range) -> None:
        threads = min(self.threads, len(starts))
        if threads <= 1:
            for start in starts:
                work(start)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, starts))  # list: the first error is raised here

    def _in_parts(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """`_exact`, a bounded number of pairs at a time."""
        if len(queries) <= _PAIRS:
            return self._exact(queries, items) + np.float32(0.0)  # -0.0 becomes 0.0, so that they tie
        parts = range(0, len(queries), _PAIRS)
        return np.concatenate([self._in_parts(queries[a : a + _PAIRS], items[a : a + _PAIRS]) for a in parts])

    def _best(self, queries: NDArray[np.int64], k: int, exclude: Csr | None, scratch: Scratch) -> NDArray[np.int64]:
        """One block: (q,) known users, q <= m -> (q, K)."""
        q, m, n, depth = len(queries), scratch.rows, self.width, scratch.depth
        padded = queries if q == m else np.concatenate([queries, np.repeat(queries[:1], m - q)])
        flat = scratch.scores.reshape(-1)
        # all tiles in one call: threads that make many small ones wait for each other at the interpreter's lock
        self._fill(padded, scratch.scores[: self.tiles])
        scratch.scores[self.tiles - 1, :, self.n_items - (self.tiles - 1) * n :] = -np.inf
        if exclude is not None:
            row, item = _pairs(exclude, queries)
            np.put(flat, ((item // n) * m + row) * n + item % n, -np.inf)
        np.maximum.reduce(scratch.scores.reshape(-1, depth, m, n), axis=1, out=scratch.best)
        margin = self._margin(queries)  # (q,)
        indifferent = margin < 0
        best = scratch.best[:, :q].transpose(1, 0, 2)  # (q, g, n)
        # a k-th greatest maximum of coarser groups is a bound too, nearly as tight, and far cheaper to find
        coarse = best.max(axis=1) if n >= 8 * k else best.reshape(q, -1)
        if coarse.shape[1] > k:
            bound = np.partition(coarse, -k, axis=1)[:, -k].astype(np.float64)  # (q,)
        else:
            bound = np.full(q, -np.inf)
        cut = np.nextafter((bound - 2 * margin).astype(np.float32), np.float32(-np.inf))
        cut = np.where(indifferent, np.float32(np.inf), np.maximum(cut, np.finfo(np.float32).min))  # never -inf itself
        reach = np.greater_equal(best, cut[:, None, None], out=scratch.reach[:q])
        row, group = np.divmod(np.flatnonzero(reach), reach[0].size)
        group, column = np.divmod(group, n)
        tile = group[:, None] * depth + np.arange(depth)  # (c, depth)
        place = (tile * m + row[:, None]) * n + column[:, None]
        # `take` and not brackets, here and where vectors are gathered: it lets other threads go on
        chosen = np.flatnonzero(np.take(flat, place) >= np.take(cut, row)[:, None])  # among (c, depth)
        row = np.take(row, chosen // depth)
        item = np.take((tile * n + column[:, None]).reshape(-1), chosen)
        out = _ordered(row, item, self._in_parts(queries[row], item), q, k)
        if indifferent.any():
            out[indifferent] = self._first_free(queries[indifferent], k, exclude)
        return out

    def _first_free(self, queries: NDArray[np.int64], k: int, exclude: Csr | None) -> NDArray[np.int64]:
        """(q,) users to whom all items are equal -> (q, K): the smallest rows that are not excluded."""
        out = np.full((len(queries), k), -1, np.int64)
        for place, user in enumerate(queries.tolist()):
            gone = np.zeros(0, np.int64) if exclude is None else exclude.row(user)
            free = np.setdiff1d(np.arange(min(k + len(gone), self.n_items)), gone, assume_unique=True)[:k]
            out[place, : len(free)] = free
        return out

    def _above(
        self,
        near: NDArray[np.float32],
        low: NDArray[np.float32],
        high: NDArray[np.float32],
        place: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]],
    ) -> NDArray[np.float64]:
        """(q, n) approximate scores -> (q,) how many are above the target, equal ones by half.

        Scores beyond `high` are above for sure, those below `low` are not; the few between are computed exactly.
        """
        queries, items, score = place
        sure, reach = near > high, near >= low  # (q, n)
        above = np.add.reduce(sure.view(np.uint8), axis=1, dtype=np.int32).astype(np.float64)
        if np.count_nonzero(reach) == np.count_nonzero(sure):
            return above
        row, column = np.divmod(np.flatnonzero(reach != sure), near.shape[1])  # reach includes sure
        exact = self._in_parts(queries[row], items[row, column])
        half = (exact > score[row]).astype(np.float64) + 0.5 * (exact == score[row])
        return above + np.bincount(row, weights=half, minlength=len(above))


def _pairs(rows: Csr, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(q,) -> each stored (place among `wanted`, column), flat; reads only those rows."""
    start = rows.indptr[wanted]
    degrees = rows.indptr[wanted + 1] - start
    row = np.repeat(np.arange(len(wanted)), degrees)
    within = np.arange(len(row)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    return row, rows.indices[start[row] + within].astype(np.int64)


def _ordered(
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
