"""Causal self-attention as an operator of a cell, which looks back as far as a history goes.

Scaled dot-product attention of several heads: Vaswani et al., NeurIPS 2017, eq. 1; over histories: Kang & McAuley,
SASRec, ICDM 2018, arXiv:1808.09781. The official code of AdaRec has no such operator.

Letters: Q queries, C width, T time, h heads.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.models.transformer import who_sees
from recdistill.search.norm import PositionNorm
from recdistill.search.operators import OnEdge, Operator

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.search.norm import Over

__all__ = ["Attention"]


@dataclass(frozen=True, slots=True)
class Attention(Operator):
    """Attention to what was before, a projection with bias, then a batch norm. Padding is not attended to."""

    heads: int = 2
    """h, which divides the width."""

    @property
    @override
    def reads(self) -> range:
        return range(1 - sys.maxsize, 1)

    @property
    @override
    def gap(self) -> int:
        """1: in training it stays within a history, wherever that stands."""
        return 1

    @override
    def params(self, width: int) -> int:
        return 4 * width * width + 3 * width

    @override
    def macs(self, width: int, length: int) -> int:
        return length * self.params(width) + 2 * length * length * width

    @override
    def check(self, width: int) -> None:
        if width % self.heads:
            remedy = "Take a width that they divide, or a space without attention"
            what = f"{self.heads} heads of the operator {self.name!r} do not divide the width"
            raise UsageError(problem(what, width, remedy=remedy))

    @override
    def build(self, width: int, over: Over) -> _AttendNorm:
        self.check(width)
        return _AttendNorm(width, self.heads, over=over)


class _AttendNorm(OnEdge):
    """Attention, a projection and their norm."""

    def __init__(self, width: int, heads: int, *, over: Over) -> None:
        super().__init__()
        self._heads = heads
        self.asked = nn.Parameter(torch.empty(3 * width, width))  # of queries, keys and values
        self.weight = nn.Parameter(torch.empty(width, width))
        self.bias = nn.Parameter(torch.empty(width))
        self.norm = PositionNorm(width, over=over)

    @override
    def draw(self, generator: torch.Generator) -> None:
        bound = len(self.bias) ** -0.5
        for parameter in (self.asked, self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    @override
    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        seen = who_sees(real[:, 0], both_ways=False)  # (Q, 1, T, T)
        if self.training:
            seen = seen & _together(real[:, 0])
        y = F.linear(_attended(x, seen, self.asked, self._heads), self.weight, self.bias).transpose(1, 2)  # (Q, C, T)
        return self.norm(y.to(self.weight.dtype), real, track=track)  # its statistics are sums over many

    @override
    def folded(self) -> _Folded:
        scale, _ = self.norm.affine()
        weight = (self.weight * scale[:, None]).detach()
        return _Folded(self._heads, self.asked.detach().clone(), weight, self.of_zeros())

    @override
    def of_zeros(self) -> Tensor:
        scale, shift = self.norm.affine()
        return (self.bias * scale + shift).detach()


class _Folded(OnEdge):
    """Attention and a projection without a norm."""

    asked: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, heads: int, asked: Tensor, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self._heads = heads
        for name, value in (("asked", asked), ("weight", weight), ("bias", bias)):
            self.register_buffer(name, value)

    @override
    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        seen = who_sees(real[:, 0], both_ways=False)
        return F.linear(_attended(x, seen, self.asked, self._heads), self.weight, self.bias).transpose(1, 2)


def _together(real: Tensor) -> Tensor:
    """(Q, T) -> (Q, 1, T, T) bool: what is of one history, where padding stands between two of a row."""
    begins = real & ~F.pad(real, (1, 0))[:, :-1]
    history = begins.cumsum(1)
    return (history[:, :, None] == history[:, None, :])[:, None]


def _attended(x: Tensor, may: Tensor, asked: Tensor, heads: int) -> Tensor:
    """(Q, C, T), (Q, 1, T, T) who may see which, (3 C, C) -> (Q, T, C)."""
    q, k, v = F.linear(x.transpose(1, 2), asked).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (Q, h, T, C / h)
    seen = F.scaled_dot_product_attention(q, k, v, attn_mask=may)
    return seen.transpose(1, 2).flatten(2)
