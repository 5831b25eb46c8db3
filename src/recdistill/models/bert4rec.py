"""BERT4Rec: first a Cloze over histories, then the next item, causally. Sun et al., CIKM 2019, arXiv:1904.06690.

The published model is the first stage alone: a history is asked with a hidden item at its end, read both ways. Such a
model has no honest answer at any other position, so it cannot teach position by position; AdaRec's second stage goes on
with the next item at every position, and leaves attention bidirectional, so that a position sees the item it is to
guess (sheet, sections 1 and 8.3). Here the second stage is causal, and what is served is the stage that was learned
last.

Letters: U users, I items, d dims, Q histories, T time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from typing_extensions import override

from recdistill.data.sequences import ClozeBatches, SequenceBatches, StagedBatches
from recdistill.errors import MissingKnowledge
from recdistill.models.base import model
from recdistill.models.sequential import Ending, Sequential
from recdistill.models.transformer import Activation, Form, Placed, Transformer
from recdistill.query import MASK
from recdistill.runtime import drawing
from recdistill.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.data.histories import Histories
    from recdistill.data.interactions import Interactions
    from recdistill.models.base import LearningBatches
    from recdistill.models.sequence_view import SequenceView
    from recdistill.query import Query

__all__ = ["ADAREC", "BERT4Rec", "BERT4RecSettings"]

PAPER = "Sun et al., BERT4Rec: Sequential Recommendation with BERT, CIKM 2019, arXiv:1904.06690"

ADAREC: dict[str, Any] = {
    "dim": 128,
    "layers": 8,
    "heads": 4,
    "inner": 512,
    "dropout": 0.1,
    "form": "pre",
    "tied": False,
    "bias": True,
    "share": 0.4,
}
"""Settings of AdaRec's teacher: 1,586,176 parameters in its body."""


class BERT4RecSettings(Settings):
    """BERT4Rec. Its loss is "cross-entropy"."""

    dim: int = Field(default=64, ge=1)
    """Width of item vectors and states."""
    layers: int = Field(default=2, ge=1)
    """Blocks."""
    heads: int = Field(default=2, ge=1)
    """Of each attention; they divide `dim`."""
    inner: int | None = Field(default=None, ge=1)
    """Width of the pointwise network; 4 `dim` when left out."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Of the embedding, of attention weights, of what each half of a block adds."""
    length: int = Field(default=50, ge=2)
    """T, the most items of a history that are read, a hidden one at its end included."""
    form: Form = "post"
    """Where the layer norms stand: "post", "pre", or "rezero"."""
    activation: Activation = "gelu"
    """ "gelu" or "relu"."""
    tied: bool = True
    """Whether the output vectors are the input vectors."""
    bias: bool = True
    """Whether items have a bias."""
    every: bool = False
    """Learn from all of a long history, cut into windows, rather than from its end."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights."""
    cloze: int = Field(default=100, ge=0)
    """Epochs of the first stage; 0 has the second alone, more epochs than there are has the first alone."""
    share: float = Field(default=0.2, gt=0, le=1)
    """Of a history's items, those to be guessed in the first stage."""
    swapped: float = Field(default=0.1, ge=0, le=1)
    """Of those to be guessed, the ones replaced by a random item."""
    kept: float = Field(default=0.1, ge=0, le=1)
    """Of those to be guessed, the ones left as they are; the rest is hidden."""


class BERT4Rec(Sequential):
    """Self-attention that learned to fill gaps."""

    source: ClassVar[str] = "the BERT4Rec model"
    causal: Tensor

    def __init__(self, histories: Histories, n_items: int, settings: BERT4RecSettings, *, seed: int = 0) -> None:
        """Build for the items of `histories`.

        Raises:
            UsageError: the heads do not divide the width.
        """
        c = settings
        self.settings = c
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
            self.hidden = nn.Parameter(torch.empty(c.dim).normal_(0, c.init_std))
            self.placed = Placed(c.length, c.dim, dropout=c.dropout, norm=c.form == "post", init_std=c.init_std)
            self.transformer = Transformer(
                dim=c.dim,
                layers=c.layers,
                heads=c.heads,
                inner=c.inner or 4 * c.dim,
                dropout=c.dropout,
                form=c.form,
                activation=c.activation,
                last_norm=False,
                init_std=c.init_std,
            )
        # part of the state: the best epoch may be of either stage, and each is asked in its own way
        self.register_buffer("causal", torch.tensor(c.cloze == 0))

    @property
    @override
    def body(self) -> nn.Module:
        return self.transformer

    @override
    def layers(self, vectors: Tensor, real: Tensor, *, both_ways: bool) -> list[Tensor]:
        return self.transformer(self.placed(vectors), real, both_ways=both_ways)

    @override
    def embedded(self, history: Tensor) -> Tensor:
        return torch.where((history == MASK)[:, :, None], self.hidden, super().embedded(history))

    @override
    def check(self, query: Query) -> None:
        """Of positions inside a history, only what was learned causally is honest, and after that only this.

        Raises:
            MissingKnowledge: a trained model is asked in the way of the stage it was not in last.
        """
        if self.training or query.at is None or query.both_ways != bool(self.causal):
            return
        what = "the hidden items of a text" if query.both_ways else "what follows each position of a history"
        other = "first" if query.both_ways else "second"
        remedy = f"It ended in its {'second' if query.both_ways else 'first'} stage: train its {other} one, see `cloze`"
        raise MissingKnowledge(what, self.source, remedy)

    @override
    def asked_at_end(self, history: Tensor) -> tuple[Tensor, bool]:
        if bool(self.causal):
            return super().asked_at_end(history)
        known = history[:, -1:] != -1
        hidden = torch.where(known, MASK, -1)  # nothing is asked after nothing
        return torch.cat([history[:, 1 - self.length :], hidden], 1), True

    @property
    @override
    def reads(self) -> int:
        return self.length if bool(self.causal) else self.length - 1

    @override
    def ending(self) -> Ending:
        return super().ending() if bool(self.causal) else _HiddenEnding(self)

    @override
    def view(self, query: Query) -> SequenceView:
        if self.training and query.at is not None:
            self.causal.fill_(not query.both_ways)
        return super().view(query)

    @override
    def batches(
        self, train: Interactions, *, size: int, negatives: int, seed: int, device: torch.device
    ) -> LearningBatches:
        c = self.settings
        then = SequenceBatches(
            train, length=c.length, size=size, negatives=negatives, every=c.every, seed=seed, device=device
        )
        if c.cloze == 0:
            return then
        first = ClozeBatches(
            train,
            length=c.length,
            size=size,
            share=c.share,
            swapped=c.swapped,
            kept=c.kept,
            negatives=negatives,
            every=c.every,
            seed=seed,
            device=device,
        )
        return StagedBatches(first, then, epochs=c.cloze)


class _HiddenEnding(Ending):
    """With a hidden item after each history, read both ways."""

    def __init__(self, model: BERT4Rec) -> None:
        super().__init__(model)
        self.hidden = model.hidden

    @override
    def forward(self, vectors: Tensor, real: Tensor) -> Tensor:
        known = real[:, -1:]  # (Q, 1): nothing is asked after nothing
        hidden = self.hidden * known[:, :, None]  # (Q, 1, d)
        return super().forward(torch.cat([vectors, hidden], 1), torch.cat([real, known], 1))

    @override
    def states(self, vectors: Tensor, real: Tensor) -> Tensor:
        return self.model.layers(vectors, real, both_ways=True)[-1]


@model("bert4rec", settings=BERT4RecSettings, paper=PAPER)
def build(settings: BERT4RecSettings, n_users: int, n_items: int, seed: int, train: Interactions) -> BERT4Rec:
    """A user is the history of the training interactions."""
    del n_users
    return BERT4Rec(train.histories(), n_items, settings, seed=seed)
