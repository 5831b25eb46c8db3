"""64-bit names of events: the id that came with it, or what it says and which of its equals it is. numpy only.

The same event gets the same key from every file format, so a file that is read twice counts once. An event without an
id is named by (user, item, time, weight) and by its place among the equal events of its batch: two equal lines of one
file are two events, the same line in another batch is the same event again.

At 100 million events the chance that any two of them share a key by accident is 3 in 10,000.

Letters: n events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.ids import mixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["combined", "ordinals"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def combined(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Columns (n,) of 64-bit integers -> (n,) int64 hashes of their rows; the order of the columns counts."""
    key = np.full(len(columns[0]), len(columns), np.uint64)
    for column in columns:
        key = mixed((key + _GOLDEN) ^ mixed(column.astype(np.int64).view(np.uint64)))
    return key.view(np.int64)


def ordinals(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) keys -> (n,) how many equal keys stand before each."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    first = np.r_[True, ranked[1:] != ranked[:-1]][: len(keys)]
    begin = np.maximum.accumulate(np.where(first, np.arange(len(keys)), 0)) if len(keys) else order
    out = np.empty(len(keys), np.int64)
    out[order] = np.arange(len(keys)) - begin
    return out
