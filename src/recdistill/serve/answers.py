"""Who gets what, in rows: the part of a service that knows no external id.

Letters: Q users asked, q of them in one block, k list, I items, m candidates, e items left out of one user's list.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from recdistill.evaluation.blocks import BlockRanker, Shown
from recdistill.serve.arguments import among

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.evaluation.ranking import Ranker
    from recdistill.ids import IdTable
    from recdistill.serve.arguments import Wish

    Untrained = tuple[NDArray[np.bool_], NDArray[np.bool_]]

__all__ = ["Answers", "nothing"]

_CELLS = 1 << 20  # places of lists, or candidates' scores, that are held at a time


class Answers:
    """Lists of item rows for user rows."""

    ranker: Ranker
    users: IdTable
    items: IdTable
    seen: Csr
    popular: NDArray[np.int64]
    _trained: Csr | Callable[[], Untrained] | None
    _available: NDArray[np.bool_] | None = None
    """(I,) what may be shown; None = all."""

    def _answers(self, rows: NDArray[np.int64], wish: Wish) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(Q,) user rows -> (Q, k) item rows, -1 past the end, and their scores, NaN for popular lists."""
        lists, scores = nothing(len(rows), wish.k)
        served = self._served(rows)
        known, unknown = np.flatnonzero(served >= 0), np.flatnonzero(served < 0)
        longest = wish.k + wish.left_out.most
        step = max(1, _CELLS // max(longest if wish.only is None else len(wish.only), 1))
        for at in range(0, len(known), step):
            place = known[at : at + step]
            found = self._best(rows[place], place, wish)
            lists[place, : found.shape[1]] = found
            scores[place, : found.shape[1]] = self.ranker.scores_of(rows[place], found)
        had = self._had(rows[unknown]) if wish.filter_seen else np.zeros(len(unknown), np.int64)  # cold, not unknown
        base = self._popular(wish.only)[: longest + int(had.max(initial=0))]
        step = max(1, _CELLS // max(len(base), 1))
        for at in range(0, len(unknown), step):
            place = unknown[at : at + step]
            whole = np.broadcast_to(base, (len(place), len(base)))
            gone = wish.left_out.contains(place, whole)
            some = np.flatnonzero(had[at : at + step])
            if len(some):
                gone[some] |= self._seen_among(rows[place[some]], whole[some])
            found = _kept(whole, gone, wish.k)
            lists[place, : found.shape[1]] = found
        return lists, scores

    def _served(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(Q,) user rows, -1 where the model has learned nothing of the user."""
        cold = self._cold[0]
        return rows if cold is None else np.where((rows >= 0) & cold[rows], -1, rows)

    def _had(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(Q,) user rows, -1 = unknown -> (Q,) how much each has seen."""
        safe = np.maximum(rows, 0)
        return (
            np.where(rows >= 0, self.seen.indptr[safe + 1] - self.seen.indptr[safe], 0) if len(self.users) else rows * 0
        )

    @cached_property
    def _cold(self) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
        """(U,) users and (I,) items that nothing was learned of; None where there is none."""
        if self._trained is None:
            return None, None
        if callable(self._trained):
            users, items = self._trained()
        else:
            users, items = self._trained.degrees == 0, np.ones(len(self.items), np.bool_)
            items[self._trained.indices] = False
        return users if users.any() else None, items if items.any() else None

    @cached_property
    def _shown(self) -> Shown | None:
        """The items that a list of the model may hold: available, and learned of. None = all."""
        cold, available = self._cold[1], self._available
        if cold is None:
            return None if available is None else Shown(available)
        return Shown(~cold if available is None else available & ~cold)

    def _best(self, rows: NDArray[np.int64], place: NDArray[np.int64], wish: Wish) -> NDArray[np.int64]:
        """(q,) known user rows and their places in the request -> (q, <= k)."""
        if wish.only is None:
            # as many more as may be left out are ranked, so that k remain; exact
            more = min(wish.k + wish.left_out.most, max(len(self.items), 1))
            seen = self.seen if wish.filter_seen else None
            found = self._ranked(rows, more, seen)  # (q, k + e)
            return _kept(found, wish.left_out.contains(place, found), wish.k)
        items = np.broadcast_to(np.sort(wish.only), (len(rows), len(wish.only)))  # (q, m), smaller row first
        gone = wish.left_out.contains(place, items)
        if self._shown is not None:
            gone |= ~self._shown.mask[items]
        if wish.filter_seen:
            gone |= self._seen_among(rows, items)
        score = np.where(gone, -np.inf, self.ranker.scores_of(rows, items))
        order = np.argsort(-score, axis=1, kind="stable")
        return _kept(np.take_along_axis(items, order, 1), np.take_along_axis(gone, order, 1), wish.k)

    def _ranked(self, rows: NDArray[np.int64], k: int, seen: Csr | None) -> NDArray[np.int64]:
        """(q,) user rows -> (q, k) of the items that may be shown."""
        if self._shown is None:
            return self.ranker.top_k(rows, k, seen)
        if isinstance(self.ranker, BlockRanker):
            return self.ranker.top_k(rows, k, seen, shown=self._shown)
        whole = self.ranker.top_k(rows, max(len(self.items), 1), seen)  # of another make: it knows no such list
        return _kept(whole, (whole < 0) | ~self._shown.mask[whole], k)

    def _seen_among(self, rows: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(q,) user rows, (q, m) item rows -> (q, m) whether seen; reads these users' rows alone."""
        starts = self.seen.indptr[rows]
        degrees = self.seen.indptr[rows + 1] - starts
        ends = np.cumsum(degrees)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - degrees, degrees)
        line = np.repeat(np.arange(len(rows)), degrees)
        keys = line * len(self.items) + self.seen.indices[np.repeat(starts, degrees) + within]  # ascending
        return among(np.arange(len(rows))[:, None] * len(self.items) + items, keys)

    def _popular(self, only: NDArray[np.int64] | None) -> NDArray[np.int64]:
        if only is None:
            return np.asarray(self.popular) if self._available is None else self._popular_available
        only = only if self._available is None else only[self._available[only]]
        first = self.popular[np.isin(self.popular, only)]
        return np.concatenate([first, only[~np.isin(only, first)]])

    @cached_property
    def _popular_available(self) -> NDArray[np.int64]:
        """What is available, the popular first."""
        rows = np.flatnonzero(np.zeros(0) if self._available is None else self._available)
        first = self.popular[np.isin(self.popular, rows)]
        return np.concatenate([first, np.setdiff1d(rows, first)])


def _kept(lists: NDArray[np.int64], gone: NDArray[np.bool_], k: int) -> NDArray[np.int64]:
    """(q, m) -> (q, min(k, m)): what is not gone, in its order, -1 past the end."""
    left = np.where(gone, -1, lists)
    order = np.argsort(left < 0, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(left, order, 1)


def nothing(n: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(n, k) empty lists, and scores that are none."""
    return np.full((n, k), -1, np.int64), np.full((n, k), np.nan, np.float32)
