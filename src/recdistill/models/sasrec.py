"""SASRec: self-attention over what a user did. Kang & McAuley, ICDM 2018, arXiv:1808.09781.

The default is the form in which it is usually compared (S3-Rec, RecBole): blocks with layer norm after each half, 4d
inner width, GELU, output vectors tied to the input vectors. `ADAREC` is the teacher of AdaRec's official code (Chen et
al., arXiv:2107.07173), with what its sheet calls defects mended: padding is not attended to.

Letters: U users, I items, d dims, Q histories, T time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from typing_extensions import override

from recdistill.models.base import model
from recdistill.models.sequential import Sequential
from recdistill.models.transformer import Activation, Form, Placed, Transformer
from recdistill.runtime import drawing
from recdistill.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.data.histories import Histories
    from recdistill.data.interactions import Interactions

__all__ = ["ADAREC", "SASRec", "SASRecSettings"]

PAPER = "Kang & McAuley, Self-Attentive Sequential Recommendation, ICDM 2018, arXiv:1808.09781"

ADAREC: dict[str, Any] = {
    "dim": 128,
    "layers": 8,
    "heads": 4,
    "inner": 128,
    "dropout": 0.2,
    "form": "rezero",
    "activation": "relu",
    "tied": False,
    "bias": True,
}
"""Settings of AdaRec's teacher: 664,840 parameters in its body."""


class SASRecSettings(Settings):
    """SASRec. Its published loss is "bce" with one negative; "cross-entropy" is the stronger one."""

    dim: int = Field(default=64, ge=1)
    """Width of item vectors and states."""
    layers: int = Field(default=2, ge=1)
    """Blocks."""
    heads: int = Field(default=2, ge=1)
    """Of each attention; they divide `dim`."""
    inner: int | None = Field(default=None, ge=1)
    """Width of the pointwise network; 4 `dim` when left out."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Of the embedding (but in the form "rezero"), of attention weights, of what each half of a block adds."""
    length: int = Field(default=50, ge=1)
    """T, the most items of a history that are read."""
    form: Form = "post"
    """Where the layer norms stand: "post", "pre", or "rezero"."""
    activation: Activation = "gelu"
    """ "gelu" or "relu"."""
    tied: bool = True
    """Whether the output vectors are the input vectors."""
    bias: bool = False
    """Whether items have a bias."""
    every: bool = False
    """Learn from all of a long history, cut into windows, rather than from its last `length` + 1 items."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights."""


class SASRec(Sequential):
    """Causal self-attention over item vectors and learned positions."""

    source: ClassVar[str] = "the SASRec model"

    def __init__(self, histories: Histories, n_items: int, settings: SASRecSettings, *, seed: int = 0) -> None:
        """Build for the items of `histories`.

        Raises:
            UsageError: the heads do not divide the width.
        """
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
            self.placed = Placed(
                c.length,
                c.dim,
                dropout=0.0 if c.form == "rezero" else c.dropout,
                norm=c.form == "post",
                init_std=c.init_std,
            )
            self.transformer = Transformer(
                dim=c.dim,
                layers=c.layers,
                heads=c.heads,
                inner=c.inner or 4 * c.dim,
                dropout=c.dropout,
                form=c.form,
                activation=c.activation,
                last_norm=c.form != "post",
                init_std=c.init_std,
            )

    @property
    @override
    def body(self) -> nn.Module:
        return self.transformer

    @override
    def layers(self, vectors: Tensor, real: Tensor, *, both_ways: bool) -> list[Tensor]:
        return self.transformer(self.placed(vectors), real, both_ways=both_ways)


@model("sasrec", settings=SASRecSettings, paper=PAPER)
def build(settings: SASRecSettings, n_users: int, n_items: int, seed: int, train: Interactions) -> SASRec:
    """A user is the history of the training interactions."""
    del n_users
    return SASRec(train.histories(), n_items, settings, seed=seed)
