"""Teachers that live elsewhere, as files: ranked lists, scores, vectors, or a bundle.

External ids are matched to the training tables once; what did not match is counted and can be printed. A teacher holds
plain tensors: it has no parameters, nothing of it trains, and nothing of it is saved with the student.

Letters: U users, I items, U' users and I' items of a file, n rows of it, R list, d dims.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from recdistill import bundle as bundles
from recdistill.data.csr import Csr
from recdistill.errors import DataError, UsageError, problem
from recdistill.evaluation.ranking import ranker
from recdistill.teachers.coverage import measured
from recdistill.teachers.joined import Joined, joined
from recdistill.teachers.kept import Stored, StoredLists, StoredRanker, StoredVectors
from recdistill.teachers.reading import Tables, read_pairs, read_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from recdistill.ids import IdTable
    from recdistill.teachers.coverage import Coverage
    from recdistill.teachers.reading import Pairs

__all__ = [
    "Elsewhere",
    "Files",
    "Ours",
    "Stored",
    "StoredLists",
    "StoredRanker",
    "StoredVectors",
    "of_pairs",
    "of_tables",
    "stored",
]

_CHUNK = 1 << 16


def stored(
    *,
    lists: Path | str | None = None,
    scores: Path | str | None = None,
    vectors: Path | str | None = None,
    bundle: Path | str | None = None,
    users: IdTable,
    items: IdTable,
    seen: Csr | None = None,
) -> Stored | Joined:
    """A teacher from files, matched to the training tables; of several files, the first that provides a kind serves it.

    Args:
        lists: ranked lists: Parquet (`user_id, item_id` and `rank` or `score`, or a list column of items, best first),
            npz or safetensors (`users` (U',), `items` (U', R) best first, padded with -1 or '', `scores` (U', R) or
            none). Where there are ranks they decide, else scores, else the order of the rows.
        scores: as `lists`, with a score for every row, greater is better; gives lists as well.
        vectors: npz or safetensors (`users`, `items`, `user_vectors` (U', d), `item_vectors` (I', d); text ids in
            safetensors as `users.bytes` and `users.offsets`), a folder of users.parquet and items.parquet (an id column
            and a list column, or a column for each dimension), or one Parquet file with a column `side`. Scores are
            inner products.
        bundle: a folder that recdistill saved.
        users: external ids of the training users.
        items: external ids of the training items.
        seen: (U x I) the training items, which no list contains; None keeps them in.

    Raises:
        UsageError: no file is given, or `seen` is of another size.
        DataError: a file cannot be read or used, or shares no user or no item with the training data.
        BundleError: the bundle is broken.
    """
    files = Files.of({"lists": lists, "scores": scores, "vectors": vectors, "bundle": bundle})
    return files.matched(users=users, items=items, seen=seen)


class Elsewhere(ABC):
    """A teacher that was not trained here, still to be matched to a training log."""

    @abstractmethod
    def matched(self, *, users: IdTable, items: IdTable, seen: Csr | None = None) -> Stored | Joined:
        """The teacher of a training log.

        Args:
            users: external ids of the training users.
            items: external ids of the training items.
            seen: (U x I) the training items, which no list contains; None keeps them in.

        Raises:
            UsageError: `seen` is of another size.
            DataError: the teacher cannot be used, or shares no user or no item with the training data.
        """


@dataclass(frozen=True, slots=True)
class Files(Elsewhere):
    """Where a teacher's knowledge lies; `matched` makes it the teacher of a training log."""

    paths: dict[str, Path]
    """By kind: "lists", "scores", "vectors", "bundle"."""

    @classmethod
    def of(cls, given: Mapping[str, Path | str | None]) -> Files:
        """Files by kind, without those that are None.

        Raises:
            UsageError: no file is given.
        """
        paths = {kind: Path(path) for kind, path in given.items() if path is not None}
        if not paths:
            raise UsageError(problem("A teacher from files needs at least one file", allowed=list(given)))
        return cls(paths)

    @override
    def matched(self, *, users: IdTable, items: IdTable, seen: Csr | None = None) -> Stored | Joined:
        ours = Ours.of(users, items, seen)
        parts = [_READERS[kind](path, f"the teacher {kind} {path.name!r}", ours) for kind, path in self.paths.items()]
        return parts[0] if len(parts) == 1 else joined(*parts)


@dataclass(frozen=True, slots=True)
class Ours:
    """The training tables."""

    users: IdTable
    items: IdTable
    seen: Csr

    @classmethod
    def of(cls, users: IdTable, items: IdTable, seen: Csr | None) -> Ours:
        """With nothing seen where nobody says.

        Raises:
            UsageError: `seen` is of another size.
        """
        ours = cls(users, items, seen if seen is not None else Csr.empty(len(users), len(items)))
        sizes = (ours.seen.n_rows, ours.seen.n_columns)
        if sizes != (len(users), len(items)):
            what = "'seen' is of another size than the ids (users, items)"
            raise UsageError(problem(what, sizes, allowed=f"{(len(users), len(items))}"))
        return ours

    def matched(self, source: str, users: NDArray[Any], items: NDArray[Any]) -> Match:
        """Look up a teacher's distinct ids."""
        user, item = self.users.rows(users), self.items.rows(items)
        return Match(
            user, item, measured(source, {"user": (user, self.users, users), "item": (item, self.items, items)})
        )


@dataclass(frozen=True, slots=True)
class Match:
    """Where a teacher's distinct ids stand here."""

    user: NDArray[np.int64]
    """(U',) our rows, -1 = not ours."""
    item: NDArray[np.int64]
    """(I',)"""
    coverage: Coverage


def _lists(path: Path, source: str, ours: Ours) -> Stored:
    return of_pairs(read_pairs(path), source, ours)


def _scores(path: Path, source: str, ours: Ours) -> Stored:
    pairs = read_pairs(path)
    if pairs.score is None:
        raise DataError(
            problem(f"{path} has no column of scores", remedy="Add one (score), or give the file as lists: lists=...")
        )
    return of_pairs(pairs, source, ours)


def of_pairs(pairs: Pairs, source: str, ours: Ours) -> Stored:
    """Lists in long form, matched."""
    match = ours.matched(source, pairs.users, pairs.items)
    user, item = match.user[pairs.user], match.item[pairs.item]  # (n,)
    kept = np.flatnonzero((user >= 0) & (item >= 0))
    user, item = user[kept], item[kept]
    keys = user * len(ours.items) + item
    by_key = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[by_key][1:] == keys[by_key][:-1])
    if len(twice):
        u, i = divmod(int(keys[by_key[twice[0]]]), len(ours.items))
        first = f"user {ours.users.external([u])[0]!r} and item {ours.items.external([i])[0]!r}"
        raise DataError(
            problem(
                f"{source}: {len(twice):,} rows repeat a user and an item, the first {first}",
                remedy="Keep one row for each pair",
            )
        )
    score = None if pairs.score is None else pairs.score[kept]
    if pairs.rank is not None:
        order = np.lexsort((pairs.rank[kept], user))
    elif score is not None:
        order = np.lexsort((-score, user))  # stable: of equal scores the earlier row comes first
    else:
        order = np.argsort(user, kind="stable")
    indptr = np.zeros(len(ours.users) + 1, np.int64)
    np.cumsum(np.bincount(user, minlength=len(ours.users)), out=indptr[1:])
    listed = item[order].astype(np.int32)
    score = None if score is None else score[order]
    coverage = _noted(match.coverage, user[order], listed, score, ours)
    return StoredLists(coverage, indptr, listed, score, ours.seen)


def _noted(
    coverage: Coverage, user: NDArray[np.int64], item: NDArray[np.int32], score: NDArray[np.float32] | None, ours: Ours
) -> Coverage:
    """What a user of lists should know beside the coverage."""
    notes: list[str] = []
    trained = int(ours.seen.contains(user, item.astype(np.int64)).sum())
    if trained:
        notes.append(f"{trained:,} of its {len(item):,} pairs are training items and are left out of the lists")
    if score is not None:
        within = user[1:] == user[:-1]
        rising = int(((score[1:] > score[:-1]) & within).sum())
        if rising > 0.5 * within.sum() > 0:
            notes.append("its scores rise along its ranks: are they distances? Greater must be better")
    return coverage.noted(*notes)


def _vectors(path: Path, source: str, ours: Ours) -> Stored:
    return of_tables(read_tables(path), source, ours)


def of_tables(tables: Tables, source: str, ours: Ours) -> Stored:
    """Vectors, matched."""
    match = ours.matched(source, tables.users, tables.items)
    user, users_known = _aligned(source, "user", match.user, tables.user, ours.users)
    item, items_known = _aligned(source, "item", match.item, tables.item, ours.items)
    return StoredVectors(match.coverage, user, item, users_known=users_known, items_known=items_known, seen=ours.seen)


def _aligned(
    source: str, side: str, rows: NDArray[np.int64], vectors: NDArray[Any], ids: IdTable
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(U', d) vectors at our rows (U', -1 = not ours) -> (U, d) in our order, and which rows they fill."""
    aligned = np.zeros((len(ids), vectors.shape[1]), np.float32)
    times = np.zeros(len(ids), np.int64)
    places = np.flatnonzero(rows >= 0)
    for at in range(0, len(places), _CHUNK):
        place = places[at : at + _CHUNK]
        with np.errstate(over="ignore"):  # too large for float32 is not finite, and said so below
            part = np.asarray(vectors[place], np.float32)  # (chunk, d)
        wrong = np.flatnonzero(~np.isfinite(part).all(1))
        if len(wrong):
            name = ids.external([int(rows[place[wrong[0]]])])[0]
            raise DataError(
                problem(
                    f"{source}: the vector of {side} {str(name)!r} holds a number that is not finite",
                    remedy="Mend the file, or leave the row out: what a teacher does not know is no error",
                )
            )
        aligned[rows[place]] = part
    np.add.at(times, rows[places], 1)
    if times.max(initial=0) > 1:
        name = ids.external([int(times.argmax())])[0]
        raise DataError(problem(f"{source}: the {side} {name!r} has {times.max()} vectors", remedy="Keep one of them"))
    return aligned, times > 0


def _bundle(path: Path, source: str, ours: Ours) -> Stored:
    opened = bundles.open(path)
    users, items = (t.external(np.arange(len(t))) for t in (opened.users, opened.items))
    if opened.manifest.kind == "vectors":
        tables = Tables(users, items, opened.arrays["user"], opened.arrays["item"])
        return of_tables(tables, source, ours)
    match = ours.matched(source, users, items)
    user, item = (np.full(len(t), -1, np.int64) for t in (ours.users, ours.items))
    for rows, found in ((user, match.user), (item, match.item)):
        rows[found[found >= 0]] = np.flatnonzero(found >= 0)
    model = ranker(opened.manifest.kind, opened.arrays)
    return StoredRanker(match.coverage, model, user=user, item=item, digest=opened.manifest.digest, seen=ours.seen)


_READERS = {"lists": _lists, "scores": _scores, "vectors": _vectors, "bundle": _bundle}
