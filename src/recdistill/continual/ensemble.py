"""Several rankers as one: each member's ranks are weighed and averaged, nothing else of its scores counts.

    score(u, i) = mean over members of  r_m(u, i) ** -exponent,      r from 1; equal scores by the smaller item

Lee et al., CCD, KDD 2024 (official code: exponent 0.05, almost logarithmic). What stages need of it are lists: the best
items of each user, and the users to whom each item is most. One pass over chunks of users makes both.

Letters: U users, I items, M members, c users of a chunk, K list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recdistill.data.csr import Csr
from recdistill.errors import UsageError, problem
from recdistill.teachers.ensemble import worth_of_ranks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from recdistill.continual.replay import Vectors

__all__ = ["EnsembleRanker", "Lists", "counted", "lists_of", "merge"]

_SCORES = 1 << 21
"""Scores of one member at a time (8 MiB)."""


@dataclass(frozen=True, eq=False)
class Lists:
    """What an ensemble hands on."""

    items: NDArray[np.int32]
    """(U, K) the best items of each user, without those in training in the block, best first, -1 past the end."""
    users: NDArray[np.int32]
    """(I, K) the users to whom each item scores most among those who do not have it, best first."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, as `from_arrays` takes them."""
        return {"items": self.items, "users": self.users}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Lists:
        """What `arrays` gave."""
        return cls(arrays["items"], arrays["users"])


class EnsembleRanker:
    """The `Ranker` of several members."""

    def __init__(self, members: Sequence[Vectors], *, exponent: float = 0.05) -> None:
        """Join members, each (U, d) and (I, d), over the same users and items.

        Raises:
            UsageError: there is no member, or sizes differ.
        """
        sizes = {(len(user), len(item)) for user, item in members}
        if len(sizes) != 1:
            what = "The members of an ensemble must have the same users and items"
            raise UsageError(problem(what, sorted(sizes) or "no member", remedy="Grow all of them to the same block"))
        self._members = list(members)
        self.n_users, self.n_items = sizes.pop()
        self._worth = worth_of_ranks(self.n_items, worth="power", rate=exponent) / np.float32(len(members))  # by rank
        self._low = np.arange(self.n_items, dtype=np.int64)

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """(c,) user rows -> (c, I) scores, in (0, 1]."""
        out = np.zeros((len(users), self.n_items), np.float32)
        worth = np.broadcast_to(self._worth, out.shape)
        for user, item in self._members:
            scores = user[users] @ item.T  # (c, I)
            scores += np.float32(0)  # -0.0 ties with 0.0
            word = scores.view(np.int32)
            word ^= (word >> 31) & 0x7FFFFFFF  # floats as integers of the same order
            np.invert(word, out=word)  # the greatest first
            key = word.astype(np.int64)
            key <<= 32
            key |= self._low  # ties by item
            key.sort(axis=1)
            key &= 0xFFFFFFFF  # (c, I) items, best first
            np.put_along_axis(scores, key, worth, axis=1)
            out += scores
        return out

    def top_k(self, queries: NDArray[np.int64], k: int, exclude: Csr | None = None) -> NDArray[np.int64]:
        """(Q,) user rows -> (Q, k) the best items, -1 past the end; `exclude` has a row for every user row."""
        out = np.full((len(queries), k), -1, np.int64)
        for at, rows in self._chunks(queries):
            scores = self.scores(rows)
            if exclude is not None:
                mine = exclude.select(rows)
                scores[np.repeat(np.arange(len(rows)), mine.degrees), mine.indices] = -1
            out[at] = _best(scores, k)
        return out

    def ranks_among(
        self, queries: NDArray[np.int64], target: NDArray[np.int64], others: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """(Q,), (Q,), (Q, n; -1 = none) -> rank of each target: 1 + #greater + #equal / 2."""
        scores = self.scores_of(queries, np.concatenate([target[:, None], others], 1))
        mine, theirs = scores[:, :1], scores[:, 1:]
        rank = 1 + (theirs > mine).sum(1) + ((theirs == mine) & (others >= 0)).sum(1) / 2
        return np.where(np.isfinite(mine[:, 0]), rank, np.inf)

    def scores_of(self, queries: NDArray[np.int64], items: NDArray[np.integer]) -> NDArray[np.float32]:
        """(Q,), (Q, n) -> (Q, n) scores, -inf where the user or the item is unknown."""
        out = np.full(items.shape, -np.inf, np.float32)
        for at, rows in self._chunks(queries):
            found = np.take_along_axis(self.scores(rows), np.maximum(items[at], 0).astype(np.int64), 1)
            out[at] = np.where(items[at] >= 0, found, -np.inf)
        return out

    def _chunks(self, queries: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        known = np.flatnonzero((queries >= 0) & (queries < self.n_users))
        size = max(1, _SCORES // max(self.n_items, 1))
        for start in range(0, len(known), size):
            at = known[start : start + size]
            yield at, queries[at]


def lists_of(ranker: EnsembleRanker, train: Csr, k: int, *, met: NDArray[np.bool_] | None = None) -> Lists:
    """The lists of both sides in one pass over the users.

    Args:
        ranker: over U users and I items.
        train: U x I, the block's training items, which are in no list.
        k: their length.
        met: (U,) who was ever trained: nobody else has a list or is in one. A row that was emptied scores all items
            alike, so the first of them would rank best there with every member. None = everybody counts.
    """
    users, n_items = counted(ranker.n_users, met), ranker.n_items
    items = np.full((ranker.n_users, k), -1, np.int32)
    best = np.full((n_items, k), -1, np.float32)  # (I, K) scores so far, the greatest first
    who = np.full((n_items, k), -1, np.int32)
    size = max(1, _SCORES // max(n_items, 1))
    for at in range(0, len(users), size):
        rows = users[at : at + size]
        scores = ranker.scores(rows)
        mine = train.select(rows)
        scores[np.repeat(np.arange(len(rows)), mine.degrees), mine.indices] = -1
        items[rows] = _best(scores, k)
        row, item = np.nonzero(scores > best[:, -1])  # a later user of an equal score comes later
        merge(best, who, item, rows[row], scores[row, item])
    return Lists(items, who)


def merge(
    best: NDArray[np.float32],
    who: NDArray[np.int32],
    item: NDArray[np.int64],
    user: NDArray[np.int64],
    score: NDArray[np.float32],
) -> None:
    """Put (n,) new entries into lists (I, K), in place; of equal scores the smaller user comes first."""
    changed = np.unique(item)
    k = best.shape[1]
    owner = np.concatenate([np.repeat(changed, k), item])
    name = np.concatenate([who[changed].ravel(), user])
    value = np.concatenate([best[changed].ravel(), score])
    order = np.lexsort((name, -value, owner))
    owner, name, value = owner[order], name[order], value[order]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = place < k
    best[owner[kept], place[kept]] = value[kept]
    who[owner[kept], place[kept]] = name[kept]


def counted(n_users: int, met: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """The rows of those who are met, ascending; all U where nobody says."""
    return np.arange(n_users, dtype=np.int64) if met is None else np.flatnonzero(met[:n_users])


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(c, I), what is left out below 0 -> (c, k) columns, best first, equals by the smaller one, -1 past the end."""
    n = scores.shape[1]
    value, place = torch.from_numpy(scores).topk(min(k + 1, n), 1)
    if k < n:  # of those equal to the last one topk may take any: take them by column
        for row in (value[:, k - 1] == value[:, k]).nonzero()[:, 0].tolist():
            here = torch.from_numpy(np.lexsort((np.arange(n), -scores[row]))[:k])
            value[row, :k], place[row, :k] = torch.from_numpy(scores[row])[here], here
        value, place = value[:, :k], place[:, :k]
    place, order = place.sort(1)
    value, again = value.gather(1, order).sort(dim=1, descending=True, stable=True)
    found = torch.where(value >= 0, place.gather(1, again), -1).numpy()
    return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1)
