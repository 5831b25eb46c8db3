"""Batches of a stream: interactions whose negatives avoid more than the training items, entities, and replayed pairs.

Letters: B rows of a batch, N negatives, n in all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from recdistill import rng
from recdistill.data.batches import InteractionBatches
from recdistill.data.csr import Csr
from recdistill.data.draws import Taken
from recdistill.query import Batch, Query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from recdistill.continual.settings import Training
    from recdistill.data.interactions import Interactions
    from recdistill.query import Side

__all__ = ["EntityBatches", "PairBatches", "Pairs", "SoftBatch", "avoiding"]


def avoiding(
    train: Interactions, training: Training, *, avoid: Csr | None, seed: int, device: torch.device
) -> InteractionBatches:
    """Interactions with negatives outside what their user has in training and in `avoid` (U x I).

    Of a user whom both leave nothing to draw `avoid` is not heeded, as may happen in a small catalogue.
    """
    batches = InteractionBatches(train, size=training.batch, negatives=training.negatives, seed=seed, device=device)
    if avoid is not None and len(avoid):
        own = train.csr()
        both = own.union(avoid)
        full = both.degrees >= both.n_columns
        if full.any():
            both = own.union(avoid.select(np.where(full, -1, np.arange(avoid.n_rows))))
        batches.taken = Taken.of(both, device)
    return batches


class EntityBatches:
    """Each of some users, or items, once an epoch, in a new order."""

    def __init__(self, ids: NDArray[np.integer], *, size: int, side: Side, seed: int, device: torch.device) -> None:
        """Batches of `size` of `ids` (n,); the last one may be shorter."""
        self._ids = torch.from_numpy(ids.astype("int64")).to(device)
        self._size, self._seed = size, seed
        self._side: Side = side

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self._ids) / self._size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from batch `start` on."""
        order = torch.from_numpy(rng.permutation(rng.key(self._seed, "entities", epoch), len(self._ids)))
        for step, part in enumerate(order.split(self._size)):
            if step < start:
                continue
            ids = self._ids[part]
            nothing = ids.new_empty(0)
            key = rng.key(self._seed, "noise", epoch, step)
            yield Batch(Query(ids, side=self._side, key=key), nothing, ids.new_empty(0, 1))


class Pairs(Protocol):
    """Pairs of which a part may be missing, drawn anew now and then."""

    n: int
    """Places for pairs; always as many."""

    def drawn(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """(n,) users, items and labels as of an epoch; -1 among items = no pair."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class SoftBatch(Batch):
    """Pairs with labels between 0 and 1."""

    label: Tensor
    """(B,) float32."""


class PairBatches:
    """Every pair once an epoch, in a new order; a place without a pair weighs 0."""

    def __init__(self, pairs: Pairs, *, size: int, seed: int) -> None:
        """Batches of `size` places."""
        self._pairs, self._size, self._seed = pairs, size, seed

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(self._pairs.n / self._size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from batch `start` on."""
        user, item, label = self._pairs.drawn(epoch)
        order = torch.from_numpy(rng.permutation(rng.key(self._seed, "pairs", epoch), len(user)))
        for step, part in enumerate(order.split(self._size)):
            if step < start:
                continue
            there = item[part] >= 0
            yield SoftBatch(
                Query(user[part], key=rng.key(self._seed, "noise", epoch, step)),
                item[part].clamp(min=0),
                user.new_empty(len(part), 0),
                weight=there.float(),
                label=label[part],
            )
