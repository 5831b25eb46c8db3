"""Answering: external ids in, `Recommendations` out. numpy alone.

Letters: Q users asked, k list, I items, m candidates, e items left out of one user's list.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recdistill import bundle
from recdistill.bundle.encoder import Encoder
from recdistill.errors import UsageError, problem
from recdistill.evaluation.blocks import default_threads
from recdistill.evaluation.ranking import VectorRanker
from recdistill.evaluation.ranking import ranker as ranker_of
from recdistill.serve.answers import Answers, nothing
from recdistill.serve.arguments import Wish, column, known_items, left_out_of, positive, refuse, sequence
from recdistill.serve.histories import brought
from recdistill.serve.index import ApproximateRanker
from recdistill.serve.recommendations import Recommendations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Never

    from numpy.typing import NDArray

    from recdistill.bundle.ann import IndexPart
    from recdistill.data.csr import Csr
    from recdistill.data.histories import Histories
    from recdistill.evaluation.encoded import Encode
    from recdistill.evaluation.ranking import Ranker
    from recdistill.ids import IdTable
    from recdistill.serve.answers import Untrained
    from recdistill.serve.arguments import Ids

__all__ = ["Search", "Service"]

Search = Literal["auto", "exact", "approximate"]


class Service(Answers):
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
        trained: Csr | Callable[[], Untrained] | None = None,
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
        self.search = "exact"
        """How lists are found: "exact", or "approximate: ..." with the recall that was measured."""

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        verify: Literal["headers", "full"] = "headers",
        threads: int | None = None,
        search: Search = "auto",
    ) -> Service:
        """Serve a bundle.

        Args:
            path: the bundle's folder.
            verify: "full" also reads every byte; for when a bundle arrives from elsewhere.
            threads: for large requests; None leaves it to the ranker.
            search: "exact"; "approximate", by the bundle's index; "auto" takes the index where the bundle holds one and
                the extra `ann` is installed.

        Raises:
            BundleError: the bundle is broken.
            UsageError: an approximate search is asked of a bundle without an index, or voyager is missing.
        """
        if search not in ("auto", "exact", "approximate"):
            raise UsageError(problem("'search' must be known", search, allowed=["auto", "exact", "approximate"]))
        opened = bundle.open(path, verify=verify)
        model = ranker_of(opened.manifest.kind, opened.arrays, threads=threads)
        model, found = searched(model, opened.index, search)
        part, encode, histories = opened.encoder, None, None
        if part is not None:
            threads = default_threads() if threads is None else threads
            where = f"The encoder of {path}"
            encode = Encoder(part.graph, part.entry, part.table, scale=part.scale, threads=threads, where=where).encode
            histories = part.histories
        parts = opened.users, opened.items, opened.seen, opened.popular
        made = cls(model, *parts, encode=encode, histories=histories)
        made._trained = opened.untrained  # all of it is read, when first asked
        made.search = found
        return made

    def with_available(self, items: Ids | None) -> Service:
        """The same service, which shows these items alone: what is in stock, or may be shown now.

        The search obeys the list, so that lists stay `k` long; popular lists are filled up with other available items.
        What was made ready is shared, and this service stays as it is: a request that has begun sees one list.

        Args:
            items: external ids; those the catalogue lacks are passed over. None: all.

        Raises:
            UsageError: none of them is in the catalogue.
            DataError: an id is neither text nor an integer.
        """
        here = copy.copy(self)
        for made in ("_shown", "_popular_available"):
            here.__dict__.pop(made, None)
        here._available = None
        if items is not None:
            rows = known_items(self.items, items, "available", [])
            if not len(rows):
                remedy = "Give external ids of items, as `recommend` answers with them"
                raise UsageError(problem("None of the items that may be shown is in the catalogue", remedy=remedy))
            here._available = np.zeros(len(self.items), np.bool_)
            here._available[rows] = True
        return here

    @property
    def n_available(self) -> int:
        """How many items may be shown."""
        return len(self.items) if self._available is None else int(np.count_nonzero(self._available))

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

        empty = self._told(self.users.external([]), np.zeros(0, np.int64), *nothing(0, k), ())
        starts = range(0, len(self.users), chunk)
        return write_lists(out, empty, (part(first) for first in starts))

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


def searched(model: Ranker, part: IndexPart | None, search: Search) -> tuple[Ranker, str]:
    """The ranker that finds lists as asked, and how it does.

    Raises:
        UsageError: an approximate search is asked for where it cannot be.
        BundleError: the index is broken.
    """
    if search == "exact" or (search == "auto" and part is None):
        return model, "exact"
    if part is None or not isinstance(model, VectorRanker):
        remedy = "Build one: recdistill export BUNDLE --format ann --out NEW"
        raise UsageError(problem("This bundle holds no index for approximate search", remedy=remedy))
    if search == "auto" and find_spec("voyager") is None:
        return model, "exact: the bundle holds an index, but the extra 'ann' is not installed"
    told = f"approximate: recall@10 {part.entry.recall:.4f} with ef {part.entry.effort}"
    return ApproximateRanker.over(model, part), told
