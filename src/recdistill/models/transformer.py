"""Self-attention over histories, in the three arrangements that sequential recommenders use.

    post      x = N(x + A(x));  x = N(x + F(x))            Vaswani et al., 2017; BERT4Rec; S3-Rec's and RecBole's SASRec
    pre       x = x + A(N(x));  x = x + F(N(x))            AdaRec's BERT4Rec
    rezero    a = N(x); a = a + A(a); a = N(a); a = a + F(a); x = x + e a, e = 0 at first     AdaRec's SASRec; A has no
              output projection

Padding is never attended to. No position sees a later one unless `both_ways`. Letters: Q histories, T time, d dims, h
heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Activation", "Form", "Placed", "Transformer", "who_sees"]

Form = Literal["post", "pre", "rezero"]
Activation = Literal["relu", "gelu"]


class Placed(nn.Module):
    """Item vectors with learned positions; the last item of a history always stands at the last position."""

    def __init__(self, length: int, dim: int, *, dropout: float, norm: bool, init_std: float) -> None:
        """`length` positions of width `dim`; a layer norm and dropout after them."""
        super().__init__()
        self.position = nn.Parameter(torch.empty(length, dim).normal_(0, init_std))
        self.norm = nn.LayerNorm(dim) if norm else None
        self.drop = nn.Dropout(dropout)

    @override
    def forward(self, vectors: Tensor) -> Tensor:
        """(Q, T, d) -> (Q, T, d)."""
        x = vectors + self.position[len(self.position) - vectors.shape[1] :]
        return self.drop(x if self.norm is None else self.norm(x))


class Transformer(nn.Module):
    """Blocks of attention and a pointwise network."""

    def __init__(
        self,
        *,
        dim: int,
        layers: int,
        heads: int,
        inner: int,
        dropout: float,
        form: Form,
        activation: Activation,
        last_norm: bool,
        init_std: float,
    ) -> None:
        """Build `layers` blocks, weights from N(0, init_std^2) of torch's generator, biases 0.

        Args:
            dim: d.
            layers: how many blocks.
            heads: of each attention; they divide d.
            inner: width of the pointwise network.
            dropout: of attention weights and of what each half of a block adds, in [0, 1).
            form: the arrangement.
            activation: of the pointwise network.
            last_norm: whether a layer norm follows the last block.
            init_std: standard deviation of the initial weights.

        Raises:
            UsageError: the heads do not divide the width.
        """
        super().__init__()
        if dim % heads:
            raise UsageError(problem(f"The heads of attention must divide the width {dim}", heads))
        self.blocks = nn.ModuleList(
            _Block(dim=dim, heads=heads, inner=inner, dropout=dropout, form=form, activation=activation)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim) if last_norm else None
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, 0, init_std)
                nn.init.zeros_(part.bias)

    @override
    def forward(self, x: Tensor, real: Tensor, *, both_ways: bool) -> list[Tensor]:
        """(Q, T, d), (Q, T) bool -> what enters, what leaves each block, and what is read: (Q, T, d) each."""
        mask = who_sees(real, both_ways=both_ways)
        out = [x]
        for block in self.blocks:
            x = block(x, mask)
            out.append(x)
        return [*out, x if self.norm is None else self.norm(x)]


class _Block(nn.Module):
    def __init__(self, *, dim: int, heads: int, inner: int, dropout: float, form: Form, activation: Activation) -> None:
        super().__init__()
        self._form = form
        self.attention = _Attention(dim, heads, dropout, projected=form != "rezero")
        self.wide, self.narrow = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.drop = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.zeros(1)) if form == "rezero" else None
        self._activation = F.relu if activation == "relu" else F.gelu

    @override
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self._form == "post":
            x = self.first(x + self.drop(self.attention(x, mask)))
            return self.second(x + self._pointwise(x))
        if self._form == "pre":
            x = x + self.drop(self.attention(self.first(x), mask))
            return x + self._pointwise(self.second(x))
        assert self.scale is not None  # noqa: S101 - "rezero"
        a = self.first(x)
        a = self.second(a + self.attention(a, mask))
        return x + self.scale * (a + self._pointwise(a))

    def _pointwise(self, x: Tensor) -> Tensor:
        inner = self._activation(self.wide(x))
        if self._form == "rezero":
            inner = self.drop(inner)
        return self.drop(self.narrow(inner))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float, *, projected: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim) if projected else None
        self._heads, self._dropout = heads, dropout

    @override
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        split = (*x.shape[:2], self._heads, x.shape[2] // self._heads)
        q, k, v = (of(x).view(split).transpose(1, 2) for of in (self.query, self.key, self.value))  # (Q, h, T, d / h)
        dropout = self._dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        seen = seen.transpose(1, 2).reshape(x.shape)
        return seen if self.out is None else self.out(seen)


def who_sees(real: Tensor, *, both_ways: bool) -> Tensor:
    """(Q, T) -> (Q, 1, T, T) bool: which position may see which. Padding sees itself: no row is empty."""
    time = real.shape[1]
    itself = torch.eye(time, dtype=torch.bool, device=real.device)
    seen = real[:, None, :] | itself  # (Q, T, T)
    if not both_ways:
        seen = seen & torch.ones(time, time, dtype=torch.bool, device=real.device).tril()
    return seen[:, None]
