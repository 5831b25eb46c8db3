"""Batches of histories; an epoch's order, draws and masks are functions of (seed, epoch).

Letters: U users, I items, n interactions, W windows, Q histories a batch, T time, P labels, N negatives.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.data.batches import crowded
from recdistill.data.draws import Taken, negatives
from recdistill.errors import TrainingError, UsageError, problem
from recdistill.query import MASK, Batch, Query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from recdistill.data.histories import Windows
    from recdistill.data.interactions import Interactions

__all__ = ["ClozeBatches", "SequenceBatches", "StagedBatches"]

_SHOWN = 128
"""Histories at a time, where all are gone through once."""


class _Sequences(ABC):
    """Every window of the histories once an epoch, in a new order."""

    def __init__(
        self,
        train: Interactions,
        *,
        length: int,
        least: int,
        every: bool,
        size: int,
        negatives: int,
        seed: int,
        device: torch.device,
    ) -> None:
        if size < 1:
            raise UsageError(problem("The batch size must be at least 1", size))
        if negatives < 0:
            raise UsageError(problem("The number of negatives must be at least 0", negatives))
        histories = train.histories()
        windows = histories.windows(length + 1, every=every, least=least)
        if len(windows) == 0:
            longest = int(histories.lengths.max(initial=0))
            what = f"There is no history of at least {least} items to learn from (the longest has {longest})"
            remedy = "Check the split and the filters of the log, or choose a model without an order"
            raise TrainingError(problem(what, remedy=remedy))
        self._items = torch.from_numpy(histories.items).to(device)  # (n,) int32
        self._row, self._start, self._stop = _on(windows, device)
        if negatives and (whole := crowded(train)) is not None:
            free = torch.from_numpy(~whole).to(device)[self._row.long()]
            self._row, self._start, self._stop = self._row[free], self._start[free], self._stop[free]
        self._n_items, self._n_negatives, self._size, self._seed = train.n_items, negatives, size, seed
        self._length = length
        self.taken = Taken.of(train.csr(), device)

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(self._row.shape[0] / self._size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from batch `start` on."""
        place = torch.arange(self._row.shape[0], device=self._row.device)
        words = rng.bits(rng.key(self._seed, "order", epoch), place, 1)[:, 0]
        order = torch.sort(words, stable=True).indices  # (W,)
        for step in range(start, len(self)):
            some = order[step * self._size : (step + 1) * self._size]
            yield self._batch(some, epoch, rng.key(self._seed, "model", epoch, step))

    @abstractmethod
    def _batch(self, some: Tensor, epoch: int, key: int) -> Batch:
        """The windows `some` (Q,) of an epoch; a model's own draws take `key`."""

    def _places(self, some: Tensor, *, ahead: int) -> tuple[Tensor, Tensor]:
        """(Q,) windows -> (Q, T) places of their items, `ahead` from the end left out; and which of them are real."""
        stop = self._stop[some] - ahead
        start = torch.maximum(self._start[some], stop - self._length)
        width = int((stop - start).max())
        place = stop[:, None] - torch.arange(width, 0, -1, device=some.device)  # (Q, T)
        return place, place >= start[:, None]

    def _made(self, query: Query, positive: Tensor, label: Tensor, epoch: int) -> Batch:
        """With negatives: a label draws by its place (P,) in the log, whatever else is in the batch."""
        assert query.at is not None  # noqa: S101 - of every batch of sequences
        user = query.row[query.at[:, 0]]  # (P,)
        key = rng.key(self._seed, "negatives", epoch)
        drawn = negatives(key, user, self._n_negatives, self.taken, place=label)  # (P, N)
        return Batch(query, positive, drawn, log_q=self.taken.log_q(user))


class SequenceBatches(_Sequences):
    """The next item at every position: histories of at most T items, and what came after each of them.

    Negatives are uniform over what the user does not have in training, fresh for every label and epoch.
    """

    def __init__(
        self,
        train: Interactions,
        *,
        length: int,
        size: int,
        negatives: int = 0,
        every: bool = False,
        least: int = 2,
        seed: int,
        device: torch.device,
    ) -> None:
        """Batches of `size` histories (the last one may be shorter).

        Args:
            train: the log.
            length: T, the most items of a history that a model reads.
            size: histories a batch, at least 1.
            negatives: items drawn for each label, at least 0.
            every: cut long histories into consecutive windows of T + 1 items; off, only the last of them is learned.
            least: windows of fewer items are dropped, at least 2.
            seed: of order and draws.
            device: where batches are made.

        Raises:
            UsageError: a size outside its range.
            TrainingError: no history is long enough.
        """
        common = {"size": size, "negatives": negatives, "seed": seed}
        super().__init__(train, length=length, least=max(least, 2), every=every, device=device, **common)

    def shown(self) -> Iterator[Tensor]:
        """Every history of an epoch, (Q, T) item rows padded on the left with -1, the shortest first."""
        order = torch.sort(self._stop - self._start, stable=True).indices  # (W,)
        for some in order.split(_SHOWN):
            place, real = self._places(some, ahead=1)
            yield torch.where(real, self._items[place.clamp(min=0)].long(), -1)

    @property
    def n_shown(self) -> int:
        """Items in all of them."""
        return int((self._stop - self._start - 1).clamp(max=self._length).sum())

    @override
    def _batch(self, some: Tensor, epoch: int, key: int) -> Batch:
        place, real = self._places(some, ahead=1)  # (Q, T)
        history = torch.where(real, self._items[place.clamp(min=0)].long(), -1)
        label = place[real] + 1  # (P,)
        query = Query(self._row[some], history=history, at=real.nonzero(), key=key)
        return self._made(query, self._items[label].long(), label, epoch)


class ClozeBatches(_Sequences):
    """Hidden items, to be guessed from both sides. Sun et al., BERT4Rec, CIKM 2019, arXiv:1904.06690, section 3.6.

    Each item is chosen with probability `share`, at least one a history. A chosen item is hidden by `MASK`, replaced by
    a random item with probability `swapped`, or left as it is with probability `kept`. Choice and replacement are
    functions of (seed, epoch, place in the log).
    """

    def __init__(
        self,
        train: Interactions,
        *,
        length: int,
        size: int,
        share: float = 0.2,
        swapped: float = 0.1,
        kept: float = 0.1,
        negatives: int = 0,
        every: bool = False,
        least: int = 2,
        seed: int,
        device: torch.device,
    ) -> None:
        """As for `SequenceBatches`, over the same windows, of which the last T items are read.

        Raises:
            UsageError: a size outside its range, or shares that are no probabilities.
            TrainingError: no history is long enough.
        """
        if not (0 < share <= 1 and swapped >= 0 and kept >= 0 and swapped + kept <= 1):
            allowed = "0 < share <= 1, 0 <= swapped, 0 <= kept, swapped + kept <= 1"
            raise UsageError(problem("The shares of a Cloze text", (share, swapped, kept), allowed=allowed))
        common = {"size": size, "negatives": negatives, "seed": seed}
        super().__init__(train, length=length, least=max(least, 2), every=every, device=device, **common)
        self._share, self._swapped, self._kept = share, swapped, kept

    @override
    def _batch(self, some: Tensor, epoch: int, key: int) -> Batch:
        place, real = self._places(some, ahead=0)  # (Q, T)
        item = self._items[place.clamp(min=0)].long()
        flat = place[real]  # (F,) places in the log
        drawn = rng.uniform(rng.key(self._seed, "cloze", epoch), flat, 2)  # (F, 2)
        chance = torch.full(real.shape, 2.0, device=real.device)
        chance[real] = drawn[:, 0]
        chosen = chance <= chance.min(1, keepdim=True).values.clamp(min=self._share)  # (Q, T) at least one a row
        what = torch.zeros_like(chance)
        what[real] = drawn[:, 1]
        other = torch.zeros_like(item)
        other[real] = rng.integers(rng.key(self._seed, "swapped", epoch), flat, 1, self._n_items)[:, 0]
        shown = torch.where(what < self._swapped, other, MASK)
        shown = torch.where(what >= 1 - self._kept, item, shown)
        history = torch.where(real, torch.where(chosen, shown, item), -1)
        query = Query(self._row[some], history=history, at=chosen.nonzero(), both_ways=True, key=key)
        return self._made(query, item[chosen], place[chosen], epoch)


class StagedBatches:
    """Batches of one kind in the first epochs, of another after them."""

    def __init__(self, first: _Sequences, then: _Sequences, *, epochs: int) -> None:
        """`epochs` of `first`, and then `then`; both of the same log and windows, so of as many batches."""
        assert len(first) == len(then)  # noqa: S101 - whoever builds them gives both the same settings
        self._first, self._then, self._epochs = first, then, epochs
        self.taken = then.taken

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._then)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from batch `start` on."""
        return (self._first if epoch < self._epochs else self._then).epoch(epoch, start=start)


def _on(windows: Windows, device: torch.device) -> list[Tensor]:
    return [torch.from_numpy(each).to(device) for each in (windows.row, windows.start, windows.stop)]
