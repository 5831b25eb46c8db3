"""The view of a recommender whose scores are inner products of vectors.

Letters: Q queries, n items a query, m shared candidates, U users, I items, d dims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from recdistill.knowledge.view import View

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.knowledge.view import Layer
    from recdistill.query import Query, Side

__all__ = ["VectorView"]


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
            out = _GatherDot.apply(self.vectors(), self._tables["item"], items.clamp(min=0))
            return torch.where(there, out, -torch.inf)  # pyright: ignore[reportArgumentType]
        return _GatherDot.apply(self.vectors(), self._tables["item"], items)  # pyright: ignore[reportReturnType]

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        return self.vectors() @ self._tables["item"].index_select(0, items).T  # (Q, m)

    @override
    def entities(self, side: Side, ids: Tensor, layer: Layer = "served") -> Tensor:
        del layer  # one layer
        return self._tables[side].index_select(0, ids)

    def vectors(self) -> Tensor:
        """(Q, d) the queries' vectors."""
        if self._vectors is None:
            row = self._query.row
            out = self._tables[self._query.side].index_select(0, row.clamp(min=0))
            self._vectors = out if bool((row >= 0).all()) else torch.where((row >= 0)[:, None], out, 0)
        return self._vectors


class _GatherDot(torch.autograd.Function):
    """(Q, d) vectors, (I, d) table, (Q, n) rows of it -> (Q, n) inner products.

    The backward scatters once into the table; autograd's own form copies the vectors n times to do the same.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, items: Tensor) -> Tensor:  # noqa: ANN401 - untyped in torch
        rows = table.index_select(0, items.flatten()).view(*items.shape, -1)  # (Q, n, d)
        ctx.save_for_backward(vectors, rows, items)
        ctx.size = table.shape[0]
        return (rows * vectors[:, None]).sum(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401
        vectors, rows, items = ctx.saved_tensors
        g = grads[0]  # (Q, n)
        of_vectors = of_table = None
        if ctx.needs_input_grad[0]:
            of_vectors = torch.bmm(g[:, None], rows)[:, 0]  # (Q, d)
        if ctx.needs_input_grad[1]:
            spread = (g[:, :, None] * vectors[:, None]).view(-1, vectors.shape[1])  # (Q * n, d)
            of_table = vectors.new_zeros(ctx.size, vectors.shape[1]).index_add_(0, items.flatten(), spread)
        return of_vectors, of_table, None
