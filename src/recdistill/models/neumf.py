"""NeuMF: a product of two vectors and a small network over two others. He et al., WWW 2017, arXiv:1708.05031, eq. 12.

Widths, initial values and the pointwise loss are those of DE-RRD's fact sheet, section 1: every table has width d, the
first hidden layer maps 2d to d, each further one halves, and one output layer reads [product ; last hidden layer].

Letters: U users, I items, d dims, h width of the first hidden layer, Q queries, n items a query, m shared candidates.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import nn
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.knowledge.table import gather_dot, take
from recdistill.knowledge.view import Kind, View
from recdistill.models.base import Recommender, model
from recdistill.models.mf import table
from recdistill.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from recdistill.data.interactions import Interactions
    from recdistill.knowledge.view import Layer
    from recdistill.query import Query, Side

__all__ = ["NeuMF", "NeuMFSettings"]

PAPER = "He et al., Neural Collaborative Filtering, WWW 2017, arXiv:1708.05031"
_BLOCK = 1 << 22
"""Floats of first-layer activations at a time (16 MiB) while no gradient is wanted."""


class NeuMFSettings(Settings):
    """Neural matrix factorisation. Its own loss is "bce", with one negative an interaction."""

    dim: int = Field(default=64, ge=1)
    """Width of each of the four tables."""
    hidden: int = Field(default=1, ge=1)
    """Hidden layers: the first maps 2 dim to dim, each further one halves its width."""
    init_std: float = Field(default=0.01, gt=0)
    """Standard deviation of the initial vectors."""


class NeuMF(Recommender):
    """Score `w_mf . (p_mf * q_mf) + w_h . relu(W_L ... relu(W_1 [p_mlp ; q_mlp] + b_1) ... + b_L) + b`."""

    provides: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES, Kind.RANKS, Kind.VECTORS})
    kind: ClassVar[str] = "neumf"

    def __init__(
        self, n_users: int, n_items: int, *, dim: int, hidden: int = 1, init_std: float = 0.01, seed: int = 0
    ) -> None:
        """Draw tables from N(0, init_std^2), hidden weights Xavier-uniform, output Kaiming-uniform(a=1), biases 0.

        Raises:
            UsageError: so many hidden layers that the last one would have no width.
        """
        super().__init__()
        if dim >> (hidden - 1) < 1:
            what = f"The last of {hidden} hidden layers of NeuMF would have no width (dim {dim} halved each time)"
            raise UsageError(problem(what, allowed=f"at most {dim.bit_length()} hidden layers"))
        self.n_users, self.n_items, self.dim = n_users, n_items, dim
        generator = torch.Generator().manual_seed(seed)
        self.user_mf = table(n_users, dim, std=init_std, generator=generator)
        self.item_mf = table(n_items, dim, std=init_std, generator=generator)
        self.user_mlp = table(n_users, dim, std=init_std, generator=generator)
        self.item_mlp = table(n_items, dim, std=init_std, generator=generator)
        widths = [2 * dim, *(dim >> layer for layer in range(hidden))]
        self.hidden = nn.ModuleList(_linear(*pair) for pair in pairwise(widths))
        self.out = _linear(dim + widths[-1], 1)
        for layer in self.layers():
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.kaiming_uniform_(self.out.weight, a=1, generator=generator)
        nn.init.zeros_(self.out.bias)

    def layers(self) -> list[nn.Linear]:
        """The hidden layers, first to last."""
        return [layer for layer in self.hidden if isinstance(layer, nn.Linear)]

    @override
    def view(self, query: Query) -> View:
        return _PairView(self, query, [])

    @override
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}


class _PairView(View):
    """The first layer is linear in its two halves: the user's is computed once a query, the item's once an item.

    -1 among item rows scores -inf, an unknown user scores 0 everywhere.
    """

    source = "the NeuMF model"

    def __init__(self, net: NeuMF, query: Query, catalogue: list[Tensor]) -> None:
        self._net, self._query = net, query
        self._catalogue = catalogue  # (I, h) the items' half of the first layer, once made; shared by all parts
        self._halves: tuple[Tensor, Tensor] | None = None

    @override
    def known(self) -> Tensor:
        return self._query.row >= 0

    @override
    def select(self, index: Tensor) -> View:
        part = _PairView(self._net, self._query[index], self._catalogue)
        if self._halves is not None:
            part._halves = (self._halves[0].index_select(0, index), self._halves[1].index_select(0, index))
        return part

    @override
    def scores(self, items: Tensor) -> Tensor:
        there = items >= 0
        safe = items if bool(there.all()) else items.clamp(min=0)
        weighted, mine = self._users()
        near = gather_dot(weighted, self._net.item_mf, safe)  # (Q, n)
        out = near + self._deep(mine, safe)
        return out if safe is items and self._all_known() else self._masked(out, there)

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        weighted, mine = self._users()
        near = weighted @ take(self._net.item_mf, items).T  # (Q, m)
        out = near + self._deep(mine, items[None])
        return out if self._all_known() else self._masked(out, torch.ones_like(items[None], dtype=torch.bool))

    @override
    def scores_of(self, items: Tensor, users: Tensor) -> Tensor:
        """The halves change places: the items' half of the first layer is computed once an item."""
        net, there, safe = self._net, users >= 0, users.clamp(min=0)
        first = net.layers()[0]
        weighted = take(net.item_mf, items) * net.out.weight[0, : net.dim]
        near = gather_dot(weighted, net.user_mf, safe)  # (m, n)
        mine = torch.addmm(first.bias, take(net.item_mlp, items), first.weight[:, net.dim :].T)  # (m, h)
        theirs = (take(net.user_mlp, safe.flatten()) @ first.weight[:, : net.dim].T).view(*users.shape, -1)
        found = near + self._rest(mine, theirs)
        return found if bool(there.all()) else torch.where(there, found, -torch.inf)

    @override
    def log_partition(self, without: Tensor, *, chunk: int | None = None) -> Tensor:
        """Every chunk's activations are kept while gradients are on: for small catalogues."""
        parts: list[Tensor] = []
        step = chunk or max(1, _BLOCK // max(len(without) * self._net.dim, 1))
        for start in range(0, self._net.n_items, step):
            some = torch.arange(start, min(start + step, self._net.n_items), device=without.device)
            scores = self.scores_among(some)  # (Q, c)
            row, place = ((without >= start) & (without < start + len(some))).nonzero(as_tuple=True)
            gone = torch.zeros_like(scores, dtype=torch.bool)
            gone[row, without[row, place] - start] = True
            parts.append(scores.masked_fill(gone, -torch.inf).logsumexp(1))
        return torch.stack(parts).logsumexp(0)

    @override
    def entities(self, side: Side, ids: Tensor, layer: Layer = "served") -> Tensor:
        """Layer 0 is the product's table, 1 the network's; "served" is both, side by side (2d)."""
        mf, mlp = (self._net.user_mf, self._net.user_mlp) if side == "user" else (self._net.item_mf, self._net.item_mlp)
        if layer == "served":
            return torch.cat([take(mf, ids), take(mlp, ids)], 1)  # (m, 2d)
        if layer not in (0, 1):
            allowed = ["0 (the product's table)", "1 (the network's)", "'served' (both)"]
            raise UsageError(problem("NeuMF has no such layer of vectors", layer, allowed=allowed))
        return take(mf if layer == 0 else mlp, ids)

    def _users(self) -> tuple[Tensor, Tensor]:
        """(Q, d) product vectors times the output's weights, (Q, h) the users' half of the first layer."""
        if self._halves is None:
            net, row = self._net, self._query.row.clamp(min=0)
            first = net.layers()[0]
            weighted = take(net.user_mf, row) * net.out.weight[0, : net.dim]
            mine = torch.addmm(first.bias, take(net.user_mlp, row), first.weight[:, : net.dim].T)
            self._halves = (weighted, mine)
        return self._halves

    def _deep(self, mine: Tensor, items: Tensor) -> Tensor:
        """(Q, h), (Q or 1, n) -> (Q, n) what the network adds to the product."""
        if torch.is_grad_enabled():
            return self._network(mine, items)
        step = max(1, _BLOCK // max(items.shape[1] * mine.shape[1], 1))
        if mine.shape[0] <= step:
            return self._network(mine, items)
        shared = items.shape[0] == 1
        parts = [
            self._network(mine[at : at + step], items if shared else items[at : at + step])
            for at in range(0, mine.shape[0], step)
        ]
        return torch.cat(parts)

    def _network(self, mine: Tensor, items: Tensor) -> Tensor:
        return self._rest(mine, self._items(items))

    def _rest(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """(Q, h) and (q, n, h) halves of the first layer -> (Q, n) what the network makes of their sum."""
        net = self._net
        x = (mine[:, None] + theirs).relu_()  # (Q, n, h)
        for layer in net.layers()[1:]:
            x = layer(x).relu_()
        return x @ net.out.weight[0, net.dim :] + net.out.bias

    def _items(self, items: Tensor) -> Tensor:
        """(q, n) -> (q, n, h) the items' half of the first layer: of the whole catalogue where more is asked."""
        net, flat = self._net, items.flatten()
        weight = net.layers()[0].weight[:, net.dim :].T  # (d, h)
        if not self._catalogue and flat.shape[0] >= net.n_items and not net.item_mlp.by_rows:
            self._catalogue.append(net.item_mlp @ weight)
        half = self._catalogue[0].index_select(0, flat) if self._catalogue else take(net.item_mlp, flat) @ weight
        return half.view(*items.shape, half.shape[1])

    def _all_known(self) -> bool:
        return bool(self.known().all())

    def _masked(self, scores: Tensor, there: Tensor) -> Tensor:
        return torch.where(there, torch.where(self.known()[:, None], scores, 0), -torch.inf)


def _linear(into: int, out: int) -> nn.Linear:
    """A layer without values: torch's own would draw them from the global generator."""
    layer = nn.utils.skip_init(nn.Linear, into, out)
    assert isinstance(layer, nn.Linear)  # noqa: S101 - typed as any module
    return layer


@model("neumf", settings=NeuMFSettings, paper=PAPER)
def build(settings: NeuMFSettings, n_users: int, n_items: int, seed: int, train: Interactions) -> NeuMF:
    """NeuMF needs no graph: `train` is not used."""
    del train
    return NeuMF(n_users, n_items, dim=settings.dim, hidden=settings.hidden, init_std=settings.init_std, seed=seed)
