"""Answering: external ids in, `Recommendations` out. numpy alone.

Letters: Q users asked, k list, I items, m candidates, e items left out of one user's list.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recdistill import bundle
from recdistill.bundle.encoder import Encoder
from recdistill.errors import UsageError, problem
from recdistill.evaluation.blocks import default_threads
from recdistill.evaluation.ranking import VectorRanker
from recdistill.evaluation.ranking import ranker as ranker_of
from recdistill.serve.arguments import Wish, among, column, known_items, left_out_of, positive, refuse, sequence
from recdistill.serve.histories import brought
from recdistill.serve.recommendations import Recommendations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Never

    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.data.histories import Histories
    from recdistill.evaluation.encoded import Encode
    from recdistill.evaluation.ranking import Ranker
    from recdistill.ids import IdTable
    from recdistill.serve.arguments import Ids

__all__ = ["Service"]

_CELLS = 1 << 20  # places of lists, or candidates' scores, that are held at a time


class Service:
    """Answers from one model that does not change; requests may come from several threads.

    Args:
        ranker: orders the items of a user row.
        users: external ids of the ranker's users.
        items: external ids of the ranker's items.
        seen: (U x I) what each user has already.
        popular: (P,) distinct item rows for users nobody knows, best first.
        encode: makes vectors of histories, of a model that reads them; None: it has only what it was trained on.
        histories: of the users, which new items follow.
        trained: (U x I) what the model learned from. Users without any get the popular list, and items without any are
            not recommended by the model: their vectors are as they were initialised. None takes all as trained.

    Raises:
        UsageError: they do not belong together.
    """

    def __init__(
        self,
        ranker: Ranker,
        users: IdTable,
        items: IdTable,
        seen: Csr,
        popular: NDArray[np.int64],
        *,
        encode: Encode | None = None,
        histories: Histories | None = None,
        trained: Csr | Callable[[], Csr | None] | None = None,
    ) -> None:
        sizes = (len(users), len(items))
        tables = [
            ("ranker", (ranker.n_users, ranker.n_items)),
            ("table of what was seen", (seen.n_rows, seen.n_columns)),
        ]
        if trained is not None and not callable(trained):
            tables.append(("table of what was trained on", (trained.n_rows, trained.n_columns)))
        for what, found in tables:
            if found != sizes:
                raise UsageError(
                    problem(f"The {what} is of another size than the ids (users, items)", found, allowed=f"{sizes}")
                )
        if histories is not None and histories.n_rows != len(users):
            raise UsageError(
                problem("There are not as many histories as users", histories.n_rows, allowed=f"{sizes[0]}")
            )
        self.ranker, self.users, self.items, self.seen, self.popular = ranker, users, items, seen, popular
        self.encode, self.histories = encode, histories
        self._trained = trained

    @classmethod
    def from_bundle(
        cls, path: Path | str, *, verify: Literal["headers", "full"] = "headers", threads: int | None = None
    ) -> Service:
        """Serve a bundle.

        Args:
            path: the bundle's folder.
            verify: "full" also reads every byte; for when a bundle arrives from elsewhere.
            threads: for large requests; None leaves it to the ranker.

        Raises:
            BundleError: the bundle is broken.
        """
        opened = bundle.open(path, verify=verify)
        model = ranker_of(opened.manifest.kind, opened.arrays, threads=threads)
        part, encode, histories = opened.encoder, None, None
        if part is not None:
            threads = default_threads() if threads is None else threads
            where = f"The encoder of {path}"
            encode = Encoder(part.graph, part.entry, part.table, threads=threads, where=where).encode
            histories = part.histories
        trained = None if opened.flags is None else lambda: opened.trained  # all of it is read, when first asked
        parts = opened.users, opened.items, opened.seen, opened.popular
        return cls(model, *parts, trained=trained, encode=encode, histories=histories)

    def recommend(
        self,
        users: Ids,
        k: int = 10,
        *,
        filter_seen: bool = True,
        exclude: Ids | Mapping[Any, Ids] | None = None,
        candidates: Ids | None = None,
        **foreign: Never,
    ) -> Recommendations:
        """The best items of each user.

        A user who is not in the table, or of whom nothing was trained on, gets the popular list, marked by its source;
        an item that was never trained on is not recommended by the model. Lists are shorter than `k` where
        the catalogue, the candidates or what is left of them is; equal scores come in order of item row.

        Args:
            users: (Q,) external ids; repeated ones are answered repeatedly.
            k: how many items each, at least 1.
            filter_seen: leave out what the user has already.
            exclude: external item ids to leave out for everybody, or `{user: item ids}`.
            candidates: external item ids; only these are recommended. For unknown users, those on the popular list
                come first, the others follow as given.
            foreign: nothing; other libraries' names for the arguments are answered with ours.

        Raises:
            UsageError: `k` is not a positive integer, an argument has another name here, users are not a sequence.
            DataError: an id is neither text nor an integer.
        """
        refuse(foreign)
        k = positive(k)
        ids = sequence(users, "users")
        rows = self.users.rows(ids)
        notes: list[str] = []
        left_out = left_out_of(self.items, exclude, ids, notes)
        only = None if candidates is None else known_items(self.items, candidates, "candidates", notes)
        wish = Wish(min(k, max(len(self.items), 1)), filter_seen, left_out, only)
        lists, scores = self._answers(rows, wish)
        return self._told(ids, self._served(rows), lists, scores, tuple(notes))

    def recommend_after(
        self,
        histories: Mapping[Any, Ids] | Sequence[Ids],
        k: int = 10,
        *,
        filter_seen: bool = True,
        exclude: Ids | Mapping[Any, Ids] | None = None,
        candidates: Ids | None = None,
        **foreign: Never,
    ) -> Recommendations:
        """The best items to follow histories: new clicks of known users, or what visitors did whom nobody knows.

        A history with nothing of the catalogue in it gets the popular list.

        Args:
            histories: `{user: item ids}`, oldest first: they follow what the bundle holds of a known user, and are all
                there is of another; or a list of such histories, (Q,), whose lists are named 0, 1, 2 ...
            k: how many items each, at least 1.
            filter_seen: leave out what stands in the history, and what a known user had already.
            exclude: as in `recommend`.
            candidates: as in `recommend`.
            foreign: nothing; as in `recommend`.

        Raises:
            UsageError: this model reads no histories, onnxruntime is missing, or as in `recommend`.
            BundleError: the bundle's encoder is broken.
            DataError: an id is neither text nor an integer.
        """
        refuse(foreign)
        k = positive(k)
        if self.encode is None or not isinstance(self.ranker, VectorRanker):
            what = "This bundle cannot read new histories: it holds no encoder"
            remedy = (
                "Save a sequential model (sasrec, nextitnet, bert4rec, gru4rec, cells) where the extra is installed: "
                'pip install "recdistill[onnx]"'
            )
            raise UsageError(problem(what, remedy=remedy))
        found = brought(histories, self.users, self.items, self.histories)
        notes: list[str] = []
        if found.ignored:
            many = f"{found.ignored:,} of {found.total:,} items"
            notes.append(f"histories: {many} are not in the catalogue and were ignored")
        left_out = left_out_of(self.items, exclude, found.ids, notes)
        only = None if candidates is None else known_items(self.items, candidates, "candidates", notes)
        wish = Wish(min(k, max(len(self.items), 1)), filter_seen, left_out, only)
        rows = np.where(found.there, np.arange(len(found.rows)), -1)
        here = copy.copy(self)  # the same items, asked by these histories
        there = np.flatnonzero(found.there)
        vectors = np.zeros((len(rows), self.ranker.d), np.float32)  # (Q, d)
        vectors[there] = self.encode(found.histories, there)
        here.ranker = self.ranker.asked_by(vectors)
        here.seen = found.seen(self.seen) if filter_seen else self.seen
        here._cold = None, self._cold[1]  # whatever is known of them, they have a history
        lists, scores = here._answers(rows, wish)
        return self._told(found.ids, rows, lists, scores, tuple(notes))

    def recommend_all(
        self,
        out: Path,
        k: int = 10,
        *,
        filter_seen: bool = True,
        exclude: Ids | None = None,
        candidates: Ids | None = None,
        chunk: int = 8192,
        **foreign: Never,
    ) -> int:
        """Every user's list into one Parquet file, a chunk of users at a time; the file appears whole or not at all.

        Users of whom nothing was trained on get the popular list; its scores are NaN. For lists that are to teach, take
        `filter_seen=False`: what was held out stays in, and training items go when the lists are matched to a log.

        Args:
            out: the file; replaced if it is there. Columns user_id, item_id, rank (int32), score (float32).
            k: how many items each, at least 1.
            filter_seen: leave out what each user has already.
            exclude: external item ids to leave out.
            candidates: external item ids; only these are recommended.
            chunk: users at a time; memory is a few times `chunk * k` rows.
            foreign: nothing; as in `recommend`.

        Returns:
            How many rows the file holds.

        Raises:
            UsageError: as in `recommend`.
        """
        from recdistill.serve.batch import write_lists  # noqa: PLC0415 - polars is imported only here

        refuse(foreign)
        k, chunk = min(positive(k), max(len(self.items), 1)), positive(chunk, "chunk")
        notes: list[str] = []
        left_out = left_out_of(self.items, exclude, [], notes)
        only = None if candidates is None else known_items(self.items, candidates, "candidates", notes)
        wish = Wish(k, filter_seen, left_out, only)

        def part(first: int) -> Recommendations:
            rows = np.arange(first, min(first + chunk, len(self.users)))
            lists, scores = self._answers(rows, wish)
            return self._told(self.users.external(rows), self._served(rows), lists, scores, ())

        empty = self._told(self.users.external([]), np.zeros(0, np.int64), *_nothing(0, k), ())
        starts = range(0, len(self.users), chunk)
        return write_lists(out, empty, (part(first) for first in starts))

    # who gets what, in rows

    def _answers(self, rows: NDArray[np.int64], wish: Wish) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(Q,) user rows -> (Q, k) item rows, -1 past the end, and their scores, NaN for popular lists."""
        lists, scores = _nothing(len(rows), wish.k)
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
        trained = self._trained() if callable(self._trained) else self._trained
        if trained is None:
            return None, None
        users, items = trained.degrees == 0, np.ones(len(self.items), np.bool_)
        items[trained.indices] = False
        return users if users.any() else None, items if items.any() else None

    def _best(self, rows: NDArray[np.int64], place: NDArray[np.int64], wish: Wish) -> NDArray[np.int64]:
        """(q,) known user rows and their places in the request -> (q, <= k)."""
        cold = self._cold[1]
        if wish.only is None:
            # as many more as may be left out are ranked, so that k remain; exact
            more = min(wish.k + wish.left_out.most, max(len(self.items), 1))
            return self._ranked(rows, place, wish, more)
        items = np.broadcast_to(np.sort(wish.only), (len(rows), len(wish.only)))  # (q, m), smaller row first
        gone = wish.left_out.contains(place, items)
        if cold is not None:
            gone |= cold[items]
        if wish.filter_seen:
            gone |= self._seen_among(rows, items)
        score = np.where(gone, -np.inf, self.ranker.scores_of(rows, items))
        order = np.argsort(-score, axis=1, kind="stable")
        return _kept(np.take_along_axis(items, order, 1), np.take_along_axis(gone, order, 1), wish.k)

    def _ranked(self, rows: NDArray[np.int64], place: NDArray[np.int64], wish: Wish, more: int) -> NDArray[np.int64]:
        """(q,) user rows -> (q, <= k), the best of `more` ranked; those who run short are asked for twice as many."""
        found = self.ranker.top_k(rows, more, self.seen if wish.filter_seen else None)  # (q, k + e)
        gone = wish.left_out.contains(place, found)
        cold = self._cold[1]
        if cold is None:
            return _kept(found, gone, wish.k)
        kept = _kept(found, gone | cold[found], wish.k)
        if more < len(self.items):
            short = np.flatnonzero((kept[:, -1] < 0) & (found[:, -1] >= 0))
            twice = min(2 * more, len(self.items))
            step = max(1, _CELLS // twice)
            for at in range(0, len(short), step):
                some = short[at : at + step]
                kept[some] = self._ranked(rows[some], place[some], wish, twice)[:, : kept.shape[1]]
        return kept

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
            return np.asarray(self.popular)
        first = self.popular[np.isin(self.popular, only)]
        return np.concatenate([first, only[~np.isin(only, first)]])

    # ids to rows and back

    def _told(
        self,
        ids: Ids,
        rows: NDArray[np.int64],
        lists: NDArray[np.int64],
        scores: NDArray[np.float32],
        notes: tuple[str, ...],
    ) -> Recommendations:
        asked = column(ids)
        place, rank = np.nonzero(lists >= 0)
        offsets = np.zeros(len(asked) + 1, np.int64)
        np.cumsum(np.bincount(place, minlength=len(asked)), out=offsets[1:])
        source = np.where(rows >= 0, "model", "popular")
        return Recommendations(
            asked=asked,
            offsets=offsets,
            user_id=asked[place],
            item_id=self.items.external(lists[place, rank]),
            rank=(rank + 1).astype(np.int32),
            score=scores[place, rank],
            source=source[place],
            notes=notes,
        )


def _kept(lists: NDArray[np.int64], gone: NDArray[np.bool_], k: int) -> NDArray[np.int64]:
    """(q, m) -> (q, min(k, m)): what is not gone, in its order, -1 past the end."""
    left = np.where(gone, -1, lists)
    order = np.argsort(left < 0, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(left, order, 1)


def _nothing(n: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.full((n, k), -1, np.int64), np.full((n, k), np.nan, np.float32)
