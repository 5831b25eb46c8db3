"""LightGCN: vectors averaged over the user-item graph. He et al., SIGIR 2020, arXiv:2002.02126, eq. 3, 4 and 8.

    E^(k+1) = D^-1/2 A D^-1/2 E^(k),    E = 1 / (L + 1) sum_{k = 0..L} E^(k),    score = <e_u, e_i>

The paper draws initial vectors by Xavier's rule; its official PyTorch code from N(0, 0.1^2), which is our default. The
paper's L2 penalty is over the raw vectors of the batch: `terms.embedding_l2`.

Letters: U users, I items, n edges, d dims, L layers, Q queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.knowledge.vectors import VectorView
from recdistill.knowledge.view import Kind, View
from recdistill.models.base import Recommender, model
from recdistill.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from recdistill.data.csr import Csr
    from recdistill.data.interactions import Interactions
    from recdistill.knowledge.view import Layer
    from recdistill.losses.linear_kl import Linear
    from recdistill.query import Query, Side

__all__ = ["LightGCN", "LightGCNSettings"]

PAPER = "He et al., LightGCN: Simplifying and Powering Graph Convolution Network, SIGIR 2020, arXiv:2002.02126"


class LightGCNSettings(Settings):
    """LightGCN. Every step propagates through the whole graph, so large batches pay."""

    dim: int = Field(default=64, ge=1)
    """Width of the user and item vectors."""
    layers: int = Field(default=3, ge=0)
    """L, how often vectors are averaged over neighbours; 0 is matrix factorisation."""
    init: Literal["normal", "xavier"] = "normal"
    """ "normal" as the official PyTorch code, "xavier" (uniform) as the paper says."""
    init_std: float = Field(default=0.1, gt=0)
    """Standard deviation of "normal"."""


class LightGCN(Recommender):
    """Score `<e_u, e_i>` of propagated vectors. A user or item without an edge keeps 1 / (L + 1) of its raw vector."""

    provides: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES, Kind.RANKS, Kind.VECTORS})
    kind: ClassVar[str] = "vectors"

    def __init__(
        self,
        train: Csr,
        *,
        dim: int,
        layers: int = 3,
        init: Literal["normal", "xavier"] = "normal",
        init_std: float = 0.1,
        seed: int = 0,
    ) -> None:
        """Take the graph of `train` (U x I): one edge an interaction, all of the same weight."""
        super().__init__()
        self.n_users, self.n_items, self.dim, self.layers = train.n_rows, train.n_columns, dim, layers
        generator = torch.Generator().manual_seed(seed)

        def raw(rows: int) -> nn.Parameter:
            out = torch.empty(rows, dim)
            if init == "xavier":
                return nn.Parameter(nn.init.xavier_uniform_(out, generator=generator))
            return nn.Parameter(out.normal_(0, init_std, generator=generator))

        self.user, self.item = raw(self.n_users), raw(self.n_items)
        of_items = train.transposed()
        for name, edges, other in (("of_user", train, of_items), ("of_item", of_items, train)):
            for part, array in zip(("begin", "index", "weight"), _edges(edges, other), strict=True):
                self.register_buffer(f"{name}_{part}", torch.from_numpy(array), persistent=False)
        self._kept: tuple[tuple[int, ...], tuple[Tensor, Tensor]] | None = None

    def propagated(self) -> tuple[Tensor, Tensor]:
        """(U, d), (I, d): what is served. A frozen model keeps it until other vectors are loaded."""
        raw = (self.user, self.item)
        if self.user.requires_grad or self.item.requires_grad:
            return _Propagate.apply(*raw, self)  # pyright: ignore[reportReturnType]
        now = tuple(stamp for p in raw for stamp in (p._version, p.data_ptr()))
        if self._kept is None or self._kept[0] != now:
            self._kept = (now, self.mean_of_layers(*raw))
        return self._kept[1]

    def mean_of_layers(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """(U, d), (I, d) -> (U, d), (I, d): propagate any vectors; linear and its own transpose."""
        total_user, total_item = user.clone(), item.clone()
        for _ in range(self.layers):
            user, item = (
                self._spread(item, "of_user"),
                self._spread(user, "of_item"),
            )
            total_user += user
            total_item += item
        return total_user.div_(self.layers + 1), total_item.div_(self.layers + 1)

    @override
    def view(self, query: Query) -> View:
        return _GraphView(self, query, [])

    @override
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        with torch.no_grad():
            user, item = self.propagated()
        return {"user": user.cpu().numpy(), "item": item.cpu().numpy()}

    def _spread(self, vectors: Tensor, side: Literal["of_user", "of_item"]) -> Tensor:
        begin, index, weight = (self.get_buffer(f"{side}_{part}") for part in ("begin", "index", "weight"))
        # A weighted sum of rows for every row of the graph: four times as fast on a CPU as a product with a sparse
        # matrix, each sum in one order whatever the threads.
        return F.embedding_bag(
            index, vectors, begin, mode="sum", per_sample_weights=weight.to(vectors.dtype), include_last_offset=True
        )


class _Propagate(torch.autograd.Function):
    """The map is linear and symmetric, so its backward is itself."""

    @staticmethod
    def forward(ctx: Any, user: Tensor, item: Tensor, graph: LightGCN) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        ctx.graph = graph
        return graph.mean_of_layers(user, item)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        return (*ctx.graph.mean_of_layers(*grads), None)


class _GraphView(View):
    """Propagates once, when it is first asked, for itself and for every part selected from it."""

    source = "the LightGCN model"

    def __init__(self, graph: LightGCN, query: Query, propagated: list[tuple[Tensor, Tensor]]) -> None:
        self._graph, self._query, self._propagated = graph, query, propagated
        self._view: VectorView | None = None

    @override
    def known(self) -> Tensor:
        return self._query.row >= 0

    @override
    def select(self, index: Tensor) -> View:
        return _GraphView(self._graph, self._query[index], self._propagated)

    @override
    def scores(self, items: Tensor) -> Tensor:
        return self._served().scores(items)

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        return self._served().scores_among(items)

    @override
    def scores_of(self, items: Tensor, users: Tensor) -> Tensor:
        return self._served().scores_of(items, users)

    @override
    def linear(self) -> Linear:
        return self._served().linear()

    @override
    def log_partition(self, without: Tensor, *, chunk: int | None = None) -> Tensor:
        return self._served().log_partition(without, chunk=chunk)

    @override
    def entities(self, side: Side, ids: Tensor, layer: Layer = "served") -> Tensor:
        """Layer 0 is the raw table."""
        if layer == "served":
            return self._served().entities(side, ids)
        if layer != 0:
            msg = problem("LightGCN has no such layer of vectors", layer, allowed=["0 (the raw table)", "'served'"])
            raise UsageError(msg)
        return (self._graph.user if side == "user" else self._graph.item).index_select(0, ids)

    def _served(self) -> VectorView:
        if self._view is None:
            if not self._propagated:
                self._propagated.append(self._graph.propagated())
            self._view = VectorView(*self._propagated[0], self._query, source=self.source)
        return self._view


def _edges(rows: Csr, columns: Csr) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Where each row's edges begin (R + 1,), their other ends (n,), and `1 / sqrt(deg_row deg_column)` (n,)."""
    degree = np.repeat(rows.degrees, rows.degrees) * columns.degrees[rows.indices]
    return rows.indptr.copy(), rows.indices.astype(np.int64), (1 / np.sqrt(degree)).astype(np.float32)


@model("lightgcn", settings=LightGCNSettings, paper=PAPER)
def build(settings: LightGCNSettings, n_users: int, n_items: int, seed: int, train: Interactions) -> LightGCN:
    """The graph is that of the training interactions."""
    del n_users, n_items  # `train` has them
    return LightGCN(
        train.csr(), dim=settings.dim, layers=settings.layers, init=settings.init, init_std=settings.init_std, seed=seed
    )
