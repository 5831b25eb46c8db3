"""The view: what one recommender knows of a batch of queries.

Letters: Q queries, n items a query, m shared candidates, K list, d dims, L layers, T time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch

from recdistill.errors import MissingKnowledge, UsageError, problem
from recdistill.knowledge.table import gather_dot

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.losses.linear_kl import Linear
    from recdistill.query import Query, Side

__all__ = ["GIVES", "Kind", "Knows", "Layer", "View", "check_one_layer", "fingerprint_of"]

Layer = Literal["served"] | int


class Kind(StrEnum):
    """What a recommender can be asked for."""

    SCORES = "scores"
    RANKS = "ranks"
    VECTORS = "vectors"
    STATES = "states"
    WEIGHTS = "weights"
    """It is a model trained here, and can learn on."""


GIVES: dict[Kind, str] = {
    Kind.SCORES: "scores (scores = ...), vectors (vectors = ...), a bundle, or a model trained here",
    Kind.RANKS: "ranked lists (lists = ...), scores, vectors, a bundle, or a model trained here",
    Kind.VECTORS: "vectors (vectors = ...), a bundle of vectors, or a model of vectors trained here",
    Kind.STATES: "a sequential model trained here",
    Kind.WEIGHTS: "a model trained here, which files are not",
}
"""What can give each kind, as prose."""


class View:
    """Lazy and memoised; each method answers, or raises `MissingKnowledge`.

    A subclass overrides what it knows and leaves the rest.
    """

    source: str = "this recommender"
    """How errors call it: "the teacher lists 'top100.parquet'"."""

    def known(self) -> Tensor:
        """(Q,) bool: which queries this recommender can answer at all."""
        raise self._missing("which queries it knows")

    def has(self, side: Side, ids: Tensor) -> Tensor | None:
        """(m,) rows -> (m,) bool, whose vectors this recommender has; None = everybody's."""
        del side, ids
        return None

    def select(self, index: Tensor) -> View:
        """The view of the queries at `index` (m,); what is already computed is shared."""
        raise self._missing("a part of its queries")

    def scores(self, items: Tensor) -> Tensor:
        """(Q, n) item rows, each query its own -> (Q, n) scores, greater is better."""
        raise self._missing(Kind.SCORES)

    def scores_among(self, items: Tensor) -> Tensor:
        """(m,) item rows, shared by all queries -> (Q, m) scores, in one product."""
        raise self._missing(Kind.SCORES)

    def linear(self) -> Linear | None:
        """The vectors of what is answered (Q, d) and of all items (I, d), whose products are scores; None without."""
        return None

    def scores_of(self, items: Tensor, users: Tensor) -> Tensor:
        """(m,) item rows, (m, n) user rows, each item its own -> (m, n) scores of these users for it.

        -1 among user rows scores -inf. Whoever the queries are: this asks of the other side. Unless a subclass says
        otherwise, scores are inner products of the two sides' vectors.
        """
        there = users >= 0
        some, place = users.clamp(min=0).unique(return_inverse=True)
        found = gather_dot(self.entities("item", items), self.entities("user", some), place)
        return found if bool(there.all()) else torch.where(there, found, -torch.inf)

    def best(self, k: int) -> tuple[Tensor, Tensor]:
        """(Q, k) int64 items of the greatest scores of all, best first, and (Q, k) these; k at most the catalogue."""
        del k
        raise self._missing(Kind.SCORES)

    def log_partition(self, without: Tensor, *, chunk: int | None = None) -> Tensor:
        """(Q, n) item rows (-1 = none) -> (Q,) log-sum-exp of the scores of all other items, `chunk` at a time."""
        raise self._missing(Kind.SCORES)

    def ranked(self, k: int) -> Tensor:
        """(Q, k) int64 item rows, best first, without what the query's user has in training; -1 past the end."""
        raise self._missing(Kind.RANKS)

    def entities(self, side: Side, ids: Tensor, layer: Layer = "served") -> Tensor:
        """(m,) user or item rows -> (m, d) vectors; `layer=0` is the raw table of a graph model."""
        raise self._missing(Kind.VECTORS)

    def states(self) -> Tensor:
        """(1 + L, Q, T, d) hidden states: what enters the first layer, and what leaves each; 0 at padding."""
        raise self._missing(Kind.STATES)

    def _missing(self, kind: str) -> MissingKnowledge:
        return MissingKnowledge(
            kind, self.source, f"Use a teacher that provides {kind}, or a method that does not ask for it"
        )


def check_one_layer(layer: Layer, source: str) -> None:
    """Refuse another layer of vectors where there is one table alone.

    Raises:
        UsageError: it is not "served", and not 0, which is the same.
    """
    if layer not in ("served", 0):
        what = f"{source[0].upper()}{source[1:]} has no such layer of vectors"
        raise UsageError(problem(what, layer, allowed=["'served'", "0 (the same)"]))


@runtime_checkable
class Knows(Protocol):
    """All that a teacher has to be."""

    @property
    def provides(self) -> frozenset[Kind]:
        """What its views can answer."""
        ...

    def view(self, query: Query) -> View:
        """What it knows of a batch of queries."""
        ...


def fingerprint_of(teacher: Knows) -> str:
    """The digest of what `teacher` knows, which a checkpoint of its student holds.

    Raises:
        UsageError: a teacher of the user's own kind without a `fingerprint`: a checkpoint could go on with another one.
    """
    found = getattr(teacher, "fingerprint", None)  # once: of a sequential model it encodes every history
    if isinstance(found, str):
        return found
    what = f"A checkpoint has to tell its teacher from another, and {type(teacher).__name__} has no `fingerprint`"
    remedy = "Give it a property `fingerprint`: a string that changes with what it knows; or train without a checkpoint"
    raise UsageError(problem(what, remedy=remedy))
