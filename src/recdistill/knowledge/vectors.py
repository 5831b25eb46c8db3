"""The view of a recommender whose scores are inner products of vectors.

Letters: Q queries, n items a query, m shared candidates, U users, I items, d dims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from recdistill.knowledge.table import by_rows, gather_dot, take
from recdistill.knowledge.view import View, check_one_layer
from recdistill.losses.cross_entropy import log_partition
from recdistill.losses.linear_kl import Linear

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.knowledge.view import Layer
    from recdistill.query import Query, Side

__all__ = ["VectorView", "best_of"]

_ROOM = 1 << 22
"""Scores that exist at a time (16 MiB of float32)."""


class VectorView(View):
    """Scores are `<user, item>`; -1 among item rows scores -inf, an unknown user scores 0 everywhere."""

    def __init__(self, user: Tensor, item: Tensor, query: Query, *, source: str = "this recommender") -> None:
        """Look at (U, d) users and (I, d) items for one batch of queries.

        A graph model passes its propagated tables, so that one propagation serves the whole batch.
        """
        self.source = source
        self._tables = {"user": user, "item": item}
        self._query = query
        self._vectors: Tensor | None = None

    @override
    def known(self) -> Tensor:
        return self._query.row >= 0

    @override
    def select(self, index: Tensor) -> VectorView:
        return VectorView(self._tables["user"], self._tables["item"], self._query[index], source=self.source)

    @override
    def scores(self, items: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or bool((items < 0).any()):
            there = items >= 0
            return torch.where(there, self._dot(items.clamp(min=0)), -torch.inf)
        return self._dot(items)

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        return self.vectors() @ take(self._tables["item"], items).T  # (Q, m)

    @override
    def linear(self) -> Linear:
        return Linear(self.vectors(), self._tables["item"])

    @override
    def scores_of(self, items: Tensor, users: Tensor) -> Tensor:
        there = users >= 0
        found = gather_dot(self._tables["item"], self._tables["user"], users.clamp(min=0), rows=items)
        return found if bool(there.all()) else torch.where(there, found, -torch.inf)

    @override
    def best(self, k: int) -> tuple[Tensor, Tensor]:
        item = take(self._tables["item"], torch.arange(len(self._tables["item"]), device=self._query.row.device))
        return best_of(self.vectors(), item, k)

    @override
    def log_partition(self, without: Tensor, *, chunk: int | None = None) -> Tensor:
        left_out = without if without.shape[1] else None
        return log_partition(self.vectors(), self._tables["item"], without=left_out, chunk=chunk)

    @override
    def entities(self, side: Side, ids: Tensor, layer: Layer = "served") -> Tensor:
        check_one_layer(layer, self.source)
        return take(self._tables[side], ids)

    def vectors(self) -> Tensor:
        """(Q, d) the queries' vectors."""
        if self._vectors is None:
            row = self._query.row
            out = take(self._tables[self._query.side], row.clamp(min=0))
            self._vectors = out if bool((row >= 0).all()) else torch.where((row >= 0)[:, None], out, 0)
        return self._vectors

    def _dot(self, items: Tensor) -> Tensor:
        user, row = self._tables[self._query.side], self._query.row
        if by_rows(user) and self._vectors is None and bool((row >= 0).all()):
            return gather_dot(user, self._tables["item"], items, rows=row)
        return gather_dot(self.vectors(), self._tables["item"], items)


def best_of(vectors: Tensor, items: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(Q, d) and (I, d) -> (Q, k) int64 items of the greatest products, best first, and (Q, k) these.

    Rows are taken in parts; there is no gradient.
    """
    scores = vectors.new_empty(len(vectors), min(k, len(items)))
    found = torch.empty(scores.shape, dtype=torch.int64, device=scores.device)
    step = max(1, _ROOM // max(len(items), 1))
    with torch.no_grad():
        for start in range(0, len(vectors), step):
            part = slice(start, start + step)
            scores[part], found[part] = (vectors[part] @ items.T).topk(scores.shape[1])
    return found, scores
