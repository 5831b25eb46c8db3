"""The view of a sequential model: histories are encoded once, when something is asked that needs it.

Letters: Q histories, T time, P asked positions, A answers (Q or P), m ids, n items an answer, d dims, L layers.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.knowledge.vectors import VectorView
from recdistill.knowledge.view import View
from recdistill.query import Query
from recdistill.runtime import drawing, products

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.knowledge.view import Layer
    from recdistill.losses.linear_kl import Linear
    from recdistill.models.memory import Recalled
    from recdistill.models.sequential import Sequential
    from recdistill.query import Side

__all__ = ["Encoding", "SequenceView", "by_length"]

_NARROW = 8
"""Histories are encoded in groups of at most 8, 16, 32 ... items, so that short ones do not pay for long ones."""


class Encoding:
    """What a model makes of a table of histories."""

    place: Tensor | None = None
    """(Q, T) where a model's memory has it; None of what is computed."""

    def __init__(self, model: Sequential, history: Tensor, *, both_ways: bool = False, key: int | None = None) -> None:
        """Nothing is computed yet.

        Args:
            model: whose layers are asked.
            history: (Q, T) item rows, padded on the left with -1.
            both_ways: whether a position sees what comes after it.
            key: of the draws that a model in training makes.
        """
        self._model, self._history, self._both_ways, self._key = model, history, both_ways, key

    @cached_property
    def final(self) -> Tensor:
        """(Q, T, d) what is read; 0 at padding."""
        return self._whole(-1)

    @cached_property
    def states(self) -> Tensor:
        """(1 + L, Q, T, d) what enters the first layer, and what leaves each; 0 at padding."""
        return torch.stack([self._whole(layer) for layer in range(len(self._groups[0][1]) - 1)])

    @cached_property
    def _groups(self) -> list[tuple[Tensor | None, list[Tensor]]]:
        """Rows (q,), None = all, and (q, w, d) for every layer, of groups of like length w."""
        history, model = self._history, self._model
        out: list[tuple[Tensor | None, list[Tensor]]] = []
        with drawing(self._key if model.training else None, history.device):
            for rows, width in model.parts(history):
                some = history if rows is None else history.index_select(0, rows)
                some = some[:, history.shape[1] - width :]
                real = some != -1
                with products(model.precision if model.training else "float32", history.device):
                    layers = model.layers(model.embedded(some), real, both_ways=self._both_ways)
                out.append((rows, [each.to(model.item.dtype) * real[:, :, None] for each in layers]))
        return out

    def _whole(self, layer: int) -> Tensor:
        """(Q, T, d) of one layer."""
        width = self._history.shape[1]
        if len(self._groups) == 1 and self._groups[0][0] is None and self._groups[0][1][layer].shape[1] == width:
            return self._groups[0][1][layer]
        out = self._groups[0][1][layer].new_zeros(*self._history.shape, self._model.dim)
        for rows, layers in self._groups:
            narrow = layers[layer]
            columns = slice(width - narrow.shape[1], width)
            if rows is None:
                out[:, columns] = narrow
            else:
                out[rows, columns] = narrow
        return out


class SequenceView(View):
    """One answer for each asked position, or for each query at its end where no positions are named.

    -1 among item rows scores -inf; who is unknown and has no history scores 0 everywhere. Vectors of users are the last
    states of their training histories, whatever was asked.
    """

    def __init__(
        self, model: Sequential, query: Query, of: SequenceView | None = None, rows: Tensor | None = None
    ) -> None:
        """Look at `query`; where its histories are those of another view, at `rows` (Q,) of what that one encodes."""
        self.source = model.source
        self._model, self._query, self._of, self._rows = model, query, of, rows

    @override
    def known(self) -> Tensor:
        """(A,) bool."""
        if self._query.at is not None:
            return torch.ones(len(self._query.at), dtype=torch.bool, device=self._query.row.device)
        there = self._query.row >= 0
        if self._query.history is not None and self._query.history.shape[1]:
            there = there | (self._query.history[:, -1] != -1)
        return there

    @override
    def select(self, index: Tensor) -> SequenceView:
        """The queries at `index` (m,), each asked at its end; of a Cloze text, what its users have in training."""
        query, model = self._query, self._model
        if query.both_ways:
            return SequenceView(model, Query(query.row[index]))
        if query.at is not None and query.history is not None and query.history.shape[1] > model.length:
            return SequenceView(model, query[index])  # too long for positions, but its end can be read
        rows = index if self._rows is None else self._rows[index]
        return SequenceView(model, query[index], self if self._of is None else self._of, rows)

    @override
    def scores(self, items: Tensor) -> Tensor:
        return self._products.scores(items)

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        return self._products.scores_among(items)

    @override
    def best(self, k: int) -> tuple[Tensor, Tensor]:
        place, at, memory = self._encoding.place, self._query.at, self._model.memory
        if place is None or at is None or memory is None:
            return self._products.best(k)
        return memory.best(k, place[at[:, 0], at[:, 1]])

    @override
    def linear(self) -> Linear:
        return self._products.linear()

    @override
    def log_partition(self, without: Tensor, *, chunk: int | None = None) -> Tensor:
        return self._products.log_partition(without, chunk=chunk)

    @override
    def entities(self, side: Side, ids: Tensor, layer: Layer = "served") -> Tensor:
        """Layer 0 of the items is the input table."""
        if layer not in ("served", 0) or (layer == 0 and side == "user"):
            allowed = ["'served'", "0 (the items' input vectors)"]
            raise UsageError(problem(f"{self.source} has no such layer of {side} vectors", layer, allowed=allowed))
        if layer == 0:
            return self._model.item.index_select(0, ids)
        if side == "item":
            return self._items.index_select(0, ids)
        return SequenceView(self._model, Query(ids)).vectors()

    @override
    def states(self) -> Tensor:
        """(1 + L, Q, T, d), 0 at padding."""
        states = self._encoding.states
        return states if self._rows is None else states.index_select(1, self._rows)

    def vectors(self) -> Tensor:
        """(A, d) the states at the asked positions; with biases (A, d + 1), a 1 after each."""
        return self._vectors

    @cached_property
    def _vectors(self) -> Tensor:
        at, final = self._query.at, self._encoding.final  # (Q, T, d)
        if at is not None:
            out = final[at[:, 0], at[:, 1]]  # (P, d)
        else:
            out = final[:, -1] if self._rows is None else final[self._rows, -1]  # (Q, d)
        return out if self._model.bias is None else torch.cat([out, self.known()[:, None].to(out.dtype)], 1)

    @cached_property
    def _encoding(self) -> Encoding | Recalled:
        if self._of is not None:
            return self._of._encoding
        query, model = self._query, self._model
        model.check(query)
        history = model.history_of(query.row) if query.history is None else query.history
        if model.memory is not None and not model.training and query.at is not None and not query.both_ways:
            recalled = model.memory.recall(history)
            if recalled is not None:
                return recalled
        if query.at is None:
            history, both_ways = model.asked_at_end(history)
            return Encoding(model, history, both_ways=both_ways, key=query.key)
        if history.shape[1] > model.length:
            remedy = "Give teacher and student the same `length`"
            what = f"{model.source} reads at most {model.length} items of a history"
            raise UsageError(problem(what, history.shape[1], remedy=remedy))
        return Encoding(model, history, both_ways=query.both_ways, key=query.key)

    @cached_property
    def _items(self) -> Tensor:
        return self._model.served_items()

    @cached_property
    def _products(self) -> VectorView:
        known = self.known()
        place = torch.arange(len(known), device=known.device)
        return VectorView(self._vectors, self._items, Query(torch.where(known, place, -1)), source=self.source)


def by_length(history: Tensor) -> list[tuple[Tensor | None, int]]:
    """(Q, T) -> rows (q,), None = all, and the width that holds them: one of 8, 16, 32 ..., at most T."""
    longest = history.shape[1]
    widths = [_NARROW << step for step in range(longest.bit_length()) if _NARROW << step < longest]
    if not widths:
        return [(None, longest)]
    length = (history != -1).sum(1)  # (Q,)
    group = torch.bucketize(length, torch.tensor(widths, device=history.device))  # right edge included
    counts = torch.bincount(group, minlength=len(widths) + 1).tolist()
    out: list[tuple[Tensor | None, int]] = []
    for at, width in enumerate([*widths, longest]):
        if counts[at] == len(history):
            return [(None, width)]
        if counts[at]:
            out.append(((group == at).nonzero()[:, 0], width))
    return out or [(None, longest)]
