"""What a stored teacher keeps: lists, vectors, or a ranker. Plain tensors, no parameters.

Letters: U users, I items, I' items the teacher knows, Q queries, n stored pairs, d dims.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from typing_extensions import override

from recdistill.data.csr import Csr
from recdistill.evaluation.ranking import VectorRanker
from recdistill.knowledge.view import Kind
from recdistill.teachers.views import ListView, Placed, RankerView, TableView

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.evaluation.ranking import Ranker
    from recdistill.knowledge.view import View
    from recdistill.query import Query
    from recdistill.teachers.coverage import Coverage

__all__ = ["Stored", "StoredLists", "StoredRanker", "StoredVectors"]


class Stored(ABC):
    """A teacher from a file, matched to the training tables."""

    coverage: Coverage
    """What it knows of the training data; print it."""

    @property
    def source(self) -> str:
        """How errors and reports call it: "the teacher lists 'top100.parquet'"."""
        return self.coverage.source

    @property
    @abstractmethod
    def provides(self) -> frozenset[Kind]:
        """What its views can answer."""

    @abstractmethod
    def view(self, query: Query) -> View:
        """What it knows of a batch of queries."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of what was matched: for checkpoints and a bundle's lineage."""


class StoredLists(Stored):
    """Ranked lists, and scores where the file has them; n rows, so that lists may be of any length."""

    def __init__(
        self,
        coverage: Coverage,
        indptr: NDArray[np.int64],
        items: NDArray[np.int32],
        scores: NDArray[np.float32] | None,
        seen: Csr,
    ) -> None:
        """Keep lists.

        Args:
            coverage: what matched.
            indptr: (U + 1,) where each user's list begins.
            items: (n,) item rows, best first within a user.
            scores: (n,) or None.
            seen: (U x I) what `ranked` leaves out.
        """
        self.coverage = coverage
        degrees = np.diff(indptr)
        line = np.repeat(np.arange(len(degrees)), degrees)  # (n,)
        free = ~seen.contains(line, items.astype(np.int64))
        left = np.zeros_like(indptr)
        np.cumsum(np.bincount(line[free], minlength=len(degrees)), out=left[1:])
        self._ranks = Placed(indptr=torch.from_numpy(left), items=torch.from_numpy(items[free]))
        self._scores = None
        if scores is not None:
            whole = {"indptr": indptr, "items": items, "scores": scores}
            self._scores = Placed(**{name: torch.from_numpy(array) for name, array in whole.items()})
        listed = torch.zeros(seen.n_columns, dtype=torch.bool)
        listed[torch.from_numpy(items).long()] = True
        self._known = Placed(user=torch.from_numpy(degrees > 0), item=listed)

    def overlap(self, targets: Csr) -> tuple[int, int, float, int]:
        """Lists against targets: what a teacher that was trained on them gives itself away by.

        Returns:
            How many lists begin with a target, how many targets are listed, how many would be by chance, and how many
            users have both a list and a target.
        """
        parts = self._ranks.on(torch.device("cpu"))
        indptr, items = parts["indptr"].numpy(), parts["items"].numpy().astype(np.int64)
        degrees = np.diff(indptr)
        line = np.repeat(np.arange(len(degrees)), degrees)
        hit = targets.contains(line, items)  # (n,)
        both = (degrees > 0) & (targets.degrees > 0)  # (U,)
        chance = float((degrees[both] * targets.degrees[both]).sum() / max(targets.n_columns, 1))
        return int(hit[indptr[:-1][both]].sum()), int(hit.sum()), chance, int(both.sum())

    @property
    @override
    def provides(self) -> frozenset[Kind]:
        return frozenset({Kind.RANKS}) if self._scores is None else frozenset({Kind.RANKS, Kind.SCORES})

    @override
    def view(self, query: Query) -> View:
        return ListView(self.source, self._known, self._ranks, self._scores, query)

    @property
    @override
    def fingerprint(self) -> str:
        return _digest(self._ranks, *([self._scores] if self._scores else []))


class StoredVectors(Stored):
    """Vectors, and the scores and lists that follow from them.

    Lists are computed for the users asked alone, block by block, on the CPU; so a teacher of a million users and a
    million items costs its vectors and nothing else.
    """

    def __init__(
        self,
        coverage: Coverage,
        user: NDArray[np.float32],
        item: NDArray[np.float32],
        *,
        users_known: NDArray[np.bool_],
        items_known: NDArray[np.bool_],
        seen: Csr,
    ) -> None:
        """Keep vectors.

        Args:
            coverage: what matched.
            user: (U, d), zeros where the teacher knows nothing.
            item: (I, d), zeros where the teacher knows nothing.
            users_known: (U,) which rows it knows.
            items_known: (I,) which rows it knows.
            seen: (U x I) what `ranked` leaves out.
        """
        self.coverage = coverage
        self._user, self._item, self._users_known, self._items_known = user, item, users_known, items_known
        self._tables = Placed(user=torch.from_numpy(user), item=torch.from_numpy(item))
        self._known = Placed(user=torch.from_numpy(users_known), item=torch.from_numpy(items_known))
        self._seen = seen

    @property
    @override
    def provides(self) -> frozenset[Kind]:
        return frozenset({Kind.SCORES, Kind.RANKS, Kind.VECTORS})

    @override
    def view(self, query: Query) -> View:
        return TableView(self.source, self._known, self._tables, self.ranked, query)

    def ranked(self, users: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """(Q,) user rows -> (Q, k) rows of items the teacher knows, best first, no training items; -1 past the end."""
        model, ours, seen = self._ranker
        found = np.full((len(users), k), -1, np.int64)
        places = np.flatnonzero(users >= 0)
        places = places[self._users_known[users[places]]]
        best = model.top_k(users[places], min(k, len(ours)), seen)  # (q, min(k, I'))
        found[places, : best.shape[1]] = np.where(best >= 0, ours[np.maximum(best, 0)], -1)
        return found

    @cached_property
    def _ranker(self) -> tuple[Ranker, NDArray[np.int64], Csr]:
        """A ranker of the items it knows, their rows, and what was seen of them."""
        ours = np.flatnonzero(self._items_known)  # (I',)
        if len(ours) == len(self._item):
            return VectorRanker(self._user, self._item), ours, self._seen
        place = np.full(len(self._item), -1, np.int64)
        place[ours] = np.arange(len(ours))
        column = place[self._seen.indices]
        line = np.repeat(np.arange(self._seen.n_rows), self._seen.degrees)
        seen = Csr.from_pairs(line[column >= 0], column[column >= 0], self._seen.n_rows, len(ours))
        return VectorRanker(self._user, self._item[ours]), ours, seen

    @property
    @override
    def fingerprint(self) -> str:
        return _digest(self._tables, self._known)


class StoredRanker(Stored):
    """A bundle whose scores are no inner products: a network, asked in numpy."""

    def __init__(
        self,
        coverage: Coverage,
        model: Ranker,
        *,
        user: NDArray[np.int64],
        item: NDArray[np.int64],
        digest: str,
        seen: Csr,
    ) -> None:
        """Keep a ranker.

        Args:
            coverage: what matched.
            model: asked in its own rows.
            user: (U,) our row -> the model's, -1 = unknown to it.
            item: (I,) our row -> the model's, -1 = unknown to it.
            digest: the bundle's.
            seen: (U x I) what `ranked` leaves out.
        """
        self.coverage = coverage
        self._model, self._user, self._item, self._digest = model, user, item, digest
        self._ours = np.full(model.n_items, -1, np.int64)  # its item row -> ours
        self._ours[item[item >= 0]] = np.flatnonzero(item >= 0)
        self._foreign = int((self._ours < 0).sum())
        line = user[np.repeat(np.arange(seen.n_rows), seen.degrees)]
        column = item[seen.indices]
        both = (line >= 0) & (column >= 0)
        self._seen = Csr.from_pairs(line[both], column[both], model.n_users, model.n_items)
        self._known = Placed(user=torch.from_numpy(user >= 0), item=torch.from_numpy(item >= 0))

    @property
    @override
    def provides(self) -> frozenset[Kind]:
        return frozenset({Kind.SCORES, Kind.RANKS})

    @override
    def view(self, query: Query) -> View:
        return RankerView(self.source, self._known, self.scores, self.ranked, query)

    def ranked(self, users: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """(Q,) user rows -> (Q, k) item rows, best first, no training items; -1 past the end."""
        more = min(k + self._foreign, self._model.n_items)  # as many more as are not ours, so that k remain
        best = self._model.top_k(_through(self._user, users), more, self._seen)
        rows = _through(self._ours, best)
        order = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
        found = np.full((len(users), k), -1, np.int64)
        found[:, : order.shape[1]] = np.take_along_axis(rows, order, 1)
        return found

    def scores(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """(Q,) user rows, (Q, n) item rows -> (Q, n) scores, -inf where either is unknown to the model."""
        return self._model.scores_of(_through(self._user, users), _through(self._item, items))

    @property
    @override
    def fingerprint(self) -> str:
        return self._digest


def _through(table: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of one table -> rows of another; -1 stays -1."""
    if len(table) == 0:
        return np.full(rows.shape, -1, np.int64)
    return np.where(rows >= 0, table[np.maximum(rows, 0)], -1)


def _digest(*parts: Placed) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        for name, tensor in sorted(part.tensors.items()):
            array = np.ascontiguousarray(tensor.numpy())
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
