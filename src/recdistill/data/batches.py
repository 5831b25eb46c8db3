"""Batches of interactions with sampled negatives; an epoch's order and draws are functions of (seed, epoch).

Letters: B interactions a batch, N negatives, n interactions in all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from recdistill import rng
from recdistill.data.draws import Taken, negatives
from recdistill.errors import TrainingError, UsageError, problem
from recdistill.query import Batch, Query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recdistill.data.interactions import Interactions

__all__ = ["InteractionBatches"]


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
        self._user = torch.from_numpy(train.user).to(device, torch.int64)
        self._item = torch.from_numpy(train.item).to(device, torch.int64)
        self.taken = Taken.of(train.csr(), device)
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
