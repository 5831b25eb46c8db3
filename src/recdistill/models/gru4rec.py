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
from recdistill.models.sequential import Ending, Sequential
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

    @override
    def ending(self) -> Ending:
        return _GatedEnding(self)


class _GatedEnding(Ending):
    """In an export the operator that ONNX has, which stops at each history's end by itself."""

    def __init__(self, model: GRU4Rec) -> None:
        super().__init__(model)
        self.gates = nn.ModuleList(_Gates(layer) for layer in model.recurrent if isinstance(layer, nn.GRU))

    @override
    def states(self, vectors: Tensor, real: Tensor) -> Tensor:
        if not torch.onnx.is_in_onnx_export():
            return super().states(vectors, real)
        length = real.sum(1, dtype=torch.int32).clamp(min=1)  # (Q,)
        place = torch.arange(real.shape[1]) + (real.shape[1] - length)[:, None]  # (Q, T)
        place = torch.where(place < real.shape[1], place, place - real.shape[1])
        x = _moved(vectors, place).transpose(0, 1)  # (T, Q, d)
        time, some, width = x.shape
        last = x[:1]
        for gates in self.gates:
            assert isinstance(gates, _Gates)  # noqa: S101 - ModuleList forgets what it holds
            x, last = torch.onnx.ops.symbolic_multi_out(
                "GRU",
                (x, gates.inner, gates.outer, gates.bias, length),
                {"hidden_size": width, "linear_before_reset": 1},
                dtypes=(x.dtype, x.dtype),
                shapes=((time, 1, some, width), (1, some, width)),
                version=14,
            )
            x = x[:, 0]  # (T, Q, d)
        return last.transpose(0, 1)  # (Q, 1, d)


class _Gates(nn.Module):
    """A copy of a layer's weights in ONNX's order of gates: update, reset, hidden; torch has reset first."""

    inner: Tensor
    outer: Tensor
    bias: Tensor

    def __init__(self, layer: nn.GRU) -> None:
        super().__init__()

        def ordered(name: str) -> Tensor:
            reset, update, hidden = layer.get_parameter(name).detach().chunk(3)
            return torch.cat([update, reset, hidden])[None]

        self.register_buffer("inner", ordered("weight_ih_l0"))  # (1, 3 d, d)
        self.register_buffer("outer", ordered("weight_hh_l0"))  # (1, 3 d, d)
        self.register_buffer("bias", torch.cat([ordered("bias_ih_l0"), ordered("bias_hh_l0")], 1))  # (1, 6 d)


def _moved(x: Tensor, place: Tensor) -> Tensor:
    """(Q, T, d), (Q, T) -> (Q, T, d) what stands at those places."""
    return x.gather(1, place[:, :, None].expand_as(x))


@model("gru4rec", settings=GRU4RecSettings, paper=PAPER)
def build(settings: GRU4RecSettings, n_users: int, n_items: int, seed: int, train: Interactions) -> GRU4Rec:
    """A user is the history of the training interactions."""
    del n_users
    return GRU4Rec(train.histories(), n_items, settings, seed=seed)
