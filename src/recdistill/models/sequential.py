"""What sequential models share: item vectors, histories, and a view of what a body makes of them.

A model is a body: (Q, T, d) vectors of items in, (Q, T, d) states out, causal unless a query says otherwise. Everything
else is here: left padding, asked positions, the served vectors of users (the last states of their histories).

Letters: U users, I items, d dims, Q histories, T time, P asked positions, L layers, m rows asked.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from recdistill.data.sequences import SequenceBatches
from recdistill.errors import MissingKnowledge
from recdistill.evaluation.encoded import EncodedRanker
from recdistill.knowledge.view import Kind
from recdistill.models.base import Recommender
from recdistill.models.sequence_view import SequenceView, by_length
from recdistill.query import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from recdistill.data.histories import Histories
    from recdistill.data.interactions import Interactions
    from recdistill.models.base import LearningBatches
    from recdistill.models.memory import Memory
    from recdistill.runtime import Precision

__all__ = ["Ending", "Sequential"]

_AT_ONCE = 1 << 14
"""Positions encoded at a time where no gradient is wanted."""


class Sequential(Recommender):
    """Score `<h, q_i> + b_i` of the state h at the asked position of a history, and the output vector of item i."""

    provides: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES, Kind.RANKS, Kind.VECTORS, Kind.STATES})
    kind: ClassVar[str] = "vectors"
    ordered: ClassVar[bool] = True
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "bfloat16")
    source: ClassVar[str]
    """How errors call it."""

    def __init__(
        self,
        histories: Histories,
        n_items: int,
        *,
        dim: int,
        length: int,
        tied: bool,
        bias: bool,
        every: bool,
        init_std: float,
    ) -> None:
        """Hold the histories that user rows stand for; what is drawn comes from torch's generator.

        Args:
            histories: U rows, the training log's.
            n_items: I.
            dim: d.
            length: T, the most items of a history that are read.
            tied: whether the output vectors are the input vectors.
            bias: whether items have a bias.
            every: whether training cuts long histories into windows, or learns their end alone.
            init_std: standard deviation of the initial vectors.
        """
        super().__init__()
        self.n_users, self.n_items, self.dim, self.length, self.every = histories.n_rows, n_items, dim, length, every
        self.histories = histories
        self.memory: Memory | None = None
        self.item = nn.Parameter(torch.empty(n_items, dim).normal_(0, init_std))
        self.out = None if tied else nn.Parameter(torch.empty(n_items, dim).normal_(0, init_std))
        self.bias = nn.Parameter(torch.zeros(n_items)) if bias else None

    # what a model is

    @abstractmethod
    def layers(self, vectors: Tensor, real: Tensor, *, both_ways: bool) -> list[Tensor]:
        """What enters the first layer, what leaves every layer, and last what is read: (Q, T, d) each.

        Args:
            vectors: (Q, T, d) of items, 0 at padding.
            real: (Q, T) bool, what is no padding; it stands on the left.
            both_ways: whether a position sees what comes after it.
        """

    @property
    @abstractmethod
    def body(self) -> nn.Module:
        """What stands between the embedding and the output."""

    def embedded(self, history: Tensor) -> Tensor:
        """(Q, T) item rows -> (Q, T, d) input vectors, 0 at padding."""
        vectors = self.item.index_select(0, history.clamp(min=0).flatten()).view(*history.shape, self.dim)
        return vectors * (history != -1)[:, :, None]

    def parts(self, history: Tensor) -> list[tuple[Tensor | None, int]]:
        """(Q, T) -> rows (q,), None = all, and a width that holds them: what is encoded apart from the rest."""
        return by_length(history)

    def check(self, query: Query) -> None:
        """Refuse a query whose answer would not be what this model has learned.

        Raises:
            MissingKnowledge: hidden items are asked of a model that reads one way.
        """
        if query.both_ways:
            remedy = "Teach the next item (of a BERT4Rec student, its second stage), or use a method of ranked lists"
            raise MissingKnowledge("the hidden items of a text that is read both ways", self.source, remedy)

    def asked_at_end(self, history: Tensor) -> tuple[Tensor, bool]:
        """(Q, T) what is read when a history is asked at its end, and whether it is read both ways."""
        return history[:, -self.length :], False

    @property
    def reads(self) -> int:
        """The most items of a history that `ending` is given."""
        return self.length

    def ending(self) -> Ending:
        """(Q, T, d) input vectors, 0 at padding, (Q, T) bool -> (Q, d or d + 1): vectors of histories at their ends.

        It shares the weights, computes what `encode` does with as little as that takes, and is what is exported.
        """
        return Ending(self)

    # what all of them answer

    @property
    def n_body(self) -> int:
        """Parameters without embeddings and output."""
        return sum(p.numel() for p in self.body.parameters())

    def served_items(self) -> Tensor:
        """(I, d) output vectors; with biases (I, d + 1), against a 1 in every state."""
        out = self.item if self.out is None else self.out
        return out if self.bias is None else torch.cat([out, self.bias[:, None]], 1)

    def history_of(self, rows: Tensor) -> Tensor:
        """(m,) user rows, -1 = nobody -> (m, T) the ends of their histories, padded on the left with -1."""
        found = self.histories.padded(rows.cpu().numpy(), self.length)
        return torch.from_numpy(found).to(self.item.device)

    @override
    def view(self, query: Query) -> SequenceView:
        return SequenceView(self, query)

    @override
    def batches(
        self, train: Interactions, *, size: int, negatives: int, seed: int, device: torch.device
    ) -> LearningBatches:
        return SequenceBatches(
            train,
            length=self.length,
            size=size,
            negatives=negatives,
            every=self.every,
            seed=seed,
            device=device,
        )

    def encode(self, histories: Histories, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(m,) rows of histories -> (m, d or d + 1) their last states, without dropout."""
        order = np.argsort(histories.lengths[rows], kind="stable")
        step = max(1, _AT_ONCE // self.length)
        out = np.empty((len(rows), self.dim + (self.bias is not None)), np.float32)
        training = self.training
        self.eval()
        with torch.no_grad():
            for start in range(0, len(rows), step):
                some = order[start : start + step]
                history = torch.from_numpy(histories.padded(rows[some], self.length)).to(self.item.device)
                asked = Query(torch.zeros(len(some), dtype=torch.int64, device=history.device), history=history)
                out[some] = self.view(asked).vectors().cpu().numpy()
        self.train(training)
        return out

    @override
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The last states of the training histories, and the output vectors."""
        everybody = np.arange(self.n_users, dtype=np.int64)
        return {"user": self.encode(self.histories, everybody), "item": self._item_array()}

    @override
    def ranker(self) -> EncodedRanker:
        """Encodes the histories of those it is asked for; evaluation gives it those of its stage."""
        return EncodedRanker(self.encode, self._item_array(), self.histories)

    def _item_array(self) -> NDArray[np.float32]:
        return self.served_items().detach().cpu().numpy()


class Ending(nn.Module):
    """What a model makes of the end of histories; for `Sequential.ending`."""

    def __init__(self, model: Sequential) -> None:
        """`model` is asked for its layers."""
        super().__init__()
        self.model = model

    @override
    def forward(self, vectors: Tensor, real: Tensor) -> Tensor:
        """(Q, T, d), (Q, T) -> (Q, d); with biases (Q, d + 1), a 1 after each."""
        states = self.states(vectors, real)[:, -1] * real[:, -1:]  # (Q, d)
        return states if self.model.bias is None else torch.cat([states, torch.ones_like(states[:, :1])], 1)

    def states(self, vectors: Tensor, real: Tensor) -> Tensor:
        """(Q, T, d), (Q, T) -> (Q, T, d) what is read."""
        return self.model.layers(vectors, real, both_ways=False)[-1]
