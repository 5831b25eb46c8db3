"""What stored teachers know of a batch of queries, in torch, on the device of the questions.

Letters: Q queries, n items a query, m shared candidates, K list, L the longest list asked, U users, I items, d dims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from recdistill.knowledge.vectors import VectorView
from recdistill.knowledge.view import View, check_one_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from recdistill.knowledge.view import Layer
    from recdistill.query import Query, Side

    Ranked = Callable[[NDArray[np.int64], int], NDArray[np.int64]]
    Scored = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]

__all__ = ["ListView", "Placed", "RankerView", "TableView"]


class Placed:
    """Tensors by name, copied once to every device they are asked on; they never carry a gradient."""

    def __init__(self, **tensors: Tensor) -> None:
        self.tensors = tensors
        self._on: dict[torch.device, dict[str, Tensor]] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """All of them on one device."""
        if device not in self._on:
            self._on[device] = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return self._on[device]


class _StoredView(View):
    """Queries of users, and which users are known."""

    def __init__(self, source: str, known: Placed, query: Query) -> None:
        self.source = source
        self._known, self._query = known, query

    @override
    def known(self) -> Tensor:
        return self.has("user", self._query.row) & (self._query.side == "user")

    def has(self, side: Side, ids: Tensor) -> Tensor:
        """(m,) user or item rows -> (m,) bool: which of them the teacher knows."""
        known = self._known.on(ids.device)[side]
        if len(known) == 0:
            return torch.zeros_like(ids, dtype=torch.bool)
        return (ids >= 0) & known[ids.clamp(min=0)]


class ListView(_StoredView):
    """Lists, and the scores of what they list; an item that is not listed scores -inf, below all that are."""

    def __init__(self, source: str, known: Placed, ranks: Placed, scores: Placed | None, query: Query) -> None:
        super().__init__(source, known, query)
        self._ranks, self._scores = ranks, scores
        self._sorted: tuple[Tensor, Tensor] | None = None

    @override
    def select(self, index: Tensor) -> ListView:
        return ListView(self.source, self._known, self._ranks, self._scores, self._query[index])

    @override
    def ranked(self, k: int) -> Tensor:
        row = self._query.row
        parts = self._ranks.on(row.device)
        items, _ = _padded(parts["indptr"], row, self.known(), k, parts["items"])
        out = row.new_full((len(row), k), -1)
        out[:, : items.shape[1]] = items
        return out

    @override
    def scores(self, items: Tensor) -> Tensor:
        if self._scores is None:
            return super().scores(items)
        listed, score = self._by_item()  # (Q, L), ascending items
        out = torch.full(items.shape, -torch.inf, device=items.device)
        if listed.shape[1] == 0:
            return out
        place = torch.searchsorted(listed, items.contiguous()).clamp(max=listed.shape[1] - 1)  # (Q, n)
        found = (listed.gather(1, place) == items) & (items >= 0)
        return torch.where(found, score.gather(1, place), out)

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        return self.scores(items.expand(len(self._query), -1))

    def _by_item(self) -> tuple[Tensor, Tensor]:
        if self._sorted is None:
            assert self._scores is not None  # noqa: S101 - asked only then
            row = self._query.row
            parts = self._scores.on(row.device)
            items, place = _padded(parts["indptr"], row, self.known(), None, parts["items"])
            listed, order = items.sort(1)
            self._sorted = listed, parts["scores"][place.gather(1, order)]
        return self._sorted


class TableView(_StoredView):
    """Vectors. An item the teacher does not know scores -inf; its vector is zeros, and `has` says so."""

    def __init__(self, source: str, known: Placed, tables: Placed, ranked: Ranked, query: Query) -> None:
        super().__init__(source, known, query)
        self._tables, self._ranked = tables, ranked
        placed = tables.on(query.row.device)
        self._view = VectorView(placed["user"], placed["item"], query, source=source)

    @override
    def select(self, index: Tensor) -> TableView:
        return TableView(self.source, self._known, self._tables, self._ranked, self._query[index])

    @override
    @torch.no_grad()
    def scores(self, items: Tensor) -> Tensor:
        return self._view.scores(items).masked_fill_(~self.has("item", items), -torch.inf)

    @override
    @torch.no_grad()
    def scores_among(self, items: Tensor) -> Tensor:
        return self._view.scores_among(items).masked_fill_(~self.has("item", items), -torch.inf)

    @override
    def ranked(self, k: int) -> Tensor:
        return _asked(self._ranked, self._query, k)

    @override
    def entities(self, side: Side, ids: Tensor, layer: Layer = "served") -> Tensor:
        check_one_layer(layer, self.source)
        return self._tables.on(ids.device)[side].index_select(0, ids)


class RankerView(_StoredView):
    """Scores and lists of a numpy ranker; -inf where the user or the item is unknown to it."""

    def __init__(self, source: str, known: Placed, scored: Scored, ranked: Ranked, query: Query) -> None:
        super().__init__(source, known, query)
        self._scored, self._ranked = scored, ranked

    @override
    def select(self, index: Tensor) -> RankerView:
        return RankerView(self.source, self._known, self._scored, self._ranked, self._query[index])

    @override
    def scores(self, items: Tensor) -> Tensor:
        found = self._scored(self._query.row.cpu().numpy(), items.cpu().numpy())
        return torch.from_numpy(found).to(items.device)

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        return self.scores(items.expand(len(self._query), -1))

    @override
    def ranked(self, k: int) -> Tensor:
        return _asked(self._ranked, self._query, k)


def _asked(ranked: Ranked, query: Query, k: int) -> Tensor:
    return torch.from_numpy(ranked(query.row.cpu().numpy(), k)).to(query.row.device)


def _padded(indptr: Tensor, row: Tensor, known: Tensor, most: int | None, items: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (Q,) of a ragged table -> (Q, L) int64 items, -1 past the end, and where each stands among the n."""
    safe = row.clamp(min=0)
    empty = row.new_zeros(0, dtype=torch.int64)
    start = indptr[safe] if len(indptr) > 1 else torch.zeros_like(row)
    degree = torch.where(known, indptr[safe + 1] - start, 0) if len(indptr) > 1 else torch.zeros_like(row)
    longest = int(degree.max()) if len(degree) else 0
    width = longest if most is None else min(longest, most)
    if width == 0:
        return empty.expand(len(row), 0), empty.expand(len(row), 0)
    column = torch.arange(width, device=row.device)
    inside = column < degree[:, None]  # (Q, L)
    place = torch.where(inside, start[:, None] + column, 0)
    return torch.where(inside, items[place].long(), -1), place
