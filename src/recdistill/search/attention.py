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

    @override
    def params(self, width: int) -> int:
        return 4 * width * width + 3 * width

    @override
    def macs(self, width: int, length: int) -> int:
        return length * self.params(width) + 2 * length * length * width

    @override
    def build(self, width: int, over: Over) -> _AttendNorm:
        """See `Operator.build`.

        Raises:
            UsageError: the heads do not divide the width.
        """
        if width % self.heads:
            remedy = "Take a width that they divide, or a space without attention"
            what = f"{self.heads} heads of the operator {self.name!r} do not divide the width"
            raise UsageError(problem(what, width, remedy=remedy))
        return _AttendNorm(width, self.heads, over=over)


class _Attend(OnEdge):
    """Attention, then a convolution over one position."""

    def __init__(self, heads: int, asked: Tensor, weight: Tensor, bias: Tensor) -> None:
        """`asked` is (3 C, C), of queries, keys and values; `weight` (C, C) and `bias` (C,) of the projection."""
        super().__init__()
        self._heads = heads
        self.asked, self.weight, self.bias = (nn.Parameter(each) for each in (asked, weight, bias))

    @override
    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        q, k, v = F.linear(x.transpose(1, 2), self.asked).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        mask = who_sees(real[:, 0], both_ways=False)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (Q, h, T, C / h)
        return F.linear(seen.transpose(1, 2).flatten(2), self.weight, self.bias).transpose(1, 2)


class _AttendNorm(_Attend):
    """With its norm."""

    def __init__(self, width: int, heads: int, *, over: Over) -> None:
        super().__init__(heads, torch.empty(3 * width, width), torch.empty(width, width), torch.empty(width))
        self.norm = PositionNorm(width, over=over)

    @override
    def draw(self, generator: torch.Generator) -> None:
        bound = len(self.bias) ** -0.5
        for parameter in (self.asked, self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    @override
    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        return self.norm(super().forward(x, real).to(self.weight.dtype), real, track=track)

    @override
    def folded(self) -> _Attend:
        scale, shift = self.norm.affine()
        weight, bias = self.weight * scale[:, None], self.bias * scale + shift
        return _Attend(self._heads, self.asked.detach().clone(), weight.detach(), bias.detach())

    @override
    def of_zeros(self) -> Tensor:
        return self.folded().bias.detach()
