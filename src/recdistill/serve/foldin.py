"""Fold-in: a vector at once for someone new, by the initialisation formula of CCD (sheet section 4a).

    e1(u) = mean of the item vectors of what u touched, old items only        (zero where there is none)
    e2(u) = mean of the user vectors of the 20 most active old users who touched one of u's items; where there are
            fewer than 20, the most active old users of all fill them up
    e(u)  = (e1(u) + e2(u)) / 2

A half that is not there counts as zero, as published: it shortens a vector and ranks alike, whereas training leaves it
out (`Initial.missing`), because there lengths matter. The official code takes all old users where exactly 20 share an
item (sheet section 11); this takes the 20. Items are folded in with the roles changed. numpy only.

Letters: U users, I items, U' and I' of them old, d dims, Q new users, n pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.data.csr import Csr
from recdistill.errors import UsageError, problem
from recdistill.serve.arguments import positive
from recdistill.serve.recommendations import Recommendations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from recdistill.serve.arguments import Ids
    from recdistill.serve.service import Service

__all__ = ["NEIGHBOURS", "FoldIn", "folded", "initialised"]

NEIGHBOURS = 20
"""`init_topk` of the sheet."""
_PAIRS = 1 << 22  # (new user, neighbour) pairs at a time


def folded(
    mine: Csr,
    theirs: NDArray[np.floating[Any]],
    own: NDArray[np.floating[Any]],
    users_of: Csr,
    active: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Vectors of new users; of new items with the roles changed.

    Args:
        mine: (Q x I) what each new user touched; columns from I' on, new items, count for neighbours alone.
        theirs: (I', d) vectors of old items.
        own: (U', d) vectors of old users.
        users_of: (I x U') the old users of each item.
        active: (U',) how many items each old user has.

    Returns:
        (Q, d) float32.
    """
    out = np.zeros((mine.n_rows, own.shape[1]), np.float32)
    best = np.argsort(-active, kind="stable")[:NEIGHBOURS]  # of all old users
    line = np.repeat(np.arange(mine.n_rows), mine.degrees)
    old = mine.indices < len(theirs)
    hops = users_of.degrees[mine.indices] if len(mine) else np.zeros(0, np.int64)
    spent = np.cumsum(np.bincount(line, hops + 1, mine.n_rows))  # (Q,) pairs that each row and those before lead to
    begin = 0
    while begin < mine.n_rows:
        before = spent[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(spent, before + _PAIRS, side="right")))
        part = slice(*np.searchsorted(line, [begin, end]).tolist())
        row, item, n = line[part] - begin, mine.indices[part], min(end, mine.n_rows) - begin
        out[begin:end] = 0.5 * _one_hop(row[old[part]], item[old[part]], theirs, n)
        out[begin:end] += 0.5 * _two_hops(row, item, own, users_of, active, best=best, n=n)
        begin = end
    return out


def initialised(
    user: NDArray[np.floating[Any]], item: NDArray[np.floating[Any]], block: Csr
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tables grown to a block: old rows as they are, new ones folded in from the block's pairs.

    Args:
        user: (U', d) vectors before the block.
        item: (I', d)
        block: (U x I) the block's training pairs.

    Returns:
        (U, d) and (I, d) float32.
    """
    back = block.transposed()
    grown = [_grown(user, item, block, back), _grown(item, user, back, block)]
    return grown[0], grown[1]


class FoldIn:
    """Answers for people whom a service does not know yet, from a handful of clicks.

    Args:
        service: serves vectors: a bundle of kind "vectors".

    Raises:
        UsageError: the service ranks by something else.
    """

    def __init__(self, service: Service, user: NDArray[np.float32], item: NDArray[np.float32]) -> None:
        if user.shape[0] != len(service.users) or item.shape[0] != len(service.items):
            shapes = (user.shape, item.shape)
            raise UsageError(problem("Fold-in needs the vectors of the service's users and items", shapes))
        self._service, self._user, self._item = service, user, item
        self._users_of = service.seen.transposed()
        self._active = service.seen.degrees

    def vectors(self, clicks: Sequence[Ids]) -> NDArray[np.float32]:
        """(Q,) each one's item ids -> (Q, d) vectors; items that the service does not have are passed over."""
        return folded(self._rows(clicks), self._item, self._user, self._users_of, self._active)

    def recommend(self, clicks: Mapping[str, Ids], k: int = 10) -> Recommendations:
        """The best items for new users by what they clicked; their source is "fold-in", or "popular" without a click.

        Args:
            clicks: new user -> item ids; these are left out of the answer.
            k: how many items each, at least 1.
        """
        k = min(positive(k), max(len(self._service.items), 1))
        mine = self._rows(list(clicks.values()))
        vector = folded(mine, self._item, self._user, self._users_of, self._active)
        lists = np.full((len(clicks), k), -1, np.int64)
        scores = np.full((len(clicks), k), np.nan, np.float32)
        for place in range(len(clicks)):  # a handful of people at a time
            gone = mine.row(place)
            if len(gone):
                score = self._item @ vector[place]  # (I,)
                score[gone] = -np.inf
                left = min(k, len(score) - len(gone))
                chosen = np.lexsort((np.arange(len(score)), -score))[:left]
                lists[place, :left], scores[place, :left] = chosen, score[chosen]
            else:
                common = self._service.popular[:k]
                lists[place, : len(common)] = common
        ids = np.array(list(clicks), dtype=object)
        line, rank = np.nonzero(lists >= 0)
        offsets = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(np.bincount(line, minlength=len(ids)), out=offsets[1:])
        return Recommendations(
            asked=ids,
            offsets=offsets,
            user_id=ids[line],
            item_id=self._service.items.external(lists[line, rank]),
            rank=(rank + 1).astype(np.int32),
            score=scores[line, rank],
            source=np.where(mine.degrees > 0, "fold-in", "popular")[line],
            notes=(),
        )

    def _rows(self, clicks: Sequence[Ids]) -> Csr:
        counts = [len(one) for one in clicks]
        line = np.repeat(np.arange(len(clicks)), counts)
        item = self._service.items.rows([one for each in clicks for one in each])
        known = item >= 0
        return Csr.from_pairs(line[known], item[known], len(clicks), len(self._service.items))


def _grown(
    own: NDArray[np.floating[Any]], theirs: NDArray[np.floating[Any]], mine: Csr, users_of: Csr
) -> NDArray[np.float32]:
    old = len(own)
    out = np.empty((mine.n_rows, own.shape[1]), np.float32)
    out[:old] = own[: mine.n_rows]
    line = np.repeat(np.arange(users_of.n_rows), users_of.degrees)
    inside = users_of.indices < old
    among_old = Csr.from_pairs(line[inside], users_of.indices[inside], users_of.n_rows, max(old, 1))
    new = np.arange(old, mine.n_rows)
    out[old:] = folded(mine.select(new), theirs, own, among_old, mine.degrees[:old])
    return out


def _one_hop(
    line: NDArray[np.int64], item: NDArray[np.integer[Any]], theirs: NDArray[np.floating[Any]], n: int
) -> NDArray[np.float32]:
    """Pairs by ascending line -> (n, d) mean of the vectors of each line's items; zero where there are none."""
    count = np.bincount(line, minlength=n)
    there = count > 0
    out = np.zeros((n, theirs.shape[1]), np.float32)
    if len(line):
        starts = (np.cumsum(count) - count)[there]
        total = np.add.reduceat(theirs[item].astype(np.float64), starts, axis=0)
        out[there] = total / count[there][:, None]
    return out


def _two_hops(
    line: NDArray[np.int64],
    item: NDArray[np.int32],
    own: NDArray[np.floating[Any]],
    users_of: Csr,
    active: NDArray[np.int64],
    *,
    best: NDArray[np.int64],
    n: int,
) -> NDArray[np.float32]:
    """(n, d) mean of the vectors of the most active neighbours."""
    reached = users_of.select(item.astype(np.int64))
    keys = np.unique(np.repeat(line, reached.degrees) * max(len(own), 1) + reached.indices)
    row, neighbour = np.divmod(keys, max(len(own), 1))
    # the most active of all fill up the lines that have too few: they come after every neighbour
    filler = np.repeat(np.arange(n), len(best)) * max(len(own), 1) + np.tile(best, n)
    filler = filler[~np.isin(filler, keys)]
    rows = np.concatenate([row, filler // max(len(own), 1)])
    users = np.concatenate([neighbour, filler % max(len(own), 1)])
    late = np.r_[np.zeros(len(row), np.int8), np.ones(len(filler), np.int8)]
    order = np.lexsort((users, -active[users], late, rows))
    rows, users = rows[order], users[order]
    start = np.searchsorted(rows, np.arange(n))
    chosen = np.arange(len(rows)) - start[rows] < NEIGHBOURS
    return _one_hop(rows[chosen], users[chosen], own, n)
