"""How far apart the scores of two tables are, which is what a pairwise loss has left to ask.

BPR's gradient of a pair is `sigmoid(score of the negative - score of the positive)`: a student that was distilled from
lists has long vectors, its known pairs are far above random ones already, and what a new block teaches hardly moves it.
Both tables times `sqrt(margin / now)` have that margin and rank as before. This is ours: neither paper nor code has it.

Letters: U users, I items, d dims, n pairs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recdistill.continual.snapshot import Snapshot
    from recdistill.data.csr import Csr

__all__ = ["TABLES", "margin_of", "within"]

TABLES = ("user", "item")
"""Whose product is a score, of MF and of LightGCN."""
_PAIRS = 1 << 20
"""At a time."""


def margin_of(snapshot: Snapshot, train: Csr) -> float | None:
    """Mean score of a training pair, both ends trained before, less that of its user and a random trained item.

    Args:
        snapshot: of two tables, U x d and I x d.
        train: U x I, the block's training interactions.

    Returns:
        The margin; None where there is no such pair.
    """
    arrays = snapshot.model().arrays()
    users, items = arrays["user"], arrays["item"]
    row, column = np.repeat(np.arange(train.n_rows), train.degrees), train.indices
    known = snapshot.met_users[row] & snapshot.met_items[column]
    row, column = row[known], column[known]
    if not len(row):
        return None
    other = items[snapshot.met_items].mean(0, dtype=np.float64)
    total = 0.0
    for at in range(0, len(row), _PAIRS):
        user, item = users[row[at : at + _PAIRS]], items[column[at : at + _PAIRS]]
        total += float(np.einsum("nd,nd->", user, item - other, dtype=np.float64))
    return total / len(row)


def within(snapshot: Snapshot, train: Csr, margin: float) -> Snapshot:
    """A snapshot of two tables whose margin is at most `margin`: both are shortened alike, so every ranking stays."""
    now = margin_of(snapshot, train)
    if now is None or now <= margin:
        return snapshot
    factor = np.float32(np.sqrt(margin / now))
    tables = {name: np.asarray(snapshot.weights[name]) * factor for name in TABLES}
    return replace(snapshot, weights={**snapshot.weights, **tables})
