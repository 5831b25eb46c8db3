"""Mult-VAE: a user is encoded from the items seen. Liang et al., WWW 2018, arXiv:1802.05814.

    h = tanh(W x / ||x|| + b),   z ~ N(mu(h), sigma(h)^2),   score = <z, V_i> + c_i

One hidden layer and a linear decoder, as in CCD's ensemble; the mean is served. No row belongs to a user, so that a
user who is new, or back after a while, is served at once. What it minimises is `terms.multinomial`.

Letters: U users, I items, n interactions, Q queries, d dims.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from recdistill import rng
from recdistill.knowledge.vectors import VectorView
from recdistill.knowledge.view import Kind, View, check_one_layer
from recdistill.models.base import Recommender
from recdistill.query import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from recdistill.data.csr import Csr
    from recdistill.knowledge.view import Layer
    from recdistill.losses.linear_kl import Linear
    from recdistill.query import Side

__all__ = ["VAE", "VAEView"]

_AT_A_TIME = 1 << 13


class VAE(Recommender):
    """Vectors of users are computed from their rows; those of items are the decoder's and its bias."""

    provides: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES, Kind.RANKS, Kind.VECTORS})
    kind: ClassVar[str] = "vectors"

    def __init__(self, rows: Csr, *, dim: int, bias_std: float = 0.001, seed: int = 0) -> None:
        """Encode the rows of `rows` (U x I), each item counting 1."""
        super().__init__()
        self.n_users, self.n_items, self.dim = rows.n_rows, rows.n_columns, dim
        generator = torch.Generator().manual_seed(seed)

        def weight(out: int, into: int) -> nn.Parameter:  # Xavier's normal
            std = math.sqrt(2 / (out + into))
            return nn.Parameter(torch.empty(out, into).normal_(0, std, generator=generator))

        def bias(n: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(n).normal_(0, max(bias_std, 1e-12), generator=generator))

        self.encoder, self.encoder_bias = weight(self.n_items, dim), bias(dim)
        self.mean, self.mean_bias = weight(dim, dim), bias(dim)
        self.spread, self.spread_bias = weight(dim, dim), bias(dim)
        self.decoder, self.decoder_bias = weight(self.n_items, dim), bias(self.n_items)
        self._rows = _rows(rows.indptr, rows.indices, np.ones(len(rows), np.float32))
        self._told = self._rows

    def told(self, begin: NDArray[np.int64], items: NDArray[np.integer], value: NDArray[np.float32]) -> None:
        """Encode these rows in training, in place of those that are served: begin (U + 1,), items (n,), value (n,).

        CCD writes what others believe into them, at a small value.
        """
        self._told = _on(self._rows[0].device, _rows(begin, items, value))

    def posterior(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """(Q,) user rows, -1 = nobody -> (Q, d) mean and (Q, d) logarithm of the variance."""
        if self._rows[0].device != users.device:  # once
            self._rows, self._told = (_on(users.device, rows) for rows in (self._rows, self._told))
        begin, items, value = self._told if self.training else self._rows
        safe = users.clamp(min=0)
        start = begin[safe]
        count = torch.where(users >= 0, begin[safe + 1] - start, 0)  # (Q,)
        offsets = count.cumsum(0) - count
        place = torch.arange(int(count.sum()), device=users.device)
        place += torch.repeat_interleave(start - offsets, count)
        x = value[place]
        owner = torch.repeat_interleave(torch.arange(len(users), device=users.device), count)
        square = torch.zeros(len(users), device=users.device).index_add_(0, owner, x.square())
        x = x * square.clamp(min=1e-12).rsqrt()[owner]  # rows of length 1
        hidden = F.embedding_bag(items[place], self.encoder, offsets, mode="sum", per_sample_weights=x)
        hidden = torch.tanh(hidden + self.encoder_bias)  # (Q, d)
        return hidden @ self.mean.T + self.mean_bias, hidden @ self.spread.T + self.spread_bias

    def served_items(self) -> Tensor:
        """(I, d + 1) the decoder with its bias."""
        return torch.cat([self.decoder, self.decoder_bias[:, None]], 1)

    def served_users(self, users: Tensor) -> Tensor:
        """(Q,) -> (Q, d + 1) what the mean of each scores with."""
        return _with_one(self.posterior(users)[0], users)

    @override
    def view(self, query: Query) -> VAEView:
        return VAEView(self, query)

    @override
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        learning = self.training
        self.eval()
        with torch.no_grad():
            everybody = torch.arange(self.n_users, device=self.encoder.device)
            user = [self.served_users(some) for some in everybody.split(_AT_A_TIME)]
            item = self.served_items()
        self.train(learning)
        return {"user": torch.cat(user).cpu().numpy(), "item": item.cpu().numpy()}


class VAEView(View):
    """Draws z while the model learns; `Query.key` says which draw."""

    source = "the variational autoencoder"

    def __init__(self, net: VAE, query: Query) -> None:
        self._net, self._query = net, query
        self._found: tuple[Tensor, Tensor] | None = None
        self._view: VectorView | None = None

    def posterior(self) -> tuple[Tensor, Tensor]:
        """(Q, d) mean and (Q, d) logarithm of the variance."""
        if self._found is None:
            self._found = self._net.posterior(self._query.row)
        return self._found

    def drawn(self) -> VectorView:
        """The view of what was drawn, or of the mean where the model does not learn."""
        if self._view is None:
            z, log_variance = self.posterior()
            if self._net.training:
                z = z + (0.5 * log_variance).exp() * _normal(self._query, z)
            here = torch.arange(len(self._query), device=z.device)
            vectors = _with_one(z, self._query.row)
            self._view = VectorView(vectors, self._net.served_items(), Query(here), source=self.source)
        return self._view

    @override
    def known(self) -> Tensor:
        return self._query.row >= 0

    @override
    def select(self, index: Tensor) -> View:
        return self.drawn().select(index)

    @override
    def scores(self, items: Tensor) -> Tensor:
        return self.drawn().scores(items)

    @override
    def scores_among(self, items: Tensor) -> Tensor:
        return self.drawn().scores_among(items)

    @override
    def linear(self) -> Linear:
        return self.drawn().linear()

    @override
    def log_partition(self, without: Tensor, *, chunk: int | None = None) -> Tensor:
        return self.drawn().log_partition(without, chunk=chunk)

    @override
    def entities(self, side: Side, ids: Tensor, layer: Layer = "served") -> Tensor:
        """Users by their mean, items by the decoder."""
        check_one_layer(layer, self.source)
        return self._net.served_users(ids) if side == "user" else self._net.served_items().index_select(0, ids)


def _rows(
    begin: NDArray[np.int64], items: NDArray[np.integer], value: NDArray[np.float32]
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.from_numpy(np.array(begin)), torch.from_numpy(np.array(items, np.int64)), torch.from_numpy(value)


def _on(device: torch.device, rows: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    begin, items, value = rows
    return begin.to(device), items.to(device), value.to(device)


def _with_one(z: Tensor, users: Tensor) -> Tensor:
    """(Q, d) -> (Q, d + 1); nobody scores 0 everywhere."""
    return torch.cat([z, torch.ones_like(z[:, :1])], 1) * (users >= 0)[:, None]


def _normal(query: Query, like: Tensor) -> Tensor:
    if query.key is None:
        return torch.randn_like(like)
    pairs = rng.uniform(query.key, query.row, 2 * like.shape[1]).view(len(query), 2, -1)  # (Q, 2, d)
    return (-2 * pairs[:, 0].log()).sqrt() * (2 * math.pi * pairs[:, 1]).cos()  # Box and Muller
