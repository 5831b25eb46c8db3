"""The frozen holdouts of a stream: which there are, which are measured, and what they hold out for ever.

Letters: U users, I items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.data.csr import Csr

if TYPE_CHECKING:
    from recdistill.ledger import Block, Stored
    from recdistill.stream.journal import Journal, Told

__all__ = ["held", "measured", "told"]


def told(journal: Journal, cycle: int) -> list[Told]:
    """Those up to a cycle, oldest first."""
    found = (journal.find(number, "holdout") for number in range(cycle + 1))
    return [line for line in found if line is not None]


def measured(journal: Journal, cycle: int, most: int) -> list[Stored]:
    """Those that are measured: all, or at most so many, spread evenly, the first and the newest in it."""
    lines = told(journal, cycle)
    chosen = np.unique(np.linspace(0, len(lines) - 1, min(len(lines), most)).round())
    return [journal.objects.get(lines[int(place)].object) for place in chosen.tolist()]


def held(journal: Journal, block: Block, *, before: int) -> Csr:
    """U x I of a block: what the holdouts of the cycles before `before` hold out for test."""
    found = [journal.objects.get(line.object).arrays for line in told(journal, before - 1)]
    none = np.zeros(0, np.int32)
    user, item = (np.concatenate([none, *(a[name] for a in found)]) for name in ("test_user", "test_item"))
    return Csr.from_pairs(user, item, block.users, block.items)
