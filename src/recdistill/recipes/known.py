"""A teacher that is no ranker, asked like one: so that its own quality stands in the table.

Letters: Q queries, K list, n others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from recdistill.knowledge.view import Kind
from recdistill.query import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.knowledge.view import Knows, View

__all__ = ["KnownRanker"]

_AT_A_TIME = 1024  # queries asked at once


class KnownRanker:
    """Ranks by a teacher's views. Its lists already lack the training items; what else is excluded is taken out here.

    A list may end early where the teacher's does: such places are -1 and count as misses.
    """

    threads = 1

    def __init__(self, teacher: Knows, *, n_users: int, n_items: int) -> None:
        self.teacher, self.n_users, self.n_items = teacher, n_users, n_items

    @property
    def has_scores(self) -> bool:
        """Whether the sampled protocol can be asked of it."""
        return Kind.SCORES in self.teacher.provides

    def top_k(self, queries: NDArray[np.int64], k: int, exclude: Csr | None = None) -> NDArray[np.int64]:
        """(Q,) user rows -> (Q, k) item rows, best first, -1 past the end."""
        out = np.full((len(queries), k), -1, np.int64)
        for start in range(0, len(queries), _AT_A_TIME):
            some = queries[start : start + _AT_A_TIME]
            here = np.flatnonzero((some >= 0) & (some < self.n_users))
            if not len(here):
                continue
            rows = some[here]
            gone = 0 if exclude is None else int(exclude.degrees[rows].max())
            lists = self._view(rows).ranked(min(k + gone, self.n_items)).cpu().numpy()  # (q, k + gone)
            bad = lists < 0
            if exclude is not None:
                bad |= exclude.contains(rows[:, None], np.maximum(lists, 0))
            order = np.argsort(bad, axis=1, kind="stable")[:, :k]
            kept = np.where(np.take_along_axis(bad, order, 1), -1, np.take_along_axis(lists, order, 1))
            out[start + here, : kept.shape[1]] = kept
        return out

    def ranks_among(
        self, queries: NDArray[np.int64], target: NDArray[np.int64], others: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """(Q,) users, (Q,) targets, (Q, n) others, -1 = none -> (Q,) rank of the target; infinity: no answer."""
        items = np.concatenate([target[:, None], others.astype(np.int64)], axis=1)  # (Q, 1 + n)
        scores = self.scores_of(queries, items)
        mine, theirs = scores[:, :1], np.where(others >= 0, scores[:, 1:], -np.inf)
        rank = 1.0 + (theirs > mine).sum(axis=1) + ((theirs == mine) & (others >= 0)).sum(axis=1) / 2
        return np.where(np.isfinite(mine[:, 0]), rank, np.inf)

    def scores_of(self, queries: NDArray[np.int64], items: NDArray[np.integer]) -> NDArray[np.float32]:
        """(Q,) users, (Q, n) item rows -> (Q, n) scores; -inf for what the teacher does not know."""
        out = np.full(items.shape, -np.inf, np.float32)
        for start in range(0, len(queries), _AT_A_TIME):
            some = queries[start : start + _AT_A_TIME]
            here = np.flatnonzero((some >= 0) & (some < self.n_users))
            if len(here):
                asked = np.asarray(items[start + here], np.int64)
                found = self._view(some[here]).scores(torch.from_numpy(np.maximum(asked, 0))).cpu().numpy()
                out[start + here] = np.where(asked >= 0, found, -np.inf)
        return out

    def _view(self, rows: NDArray[np.int64]) -> View:
        with torch.no_grad():
            return self.teacher.view(Query(torch.from_numpy(np.ascontiguousarray(rows))))
