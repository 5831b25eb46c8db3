"""What Mult-VAE does otherwise on a stream: its own past as a divergence, others' knowledge as pseudo-labels.

Letters: U users, I items, Q users of a batch, d dims, n pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from typing_extensions import override

from recdistill import rng
from recdistill.knowledge.view import Kind
from recdistill.losses.kl import kl
from recdistill.objective import Term
from recdistill.query import Rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.continual.replay import Remembered, Vectors
    from recdistill.data.csr import Csr
    from recdistill.knowledge.view import View
    from recdistill.models.vae import VAE
    from recdistill.query import Batch

__all__ = ["Past", "imputing"]


class Past(Term):
    """`KL(old || new)` of the softmaxes over the items of before, of each user (official code of CCD)."""

    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.VECTORS})
    _user: Tensor
    _item: Tensor
    _everything: Tensor

    def __init__(self, old: Vectors, *, most: int = 256, seed: int = 0) -> None:
        """Take what the member scored with before the block; at most `most` users of a batch are asked at a step.

        The part of the others is estimated, so that (most, I) scores are all that there ever is.
        """
        super().__init__()
        held = {"user": old[0], "item": old[1], "everything": np.arange(len(old[1]))}
        for name, value in held.items():
            self.register_buffer(f"_{name}", torch.from_numpy(np.array(value)), persistent=False)
        self._most, self._seed = most, seed

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher
        ids = batch.users.ids
        ids = ids[ids < len(self._user)]
        scale = 1.0
        if len(ids) > self._most:
            word = rng.bits(rng.key(self._seed, "past", clock.epoch, clock.step), ids, 1)[:, 0]
            scale, ids = len(ids) / self._most, ids[word.argsort()[: self._most].sort().values]
        new = student.entities("user", ids) @ student.entities("item", self._everything).T  # (Q, I)
        return Rows(kl(new, self._user[ids] @ self._item.T) * scale, of="users")


def imputing(net: VAE, train: Csr, pairs: Remembered, value: float) -> Callable[[Clock], None]:
    """What a pass calls before each step: pairs that are due are drawn and written into the rows that `net` encodes.

    Args:
        net: who learns.
        train: U x I, its rows, each item counting 1; it keeps them where both are there.
        pairs: what the student's side knows.
        value: what a pair counts.
    """
    written = [-2]

    def begin(clock: Clock) -> None:
        user, item, _ = pairs.drawn(clock.epoch)
        if written[0] == int(pairs.term.when):
            return
        written[0] = int(pairs.term.when)
        net.told(*told(train, user, item, value))

    return begin


def told(train: Csr, user: Tensor, item: Tensor, value: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Begin (U + 1,), items (n,) and values (n,) of rows with pairs (-1 = none) written into them."""
    there = (item >= 0).cpu().numpy()
    more_user, more_item = user.cpu().numpy()[there], item.cpu().numpy()[there]
    new = ~train.contains(more_user, more_item)
    row = np.concatenate([np.repeat(np.arange(train.n_rows), train.degrees), more_user[new]])
    column = np.concatenate([train.indices.astype(np.int64), more_item[new]])
    worth = np.concatenate([np.ones(len(train), np.float32), np.full(int(new.sum()), value, np.float32)])
    order = np.lexsort((column, row))
    begin = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=train.n_rows))])
    return begin, column[order], worth[order]
