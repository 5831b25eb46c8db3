"""NextItNet: dilated causal convolutions over what a user did. Yuan et al., WSDM 2019, arXiv:1808.05163.

A block is two convolutions, of dilation d and 2d, each followed by layer norm and ReLU; its input is added to it.
`ADAREC` is the teacher of AdaRec's official code (Chen et al., arXiv:2107.07173). Its residual scale starts at 0
(ReZero, Bachlechner et al., 2020), which is our default too. Padding is 0 before every convolution. `norm` is ours:
what the item itself says then is of unit scale when blocks begin to add to it, as in SASRec; sparse logs need it.

Letters: U users, I items, d dims, Q histories, T time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn
from typing_extensions import override

from recdistill.models.base import model
from recdistill.models.sequential import Sequential
from recdistill.runtime import drawing
from recdistill.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.data.histories import Histories
    from recdistill.data.interactions import Interactions

__all__ = ["ADAREC", "NextItNet", "NextItNetSettings"]

PAPER = (
    "Yuan et al., A Simple Convolutional Generative Network for Next Item Recommendation, WSDM 2019, arXiv:1808.05163"
)

ADAREC: dict[str, Any] = {"dim": 256, "groups": 8, "dilations": (1, 4), "tied": False, "bias": True}
"""Settings of AdaRec's teacher: 6,316,048 parameters in its body."""


class NextItNetSettings(Settings):
    """NextItNet. Its loss is "cross-entropy"."""

    dim: int = Field(default=64, ge=1)
    """Width of item vectors and states."""
    groups: int = Field(default=2, ge=1)
    """How often the dilations are gone through; each time is a layer of its states."""
    dilations: tuple[int, ...] = Field(default=(1, 4), min_length=1)
    """Of a group's blocks: how far apart the items of the first convolution stand; twice that in the second."""
    kernel: int = Field(default=3, ge=1)
    """Items a convolution reads."""
    scale: Literal["rezero", "one"] = "rezero"
    """What a block's change is multiplied by: a number that starts at 0 and is learned, or 1."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the embedding."""
    head_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the last states."""
    norm: bool = False
    """Whether the embedding goes through a layer norm before the first block (published: no)."""
    length: int = Field(default=50, ge=1)
    """T, the most items of a history that are read."""
    tied: bool = False
    """Whether the output vectors are the input vectors."""
    bias: bool = False
    """Whether items have a bias."""
    every: bool = False
    """Learn from all of a long history, cut into windows, rather than from its last `length` + 1 items."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial vectors."""


class NextItNet(Sequential):
    """Residual blocks of dilated causal convolutions."""

    source: ClassVar[str] = "the NextItNet model"

    def __init__(self, histories: Histories, n_items: int, settings: NextItNetSettings, *, seed: int = 0) -> None:
        """Build for the items of `histories`; convolutions start from torch's own rule."""
        c = settings
        with drawing(seed, torch.device("cpu")):
            super().__init__(
                histories,
                n_items,
                dim=c.dim,
                length=c.length,
                tied=c.tied,
                bias=c.bias,
                every=c.every,
                init_std=c.init_std,
            )
            self.norm = nn.LayerNorm(c.dim, eps=1e-8) if c.norm else None
            self.drop, self.head_drop = nn.Dropout(c.dropout), nn.Dropout(c.head_dropout)
            self.blocks = nn.ModuleList(
                _Block(c.dim, c.kernel, dilation, learned=c.scale == "rezero")
                for _ in range(c.groups)
                for dilation in c.dilations
            )
        self._group = len(c.dilations)

    @property
    @override
    def body(self) -> nn.Module:
        return self.blocks

    @override
    def layers(self, vectors: Tensor, real: Tensor, *, both_ways: bool) -> list[Tensor]:
        del both_ways  # there is no such convolution here
        there = real[:, :, None].to(vectors.dtype)
        x = self.drop(vectors if self.norm is None else self.norm(vectors) * there)
        out = [x]
        for at, block in enumerate(self.blocks, start=1):
            x = block(x, there)
            if at % self._group == 0:
                out.append(x)
        return [*out, self.head_drop(x)]


class _Block(nn.Module):
    def __init__(self, dim: int, kernel: int, dilation: int, *, learned: bool) -> None:
        super().__init__()
        self.near = nn.Conv1d(dim, dim, kernel, dilation=dilation)
        self.far = nn.Conv1d(dim, dim, kernel, dilation=2 * dilation)
        self.first, self.second = nn.LayerNorm(dim, eps=1e-8), nn.LayerNorm(dim, eps=1e-8)
        self.scale = nn.Parameter(torch.zeros(1)) if learned else None

    @override
    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        h = F.relu(self.first(_causal(self.near, x))) * there
        h = F.relu(self.second(_causal(self.far, h))) * there
        return x + (h if self.scale is None else self.scale * h)


def _causal(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    """(Q, T, d) -> (Q, T, d); what stands before the beginning is 0."""
    before = (convolution.kernel_size[0] - 1) * convolution.dilation[0]
    return convolution(F.pad(x.transpose(1, 2), (before, 0))).transpose(1, 2)


@model("nextitnet", settings=NextItNetSettings, paper=PAPER)
def build(settings: NextItNetSettings, n_users: int, n_items: int, seed: int, train: Interactions) -> NextItNet:
    """A user is the history of the training interactions."""
    del n_users
    return NextItNet(train.histories(), n_items, settings, seed=seed)
