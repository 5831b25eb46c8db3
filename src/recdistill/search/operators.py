"""What can stand on an edge of a cell: an operator is data that knows its reach, its sizes and how to build itself.

A new kind of operator is a frozen dataclass like those below, in any file. Chen et al., AdaRec, arXiv:2107.07173; the
operators are those of the official code.

Letters: Q queries, C width, T time, k kernel.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from recdistill.search.norm import PositionNorm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from recdistill.search.norm import Over

__all__ = ["Conv", "ConvNorm", "Nothing", "OnEdge", "Operator", "Pool", "Skip"]


class OnEdge(nn.Module, ABC):
    """An operator's module."""

    @abstractmethod
    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        """Apply it.

        Args:
            x: (Q, C, T) >= 0, for a cell applies ReLU before every edge; 0 at padding, unless padding is read.
            real: (Q, 1, T) bool
            track: whether running statistics learn from this batch.

        Returns:
            (Q, C, T)
        """

    def draw(self, generator: torch.Generator) -> None:
        """Draw the weights."""

    def folded(self) -> OnEdge:
        """A copy that is the same function in evaluation, with fewer operations."""
        return copy.deepcopy(self)

    def of_zeros(self) -> Tensor | None:
        """(C,): what it makes in evaluation of a node that is zero everywhere; None where that is zero too."""
        return None


@dataclass(frozen=True, slots=True)
class Operator(ABC):
    """One operator of a space."""

    name: str
    """Without a dot: it is a key of weights and of JSON."""

    @property
    @abstractmethod
    def reads(self) -> Sequence[int]:
        """The positions it reads, relative to the one it writes, in order: -1 is the one before, 1 the one after."""

    @property
    def gap(self) -> int:
        """Paddings between two histories of one row that keep it from reading across: how far it reaches."""
        return max(-self.reads[0], self.reads[-1]) if self.reads else 0

    def check(self, width: int) -> None:  # noqa: B027 - most suit any
        """Raise `UsageError` where the width does not suit it."""

    @abstractmethod
    def params(self, width: int) -> int:
        """Trained numbers at this width."""

    @abstractmethod
    def macs(self, width: int, length: int) -> int:
        """Multiply-adds for one history of `length` positions."""

    @abstractmethod
    def build(self, width: int, over: Over) -> OnEdge:
        """Its module, with the statistics of norms `over` real or all positions; raises what `check` does."""

    @property
    def causal(self) -> bool:
        """Whether it reads nothing of the future."""
        return not self.reads or self.reads[-1] <= 0


@dataclass(frozen=True, slots=True)
class Conv(Operator):
    """A dense convolution C -> C with bias, then a batch norm."""

    kernel: int
    """Odd."""
    dilation: int = 1
    side: Literal["left", "both"] = "left"
    """ "left" pads on the left alone and is causal; "both" is symmetric."""

    @property
    @override
    def reads(self) -> tuple[int, ...]:
        return _window(self.kernel, self.dilation, self.side)

    @override
    def params(self, width: int) -> int:
        return self.kernel * width * width + 3 * width

    @override
    def macs(self, width: int, length: int) -> int:
        return length * self.params(width)

    @override
    def build(self, width: int, over: Over) -> ConvNorm:
        return ConvNorm(width, self.kernel, self.dilation, self.side, over=over)


@dataclass(frozen=True, slots=True)
class Pool(Operator):
    """The greatest or the mean of the positions around."""

    how: Literal["max", "mean"]
    kernel: int = 3
    side: Literal["left", "both"] = "left"
    counts: Literal["real", "all"] = "real"
    """What a mean divides by: the real positions in its window, or `kernel` (official code: zeros count)."""

    @property
    @override
    def reads(self) -> tuple[int, ...]:
        return _window(self.kernel, 1, self.side)

    @override
    def params(self, width: int) -> int:
        return 0

    @override
    def macs(self, width: int, length: int) -> int:
        return width * length

    @override
    def build(self, width: int, over: Over) -> OnEdge:
        return _Pooled(self)


@dataclass(frozen=True, slots=True)
class Skip(Operator):
    """The input of the edge, after its ReLU."""

    @property
    @override
    def reads(self) -> tuple[int, ...]:
        return (0,)

    @override
    def params(self, width: int) -> int:
        return 0

    @override
    def macs(self, width: int, length: int) -> int:
        return 0

    @override
    def build(self, width: int, over: Over) -> OnEdge:
        return _Skipped()


@dataclass(frozen=True, slots=True)
class Nothing(Operator):
    """Zeros: there is no edge."""

    @property
    @override
    def reads(self) -> tuple[int, ...]:
        return ()

    @override
    def params(self, width: int) -> int:
        return 0

    @override
    def macs(self, width: int, length: int) -> int:
        return 0

    @override
    def build(self, width: int, over: Over) -> OnEdge:
        return _Zeros()


class ConvNorm(OnEdge):
    """A convolution and its norm."""

    def __init__(self, width: int, kernel: int, dilation: int, side: Literal["left", "both"], *, over: Over) -> None:
        """Hold the weights (C, C, k); `draw` fills them."""
        super().__init__()
        self.dilation, self.padding = dilation, _padding(kernel, dilation, side)
        self.weight = nn.Parameter(torch.empty(width, width, kernel))
        self.bias = nn.Parameter(torch.empty(width))
        self.norm = PositionNorm(width, over=over)

    @override
    def draw(self, generator: torch.Generator) -> None:
        """Weights and biases from U(-b, b), b = 1 / sqrt(k C), as torch does."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    @override
    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        y = F.conv1d(F.pad(x, self.padding), self.weight, self.bias, dilation=self.dilation)  # (Q, C, T)
        return self.norm(y.to(self.weight.dtype), real, track=track)  # its statistics are sums over many

    @override
    def folded(self) -> _Plain:
        """The one convolution that is equal to the two in evaluation."""
        scale, _ = self.norm.affine()
        return _Plain(self, (self.weight * scale[:, None, None]).detach(), self.of_zeros())

    @override
    def of_zeros(self) -> Tensor:
        """The bias of the one convolution."""
        scale, shift = self.norm.affine()
        return (self.bias * scale + shift).detach()


class _Plain(OnEdge):
    """A convolution without a norm."""

    weight: Tensor
    bias: Tensor

    def __init__(self, like: ConvNorm, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.padding, self.dilation = like.padding, like.dilation
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @override
    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        return F.conv1d(F.pad(x, self.padding), self.weight, self.bias, dilation=self.dilation)


class _Pooled(OnEdge):
    def __init__(self, what: Pool) -> None:
        super().__init__()
        self.what, self.padding = what, _padding(what.kernel, 1, what.side)

    @override
    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        windows = F.pad(x, self.padding)  # zeros are never greater than what a ReLU gave
        if self.what.how == "max":
            if torch.onnx.is_in_onnx_export():  # the tracer takes a length for fixed where there is one axis
                return F.max_pool2d(windows[:, :, None], (1, self.what.kernel), stride=1)[:, :, 0]
            return F.max_pool1d(windows, self.what.kernel, stride=1)
        mean = F.avg_pool1d(windows, self.what.kernel, stride=1)  # (Q, C, T)
        if self.what.counts == "all":
            return mean
        share = F.avg_pool1d(F.pad(real.to(x.dtype), self.padding), self.what.kernel, stride=1)  # (Q, 1, T)
        return mean / share.clamp(min=0.5 / self.what.kernel)


class _Skipped(OnEdge):
    @override
    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        return x


class _Zeros(OnEdge):
    @override
    def forward(self, x: Tensor, real: Tensor, *, track: bool = True) -> Tensor:
        return torch.zeros_like(x)


def _padding(kernel: int, dilation: int, side: Literal["left", "both"]) -> tuple[int, int]:
    """Zeros to the left and to the right that keep the length."""
    span = (kernel - 1) * dilation
    return (span, 0) if side == "left" else (span // 2, span // 2)


def _window(kernel: int, dilation: int, side: Literal["left", "both"]) -> tuple[int, ...]:
    left, _ = _padding(kernel, dilation, side)
    return tuple(place * dilation - left for place in range(kernel))
