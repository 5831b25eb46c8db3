"""Batches of interactions with sampled negatives; an epoch's order and draws are functions of (seed, epoch).

Letters: B interactions a batch, N negatives, n interactions in all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from recdistill import rng
from recdistill.data.draws import Taken, negatives
from recdistill.errors import TrainingError, UsageError, problem
from recdistill.query import Batch, Query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recdistill.data.interactions import Interactions

__all__ = ["InteractionBatches", "crowded", "crowded_note"]


def crowded(train: Interactions) -> NDArray[np.bool_] | None:
    """(U,) which users have every item, so that nothing can be drawn to compare with; None when there is none.

    Raises:
        TrainingError: every user with an interaction has every item.
    """
    have = train.csr().degrees  # (U,)
    whole = have >= train.n_items
    if not whole.any() or train.n_items == 0:
        return None
    if not ((have > 0) & ~whole).any():
        what = f"Every user has all {train.n_items:,} items, so there is nothing to compare with"
        raise TrainingError(problem(what, remedy="Give a log of more items, or the loss 'cross-entropy'"))
    return whole


def crowded_note(train: Interactions) -> str | None:
    """What people are told of users who have every item; None when there is none."""
    whole = crowded(train)
    if whole is None:
        return None
    rows = np.flatnonzero(whole)
    named = ", ".join(repr(user) for user in train.users.external(rows[:3]).tolist())
    more = ", ..." if len(rows) > 3 else ""
    return (
        f"{len(rows):,} user{'s have' if len(rows) > 1 else ' has'} every item ({named}{more}) and nothing to compare "
        "with: trained without their rows"
    )


class InteractionBatches:
    """Every interaction once an epoch, in a new order, with fresh negatives outside the user's training items.

    Negatives are uniform over all item rows, so that items held out elsewhere may be drawn, as in DE-RRD's official
    code (sheet section 4). They are drawn once an epoch, for the whole epoch, on the device.
    """

    def __init__(self, train: Interactions, *, size: int, negatives: int = 1, seed: int, device: torch.device) -> None:
        """Batches of `size` interactions (the last one may be shorter), each with `negatives` items.

        Raises:
            UsageError: `size` is under 1, or `negatives` under 0.
            TrainingError: there is no interaction to learn from.
        """
        if size < 1:
            raise UsageError(problem("The batch size must be at least 1", size))
        if negatives < 0:
            raise UsageError(problem("The number of negatives must be at least 0", negatives))
        if len(train) == 0:
            msg = problem("There is no interaction to learn from", remedy="Check the split and the filters of the log")
            raise TrainingError(msg)
        self.taken = Taken.of(train.csr(), device)
        whole = crowded(train) if negatives else None
        if whole is not None:
            train = train.take(np.flatnonzero(~whole[train.user]))
        self._user = torch.from_numpy(train.user).to(device, torch.int64)
        self._item = torch.from_numpy(train.item).to(device, torch.int64)
        self._size, self._negatives, self._seed = size, negatives, seed

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(self._user.shape[0] / self._size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from batch `start` on."""
        n, device = self._user.shape[0], self._user.device
        # `rng.permutation`, by torch's sort: a fifth of the time, and on the device
        words = rng.bits(rng.key(self._seed, "order", epoch), torch.arange(n, device=device), 1)[:, 0]
        order = torch.sort(words, stable=True).indices  # (n,)
        user, item = self._user[order], self._item[order]
        drawn = negatives(rng.key(self._seed, "negatives", epoch), user, self._negatives, self.taken)  # (n, N)
        for begin in range(start * self._size, n, self._size):
            part = slice(begin, begin + self._size)
            yield Batch(Query(user[part]), item[part], drawn[part], log_q=self.taken.log_q(user[part]))
