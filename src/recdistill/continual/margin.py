"""How far apart scores are when an update begins, which is what a pairwise loss has left to ask.

BPR's gradient is `sigmoid(score of the negative - score of the positive)`. A student that was distilled from lists has
long vectors: a new pair, of a user and an item that were trained before, is far above random ones already, and what the
block teaches hardly moves it. Both tables times `sqrt(margin / now)` have that margin and rank as before. Whoever is
replayed beside it is shortened to at most the same margin, for a soft label `sigmoid(score)` of longer vectors would
stretch the learner's again; a teacher remembers itself (LWC) shortened by its own factor.

This is ours: neither the paper of CCD (Lee et al., KDD 2024) nor its code has it.

Letters: U users, I items, d dims, n pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from recdistill.continual.proxies import remembered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.continual.replay import Vectors
    from recdistill.continual.snapshot import Snapshot
    from recdistill.data.csr import Csr

__all__ = ["Margin", "begun_within"]

_PAIRS = 1 << 13
"""At a time."""


@dataclass(frozen=True, eq=False)
class Margin:
    """The most that scores may be apart when a block begins, measured on new pairs of who was trained before."""

    most: float | None
    """None leaves everything as it is."""
    user: NDArray[np.int64]
    """(n,) of training pairs of the block, both ends trained before."""
    item: NDArray[np.int64]
    """(n,)"""
    items: NDArray[np.int64]
    """Trained before, ascending."""

    @classmethod
    def on(cls, start: Snapshot, train: Csr, most: float | None) -> Margin:
        """On the training pairs (U x I) of a block, both ends of which `start` was trained on before it."""
        row, column = np.repeat(np.arange(train.n_rows), train.degrees), train.indices.astype(np.int64)
        known = start.met_users[row] & start.met_items[column]
        return cls(most, row[known], column[known], np.flatnonzero(start.met_items))

    def now(self, vectors: Vectors) -> float | None:
        """Mean score of such a pair, less that of its user and a random item trained before; None without a pair.

        Args:
            vectors: (U, d) and (I, d); of a model that knows fewer users or items, theirs alone count.
        """
        users, items = vectors
        there = (self.user < len(users)) & (self.item < len(items))
        row, column = self.user[there], self.item[there]
        if not len(row):
            return None
        total = 0.0
        for at in range(0, len(row), _PAIRS):
            user, item = users[row[at : at + _PAIRS]], items[column[at : at + _PAIRS]]
            total += float(np.einsum("nd,nd->n", user, item).sum(dtype=np.float64))
        asked = np.bincount(row, minlength=len(users)).astype(np.float32) @ users  # (d,), without a copy of the table
        other = items[self.items[self.items < len(items)]].mean(0, dtype=np.float64)
        return (total - float(asked @ other)) / len(row)

    def factor(self, vectors: Vectors) -> np.float32:
        """What both tables are multiplied by: at most 1, for nothing is stretched."""
        now = None if self.most is None else self.now(vectors)
        if self.most is None or now is None or now <= self.most:
            return np.float32(1)
        return np.float32(np.sqrt(self.most / now))

    def within(self, vectors: Vectors | None) -> Vectors | None:
        """Vectors of at most that margin; every ranking stays."""
        if vectors is None or (factor := self.factor(vectors)) == 1:
            return vectors
        return vectors[0] * factor, vectors[1] * factor


def begun_within(start: Snapshot, train: Csr, most: float | None, *more: Snapshot) -> tuple[Margin, list[Snapshot]]:
    """The margin of a block, and with it the model that begins there. Mult-VAE has none: its scores are a softmax's.

    Args:
        start: has rows for all of `train`.
        train: U x I, the block's training pairs.
        most: the margin; None changes nothing.
        more: others in the same space, which are shortened as `start` is.
    """
    vectors = None if most is None or start.spec.name == "vae" else remembered(start)
    if vectors is None:
        nobody = np.zeros(0, np.int64)
        return Margin(None, nobody, nobody, nobody), [start, *more]
    margin = Margin.on(start, train, most)
    factor = margin.factor(vectors)
    return margin, [_shortened(each, factor) for each in (start, *more)]


def _shortened(snapshot: Snapshot, factor: np.float32) -> Snapshot:
    if factor == 1:
        return snapshot
    tables = {name: np.asarray(snapshot.weights[name]) * factor for name in ("user", "item")}
    return replace(snapshot, weights={**snapshot.weights, **tables})
