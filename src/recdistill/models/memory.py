"""What a frozen sequential model makes of the histories that a student learns from, computed once.

A teacher is asked about the same windows in every epoch, and its answers are most of the cost of a step. Memory is
filled in a fixed order before the first step, so that a run that goes on after a kill reads the same bytes.

Letters: Q histories, T time, n items of all remembered histories, N histories, L layers, d dims.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from recdistill import rng
from recdistill.knowledge.vectors import best_of
from recdistill.models.sequence_view import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from recdistill.models.sequential import Sequential

__all__ = ["Memory", "Recalled"]


class Memory:
    """States of histories that a model was shown; those of others it computes."""

    def __init__(self, model: Sequential, histories: Iterable[Tensor]) -> None:
        """Show `histories`, (Q, T) item rows each, padded on the left with -1, to a model that is not in training."""
        self._model, self._weights = model, _versions(model)
        self._words = rng.bits(rng.key(0, "items"), torch.arange(model.n_items), 1)[:, 0].to(model.item.device)  # (I,)
        self._powers = rng.bits(rng.key(0, "places"), torch.arange(model.length), 1)[:, 0].to(model.item.device) | 1
        self._best: tuple[Tensor, Tensor] | None = None  # (n, k) of all that is remembered, once asked
        shown = [(each, _encoded(model, each)) for each in histories]
        self._items = torch.cat([history[history != -1] for history, _ in shown])  # (n,)
        self._states = torch.cat([states for _, states in shown])  # (n, 2 + L, d): the layers', then what is read
        length = torch.cat([(history != -1).sum(1) for history, _ in shown])  # (N,)
        digest, order = torch.sort(torch.cat([self._digest(history) for history, _ in shown]), stable=True)
        self._known, self._length = digest, length[order]  # (N,), (N,)
        self._begin = (length.cumsum(0) - length)[order]  # (N,)

    @staticmethod
    def bytes_of(model: Sequential, n: int) -> int:
        """Of a memory of `n` items."""
        with torch.no_grad():
            one = torch.zeros(1, 1, dtype=torch.int64, device=model.item.device)
            return n * _encoded(model, one)[0].numel() * model.item.element_size()

    def recall(self, history: Tensor) -> Recalled | None:
        """What the model makes of `history` (Q, T); None where it was not shown all of these, or has learned since."""
        if history.shape[1] > len(self._powers) or _versions(self._model) != self._weights:
            return None
        digest, real = self._digest(history), history != -1
        place = torch.searchsorted(self._known, digest).clamp(max=len(self._known) - 1)  # (Q,)
        length = real.sum(1)
        if not bool(((self._known[place] == digest) & (self._length[place] == length)).all()):
            return None
        ahead = history.shape[1] - length  # (Q,) padding
        row = (self._begin[place] - ahead)[:, None] + torch.arange(history.shape[1], device=history.device)  # (Q, T)
        if not torch.equal(self._items[row[real]], history[real]):  # two histories of one digest
            return None
        return Recalled(self._states, row, real)

    def best(self, k: int, place: Tensor) -> tuple[Tensor, Tensor]:
        """(P,) remembered positions -> (P, k) items of the greatest scores, best first, and (P, k) these."""
        if self._best is None or self._best[0].shape[1] < min(k, self._model.n_items):
            final = self._states[:, -1]
            if self._model.bias is not None:
                final = torch.cat([final, torch.ones_like(final[:, :1])], 1)
            items, scores = best_of(final, self._model.served_items(), k)
            self._best = items.int(), scores
        items, scores = self._best
        return items[place, :k].long(), scores[place, :k]

    def _digest(self, history: Tensor) -> Tensor:
        """(Q, T) -> (Q,) int64, whatever the padding; sums wrap."""
        real = history != -1
        powers = self._powers[: history.shape[1]].flip(0)  # by the distance from the end
        return (self._words[history.clamp(min=0)] * powers * real).sum(1)


class Recalled:
    """An `Encoding` that was computed before."""

    def __init__(self, states: Tensor, place: Tensor, real: Tensor) -> None:
        """`states` (n, 2 + L, d), of which `place` (Q, T) are those of the positions that are `real` (Q, T)."""
        self.place = place
        self._states, self._real = states, real

    @cached_property
    def final(self) -> Tensor:
        """(Q, T, d) what is read; 0 at padding."""
        return self._spread(self._found[:, -1:])[0]

    @cached_property
    def states(self) -> Tensor:
        """(1 + L, Q, T, d) what enters the first layer, and what leaves each; 0 at padding."""
        return self._spread(self._found[:, :-1])

    @cached_property
    def _found(self) -> Tensor:
        return self._states.index_select(0, self.place[self._real])  # (n of these, 2 + L, d)

    def _spread(self, found: Tensor) -> Tensor:
        """(n, l, d) -> (l, Q, T, d)."""
        out = found.new_zeros(found.shape[1], *self._real.shape, found.shape[2])
        out[:, self._real] = found.transpose(0, 1)
        return out


@torch.no_grad()
def _encoded(model: Sequential, history: Tensor) -> Tensor:
    """(Q, T) -> (n, 2 + L, d) of its real positions."""
    encoding, real = Encoding(model, history), history != -1
    layers = [*encoding.states, encoding.final]
    return torch.stack([each[real] for each in layers], 1)


def _versions(model: Sequential) -> tuple[int, ...]:
    """Changes whenever weights are written to."""
    return tuple(each._version for each in model.parameters())
