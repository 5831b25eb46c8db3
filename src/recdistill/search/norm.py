"""Batch normalisation over the real positions of histories.

Letters: Q queries, T time, C width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Over", "PositionNorm"]

Over = Literal["real", "all"]
"""Which positions make the statistics: "real" leaves padding out; "all" is `nn.BatchNorm1d` (official code)."""


class PositionNorm(nn.Module):
    """`(x - mean) / sqrt(var + eps) * weight + bias`, statistics per channel over queries and time.

    With short histories most positions are padding, and would make the statistics of a plain batch norm. In training
    the statistics are the batch's, so a position then sees a little of all others; in evaluation it sees itself alone.
    A step whose batch has no such position leaves everything as it is.
    """

    mean: Tensor
    var: Tensor
    seen: Tensor

    def __init__(self, width: int, *, over: Over = "real", momentum: float = 0.1, eps: float = 1e-5) -> None:
        """Normalise `width` channels; `momentum` is the share of a new batch in the running statistics."""
        super().__init__()
        self.over: Over = over
        self.momentum: float | None = momentum
        """None: the plain average of all batches since `forget`."""
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forgotten(self) -> None:
        """Forget the running statistics."""
        self.mean.zero_()
        self.var.fill_(1)
        self.seen.zero_()

    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        """Normalise.

        Args:
            x: (Q, C, T)
            real: (Q, 1, T) bool, which positions are not padding.
            track: whether the running statistics learn from this batch.
        """
        if not self.training:
            scale, shift = self.affine()
            return x * scale[:, None] + shift[:, None]
        if self.over == "real":
            mask = real.to(x.dtype)  # (Q, 1, T)
            n = mask.sum()
            mean = (x * mask).sum((0, 2)) / n.clamp(min=1)  # (C,)
            var = ((x - mean[:, None]).square() * mask).sum((0, 2)) / n.clamp(min=1)
        else:
            n = x.new_tensor(float(x.shape[0] * x.shape[2]))
            var, mean = torch.var_mean(x, (0, 2), correction=0)
        if track:
            self._learn(mean.detach(), var.detach() * n / (n - 1).clamp(min=1), (n > 0).to(x.dtype))
        scale = self.weight * (var + self.eps).rsqrt()
        return x * scale[:, None] + (self.bias - mean * scale)[:, None]

    def affine(self) -> tuple[Tensor, Tensor]:
        """(C,), (C,): in evaluation the layer is `x * scale + shift`."""
        scale = self.weight * (self.var + self.eps).rsqrt()
        return scale, self.bias - self.mean * scale

    @torch.no_grad()
    def _learn(self, mean: Tensor, var: Tensor, any_real: Tensor) -> None:
        self.seen += any_real.to(torch.int64)
        share = any_real / self.seen.clamp(min=1) if self.momentum is None else any_real * self.momentum
        self.mean += share * (mean - self.mean)
        self.var += share * (var - self.var)
