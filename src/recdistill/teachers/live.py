"""A model trained here, as a teacher.

Letters: Q queries, K list.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from typing_extensions import override

from recdistill.knowledge.view import Kind, View

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.data.csr import Csr
    from recdistill.evaluation.ranking import Ranker
    from recdistill.knowledge.view import Layer
    from recdistill.losses.linear_kl import Linear
    from recdistill.models.base import Recommender
    from recdistill.query import Query, Side

__all__ = ["Live", "Peer"]


class Live:
    """A frozen model. It is an argument of a pass and never a child module, so no `train()` reaches it."""

    def __init__(self, model: Recommender, *, seen: Csr) -> None:
        """Freeze `model`; `seen` (U x I) is what its lists leave out: the training items."""
        self.model = model.requires_grad_(requires_grad=False).eval()
        self._seen = seen
        self._ranker: Ranker | None = None

    @property
    def provides(self) -> frozenset[Kind]:
        """What the model knows, and that it can learn on."""
        return self.model.provides | {Kind.WEIGHTS}

    def view(self, query: Query) -> View:
        """What the model knows of a batch of queries."""
        return _LiveView(self.model.view(query), self, query)

    @property
    def fingerprint(self) -> str:
        """A digest of its weights."""
        digest = hashlib.blake2b(digest_size=16)
        for name, value in sorted(self.model.arrays().items()):
            digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def ranked(self, users: Tensor, k: int) -> Tensor:
        """(Q,) user rows -> (Q, k) items, best first, without training items; -1 past the end."""
        if self._ranker is None:
            self._ranker = self.model.ranker()
        return torch.from_numpy(self._ranker.top_k(users.cpu().numpy(), k, self._seen)).to(users.device)


class Peer:
    """A model that learns, as the teacher of another: asked as it is now, and always without a gradient."""

    def __init__(self, model: Recommender) -> None:
        """Ask `model`; it is neither frozen nor part of who asks."""
        self.model = model

    @property
    def provides(self) -> frozenset[Kind]:
        """What the model knows, its lists apart: they would be of another moment."""
        return (self.model.provides - {Kind.RANKS}) | {Kind.WEIGHTS}

    def view(self, query: Query) -> View:
        """What the model knows of a batch of queries."""
        return self.model.view(query)


class _LiveView(View):
    def __init__(self, view: View, teacher: Live, query: Query) -> None:
        self._view, self._teacher, self._query = view, teacher, query
        self.source = view.source

    @override
    def known(self) -> Tensor:
        return self._view.known()

    @override
    def select(self, index: Tensor) -> View:
        return _LiveView(self._view.select(index), self._teacher, self._query[index])

    @override
    def scores(self, items: Tensor) -> Tensor:
        return self._view.scores(items)

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        return self._view.scores_among(items)

    @override
    def scores_of(self, items: Tensor, users: Tensor) -> Tensor:
        return self._view.scores_of(items, users)

    @override
    def best(self, k: int) -> tuple[Tensor, Tensor]:
        return self._view.best(k)

    @override
    def linear(self) -> Linear | None:
        return self._view.linear()

    @override
    def log_partition(self, without: Tensor, *, chunk: int | None = None) -> Tensor:
        return self._view.log_partition(without, chunk=chunk)

    @override
    def ranked(self, k: int) -> Tensor:
        return self._teacher.ranked(self._query.row, k)

    @override
    def entities(self, side: Side, ids: Tensor, layer: Layer = "served") -> Tensor:
        return self._view.entities(side, ids, layer)

    @override
    def states(self) -> Tensor:
        return self._view.states()
