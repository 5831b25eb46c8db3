"""An ensemble's lists from the heads of its members' lists, for catalogues whose whole order costs too much.

    score(u, i) = mean over members of  min(r_m(u, i), D + 1) ** -exponent        r from 1

What a member does not have among its first D counts as its (D + 1)-th. At D = I this is `ensemble.lists_of`; the order
of CCD's ensemble is decided at the head, for an item that nobody lists scores less than any that somebody does. Users
are known for the items among their heads alone, so an item's list may be shorter than K.

Letters: U users, I items, M members, D depth, c users of a chunk, K list, p candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.continual.ensemble import Lists, counted, merge
from recdistill.errors import UsageError, problem
from recdistill.evaluation.vectors import VectorRanker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recdistill.continual.replay import Vectors
    from recdistill.data.csr import Csr

__all__ = ["shallow_lists", "shallow_top_k"]

_PAIRS = 1 << 21
"""Places of members' lists at a time."""


def shallow_lists(
    members: Sequence[Vectors],
    train: Csr,
    k: int,
    *,
    depth: int,
    exponent: float = 0.05,
    met: NDArray[np.bool_] | None = None,
) -> Lists:
    """The lists of both sides; memory is that of the lists and of `_PAIRS` candidates.

    Args:
        members: each (U, d) and (I, d), over the same users and items.
        train: U x I, the block's training items, which are in no list.
        k: their length.
        depth: D, at least k.
        exponent: as in the formula.
        met: (U,) who counts, as in `ensemble.lists_of`.

    Raises:
        UsageError: the depth is less than the lists' length, there is no member, or sizes differ.
    """
    if depth < k:
        remedy = "Give a depth that is at least distil.near"
        raise UsageError(
            problem("The heads of members' lists are shorter than the lists asked for", depth, remedy=remedy)
        )
    sizes = {(len(user), len(item)) for user, item in members}
    if len(sizes) != 1:
        what = "The members of an ensemble must have the same users and items"
        raise UsageError(problem(what, sorted(sizes) or "no member", remedy="Grow all of them to the same block"))
    n_users, n_items = sizes.pop()
    depth = min(depth, n_items)
    worth = _worth(depth, n_items, len(members), exponent)
    rankers = [VectorRanker(user, item) for user, item in members]
    items = np.full((n_users, k), -1, np.int32)
    best = np.full((n_items, k), -1, np.float32)
    who = np.full((n_items, k), -1, np.int32)
    size = max(1, _PAIRS // (depth * len(members)))
    users = counted(n_users, met)
    for at in range(0, len(users), size):
        rows = users[at : at + size]
        found = np.concatenate([ranker.top_k(rows, depth) for ranker in rankers], axis=1)  # (c, M D)
        row, item, score = _scored(found, worth, n_items, len(members))
        left = ~train.contains(rows[row], item)
        row, item, score = row[left], item[left], score[left]
        items[rows] = _heads(row, item, score, len(rows), k)
        new = score > best[item, -1]  # a later user of an equal score comes later
        merge(best, who, item[new], rows[row[new]], score[new])
    return Lists(items, who)


def shallow_top_k(
    members: Sequence[Vectors],
    users: NDArray[np.int64],
    k: int,
    without: Csr,
    *,
    depth: int,
    exponent: float = 0.05,
) -> NDArray[np.int64]:
    """The best items of some users by the heads of members' lists; ranks are among what is not left out.

    Args:
        members: each (U, d) and (I, d).
        users: (Q,) rows.
        k: how many each.
        without: U x I, what no list holds.
        depth: D; at least k is read.
        exponent: as in the formula.

    Returns:
        (Q, k) items, best first, -1 past the end.
    """
    n_items = len(members[0][1])
    depth = min(max(depth, k), n_items)
    worth = _worth(depth, n_items, len(members), exponent)
    rankers = [VectorRanker(user, item) for user, item in members]
    out = np.full((len(users), k), -1, np.int64)
    size = max(1, _PAIRS // (depth * len(members)))
    for at in range(0, len(users), size):
        rows = users[at : at + size]
        found = np.concatenate([ranker.top_k(rows, depth, without) for ranker in rankers], axis=1)  # (c, M D)
        out[at : at + size] = _heads(*_scored(found, worth, n_items, len(members)), len(rows), k)
    return out


def _worth(depth: int, n_items: int, members: int, exponent: float) -> NDArray[np.float64]:
    """(D + 1,) by rank; the last one counts where an item is not in a member's head."""
    worth = (np.arange(depth + 1) + 1.0) ** -exponent / members
    if depth == n_items:
        worth[-1] = 0.0
    return worth


def _heads(
    row: NDArray[np.int64], item: NDArray[np.int64], score: NDArray[np.float32], n: int, k: int
) -> NDArray[np.int64]:
    """(p,) candidates -> (n, k) items of each row, best first, equals by the smaller one, -1 past the end."""
    order = np.lexsort((item, -score, row))
    row, item = row[order], item[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    head = place < k
    out = np.full((n, k), -1, np.int64)
    out[row[head], place[head]] = item[head]
    return out


def _scored(
    found: NDArray[np.int64], worth: NDArray[np.float64], n_items: int, members: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """(c, M D) members' lists side by side -> rows, items and scores of the (p,) distinct candidates."""
    depth = len(worth) - 1
    rank = np.tile(np.arange(depth), members)
    key = np.repeat(np.arange(len(found)), found.shape[1]) * n_items + found.ravel()
    there = found.ravel() >= 0
    pair, which = np.unique(key[there], return_inverse=True)
    listed = np.bincount(which, minlength=len(pair))
    own = np.bincount(which, worth[np.tile(rank, len(found))[there]], minlength=len(pair))
    row, item = np.divmod(pair, n_items)
    return row, item, (own + (members - listed) * worth[-1]).astype(np.float32)
