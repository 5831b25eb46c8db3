"""Exact top-k and exact ranks out of an approximate product: the product proposes, one exact dot decides.

A float32 product of a block differs in its last bits with the shape of the block, the BLAS and its threads. So the
product only proposes: with a bound on its error, the candidates that could be among the best k are kept, scored again
one pair at a time in float64, rounded to float32, and ordered. An answer therefore never depends on the batch, the
block size or the number of threads, and equal scores are equal, whichever column they stand in.

How the best are found without sorting everything: `evaluation.topk`.

Letters: Q queries, n tile width, m block rows, T tiles, K list, p pairs.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.evaluation.topk import Scratch, Shown, TopK

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from recdistill.data.csr import Csr

__all__ = ["BlockRanker", "Shown", "Work", "default_threads"]

_ROWS = (1, 4, 8, 16, 32, 64)  # block heights: one user, a small request, a whole table
_BEST = 1 << 22  # floats of one block's group maxima that a thread may hold (16 MiB), down to 8 rows
_WORK = 1 << 20  # floats of work space a thread when targets are ranked (4 MiB)


def default_threads() -> int:
    """How many threads a ranker uses when not told: OMP_NUM_THREADS where set, else the CPUs this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Work:
    """The buffers of one thread that ranks targets."""

    def __init__(self, rows: int, n: int, floats: int) -> None:
        self.items = np.zeros((rows, n), np.int64)
        self.floats = np.empty(rows * n * floats, np.float32)


class BlockRanker(TopK):
    """What every ranker of this house shares: blocks, threads, exclusions, ties; a subclass scores.

    A subclass sets `n_users`, `n_items`, `tiles`, `width` before use.
    """

    n_users: int

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

    @override
    def _near(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        work = np.empty(len(queries) * self._padded(1) * self._floats, np.float32)
        return self._gathered(queries, items[:, None], work)[:, 0]

    # what everybody asks

    def top_k(
        self, queries: NDArray[np.int64], k: int, exclude: Csr | None = None, *, shown: Shown | None = None
    ) -> NDArray[np.int64]:
        """The best k items of each user; of items with equal scores the smaller row comes first.

        Args:
            queries: (Q,) user rows; a row the ranker does not have (-1, or n_users and beyond) gets an empty list.
            k: how many, at least 1; more than there are items is allowed.
            exclude: what is left out, one row per USER ROW (n_users x n_items), indexed by the queries.
            shown: which items may be in a list; None = all.

        Returns:
            (Q, k) int64 item rows, best first, -1 past the end.

        Raises:
            UsageError: k is less than 1, or `exclude` or `shown` is of another shape.
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
        if shown is not None and shown.mask.shape != (self.n_items,):
            raise UsageError(
                problem(
                    "`shown` must say of every item whether it may be shown",
                    shown.mask.shape,
                    allowed=f"({self.n_items},)",
                )
            )
        out = np.full((len(queries), k), -1, np.int64)
        places = np.flatnonzero(known)
        if len(places) == 0 or self.n_items == 0:
            return out
        asked = queries[places]
        self._check(asked)
        depth = self._depth(k)
        rows = self._height(len(asked), depth)

        def block(start: int) -> None:
            at = slice(start, start + rows)
            scratch = self._borrow(rows, depth)
            try:
                out[places[at]] = self._best(asked[at], k, exclude, shown, scratch)
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

    def _height(self, wanted: int, depth: int) -> int:
        room = max(_BEST * depth // (self.tiles * self.width), 8)
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
