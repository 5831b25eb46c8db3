"""Approximate search behind the ranker's own methods: a small-world graph proposes, exact scores decide.

voyager (Malkov and Yashunin, arXiv:1603.09320) searches inner products; what it finds is scored again as exact search
scores, so that scores and the order of equal ones are the same, and a list differs only where an item was not found.
Where a graph cannot help, for few items that may be shown, very long lists or users with a great part seen, the
search is exact.

Letters: Q queries, q of them in one block, U users, I items, d dims, K list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from recdistill.evaluation.topk import Gone, ordered
from recdistill.evaluation.vectors import VectorRanker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.bundle.ann import IndexPart
    from recdistill.data.csr import Csr
    from recdistill.evaluation.topk import Shown

__all__ = ["ApproximateRanker"]

_AT_ONCE = 1024  # users that are searched for at a time
_SEEN = 64  # items more than asked that a search may find to make up for what was seen
_LONGEST = 200  # lists longer than this are found exactly
_MEASURED = 10  # the length of the lists that `effort` was measured on


class ApproximateRanker(VectorRanker):
    """A `VectorRanker` whose lists are found by an index of the bundle.

    Args:
        user: as in `VectorRanker`.
        item: as in `VectorRanker`; the vectors of the index.
        index: what searches, as `IndexPart.load` gives it.
        effort: elements that a search keeps in view for a list of 10; more for longer ones.
        threads: of a table of users.
        user_scale: as in `VectorRanker`.
        item_scale: as in `VectorRanker`.
    """

    def __init__(
        self,
        user: NDArray[Any],
        item: NDArray[Any],
        index: Any,  # noqa: ANN401 - of an untyped library
        effort: int,
        *,
        threads: int | None = None,
        user_scale: NDArray[np.float32] | None = None,
        item_scale: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__(user, item, threads=threads, user_scale=user_scale, item_scale=item_scale)
        self._index, self.effort = index, effort

    @classmethod
    def over(cls, exact: VectorRanker, part: IndexPart) -> ApproximateRanker:
        """The same vectors as an exact ranker's, searched by a bundle's index.

        Raises:
            UsageError: voyager is not installed.
            BundleError: the index is broken, or of other vectors.
        """
        index = part.load(exact.vectors_of_items, (exact.n_items, exact.d))
        scales = {"user_scale": exact.user_scale, "item_scale": exact.item_scale}
        return cls(exact.user, exact.item, index, part.entry.effort, threads=exact.threads, **scales)

    @override
    def asked_by(self, user: NDArray[np.float32]) -> ApproximateRanker:
        self._check_items()
        other = ApproximateRanker(
            user, self.item, self._index, self.effort, threads=self.threads, item_scale=self.item_scale
        )
        other.share(self)
        return other

    @override
    def top_k(
        self, queries: NDArray[np.int64], k: int, exclude: Csr | None = None, *, shown: Shown | None = None
    ) -> NDArray[np.int64]:
        """As `VectorRanker.top_k`; an item that belongs into a list may be missing, as the bundle's manifest tells."""
        queries = self._asked(queries)
        few = shown is not None and 2 * shown.n < self.n_items
        if few or not 0 < k <= min(_LONGEST, self.n_items):
            return super().top_k(queries, k, exclude, shown=shown)
        known = (queries >= 0) & (queries < self.n_users)
        out = np.full((len(queries), k), -1, np.int64)
        places = np.flatnonzero(known)
        self._check(queries[places])
        short: list[NDArray[np.int64]] = []
        for at in range(0, len(places), _AT_ONCE):
            some = places[at : at + _AT_ONCE]
            out[some] = self._found(queries[some], k, exclude, shown)
            short.append(some[out[some, -1] < 0])
        left = np.concatenate(short) if short else places
        if len(left):  # what was seen or may not be shown took too many: search for these exactly
            out[left] = super().top_k(queries[left], k, exclude, shown=shown)
        return out

    def _found(self, queries: NDArray[np.int64], k: int, exclude: Csr | None, shown: Shown | None) -> NDArray[np.int64]:
        """(q,) known users -> (q, K), -1 where too little was found."""
        nothing = np.full((len(queries), k), -1, np.int64)
        more = 0
        if exclude is not None:
            more = min(int((exclude.indptr[queries + 1] - exclude.indptr[queries]).max(initial=0)), _SEEN)
        wanted = min((k + more) * (1 if shown is None else 2), self.n_items)
        effort = max(wanted, self.effort * max(k, _MEASURED) // _MEASURED)
        vectors = self._rows(queries)
        try:
            found, _ = self._index.query(vectors, k=wanted, num_threads=1, query_ef=min(effort, max(self.n_items, 1)))
        except RuntimeError:  # the library found less than was asked for
            return nothing
        item = found.astype(np.int64)  # (q, m)
        row = np.repeat(np.arange(len(queries)), wanted)
        item = item.reshape(-1)
        kept = np.ones(len(item), np.bool_) if shown is None else np.take(shown.mask, item)
        if exclude is not None:
            kept &= ~Gone(exclude, queries, self.n_items).has(row, item)
        place = np.flatnonzero(kept)
        row, item = np.take(row, place), np.take(item, place)
        lists = ordered(row, item, self._in_parts(np.take(queries, row), item), len(queries), k)
        zero = self._margin(queries) < 0  # to whom all items are equal
        lists[zero] = -1
        return lists
