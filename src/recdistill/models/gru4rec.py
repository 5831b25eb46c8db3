"""GRU4Rec: a recurrent network over what a user did. Hidasi et al., ICLR 2016, arXiv:1511.06939.

The published model walks through sessions in parallel, one item a step, and takes negatives from its batch; here whole
histories are walked through, as in its later re-implementations, and losses are those of every other model.

Letters: U users, I items, d dims, Q histories, T time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
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

__all__ = ["GRU4Rec", "GRU4RecSettings"]

PAPER = "Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016, arXiv:1511.06939"


class GRU4RecSettings(Settings):
    """GRU4Rec. Train it with "cross-entropy"."""

    dim: int = Field(default=64, ge=1)
    """Width of item vectors and states."""
    layers: int = Field(default=1, ge=1)
    """Recurrent layers."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Of the embedding, and between layers."""
    length: int = Field(default=50, ge=1)
    """T, the most items of a history that are read."""
    tied: bool = True
    """Whether the output vectors are the input vectors."""
    bias: bool = False
    """Whether items have a bias."""
    every: bool = False
    """Learn from all of a long history, cut into windows, rather than from its last `length` + 1 items."""
    init_std: float = Field(default=0.05, gt=0)
    """Standard deviation of the initial vectors."""


class GRU4Rec(Sequential):
    """Gated recurrent layers."""

    source: ClassVar[str] = "the GRU4Rec model"

    def __init__(self, histories: Histories, n_items: int, settings: GRU4RecSettings, *, seed: int = 0) -> None:
        """Build for the items of `histories`; recurrent weights start from torch's own rule."""
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
            self.drop = nn.Dropout(c.dropout)
            self.recurrent = nn.ModuleList(nn.GRU(c.dim, c.dim, batch_first=True) for _ in range(c.layers))

    @property
    @override
    def body(self) -> nn.Module:
        return self.recurrent

    @override
    def layers(self, vectors: Tensor, real: Tensor, *, both_ways: bool) -> list[Tensor]:
        del both_ways  # it walks one way
        # From the left: a network that first walked over padding would not begin with an empty memory.
        time = torch.arange(real.shape[1], device=real.device)
        before = (~real).sum(1, keepdim=True)  # (Q, 1) padding
        to_left, back = (time + before) % len(time), (time - before) % len(time)  # (Q, T)
        x = _moved(vectors, to_left)
        out = [vectors]
        for layer in self.recurrent:
            x, _ = layer(self.drop(x))
            out.append(_moved(x, back))
        return [*out, out[-1]]


def _moved(x: Tensor, place: Tensor) -> Tensor:
    """(Q, T, d), (Q, T) -> (Q, T, d) what stands at those places."""
    return x.gather(1, place[:, :, None].expand_as(x))


@model("gru4rec", settings=GRU4RecSettings, paper=PAPER)
def build(settings: GRU4RecSettings, n_users: int, n_items: int, seed: int, train: Interactions) -> GRU4Rec:
    """A user is the history of the training interactions."""
    del n_users
    return GRU4Rec(train.histories(), n_items, settings, seed=seed)
