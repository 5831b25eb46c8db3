"""What is measured of a student on a stream: recall on a holdout, LA, RA and their harmonic mean.

`a[k][j]` is recall on the holdout of block j after cycle k. LA = mean_k a[k][k]: how well new blocks are learned;
RA = mean_j a[K][j]: how well old ones are kept; H = 2 LA RA / (LA + RA) (sheet section 7, base block in).

Letters: Q users asked, k list, U users, I items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.data.csr import Csr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from recdistill.ledger import Stored

    Lists = Callable[[NDArray[np.int64], int, Csr], NDArray[np.int64]]
    """(Q,) users, k, what is left out (U x I) -> (Q, k) item rows, -1 past the end."""

__all__ = ["accuracy", "most_popular", "per_user", "popular", "recalls"]


def per_user(
    lists: Lists, holdout: Stored, k: int, *, n_users: int, n_items: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The users held out of a block, and each one's recall@k (hits / targets).

    Args:
        lists: who ranks.
        holdout: of a block: its test pairs, and what a ranking of them leaves out.
        k: the cut-off.
        n_users: U of the ranker, at least the block's.
        n_items: I of the ranker, at least the block's.
    """
    a = holdout.arrays
    wanted = Csr.from_pairs(a["test_user"], a["test_item"], n_users, n_items)
    users = np.flatnonzero(wanted.degrees)
    if not len(users):
        return users, np.zeros(0)
    found = lists(users, k, Csr.from_pairs(a["seen_user"], a["seen_item"], n_users, n_items))  # (Q, k)
    hits = (found >= 0) & wanted.contains(users[:, None], np.maximum(found, 0))
    return users, hits.sum(1) / wanted.degrees[users]


def recalls(lists: Lists, holdouts: Sequence[Stored], k: int, *, n_users: int, n_items: int) -> dict[int, float]:
    """Block -> mean recall@k over the users held out of it; blocks without any are left out."""
    found = {h.measured["number"]: per_user(lists, h, k, n_users=n_users, n_items=n_items)[1] for h in holdouts}
    return {number: float(values.mean()) for number, values in found.items() if len(values)}


def popular(items: NDArray[np.int64]) -> Lists:
    """Everyone gets the same items, best first, without what is left out for them."""

    def lists(users: NDArray[np.int64], k: int, without: Csr) -> NDArray[np.int64]:
        longest = int(without.degrees[users].max(initial=0)) if len(users) else 0
        base = np.broadcast_to(items[: k + longest], (len(users), min(k + longest, len(items))))  # (Q, k + e)
        gone = without.contains(users[:, None], base)
        order = np.argsort(gone, axis=1, kind="stable")[:, :k]
        left = np.where(np.take_along_axis(gone, order, 1), -1, np.take_along_axis(base, order, 1))
        return np.pad(left, ((0, 0), (0, k - left.shape[1])), constant_values=-1)

    return lists


def most_popular(item: NDArray[np.int32], n_items: int) -> NDArray[np.int64]:
    """Item rows that occur, the most frequent first; ties to the smaller row."""
    count = np.bincount(item, minlength=n_items)
    order = np.argsort(-count, kind="stable")
    return order[count[order] > 0].astype(np.int64)


def accuracy(recall: Mapping[int, Mapping[int, float]]) -> dict[str, float]:
    """LA, RA and H after the last of the cycles.

    Args:
        recall: `a`: cycle -> block -> recall. Cycles that were not measured are left out of LA.
    """
    learned = [row[k] for k, row in recall.items() if k in row]
    kept = list(recall[max(recall)].values()) if recall else []
    la, ra = (float(np.mean(values)) if values else 0.0 for values in (learned, kept))
    return {"LA": la, "RA": ra, "H": 2 * la * ra / (la + ra) if la + ra > 0 else 0.0}
