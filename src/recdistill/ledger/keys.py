"""64-bit names of events: the id that came with it, or what it says and which of its equals it is. numpy only.

The same event gets the same key from every file format, so a file that is read twice counts once. An event without an
id is named by (user, item, time, weight) and by its place among the equal events of its batch: two equal lines of one
file are two events, the same line in another batch is the same event again.

At 100 million events the chance that any two of them share a key by accident is 3 in 10,000.

Letters: n events, m distinct ids, w words of 8 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["combined", "of_text", "ordinals"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_CHUNK = 1 << 24  # bytes of padded text at a time


def of_text(texts: Sequence[str]) -> NDArray[np.int64]:
    """(m,) texts -> (m,) int64 hashes of their utf-8 bytes."""
    raw = [text.encode() for text in texts]
    lengths = np.fromiter(map(len, raw), np.int64, len(raw))
    out = np.empty(len(raw), np.uint64)
    step = max(1, _CHUNK // (int(lengths.max(initial=1)) + 8))
    for start in range(0, len(raw), step):
        size = lengths[start : start + step]
        width = max(8, -(-int(size.max()) // 8) * 8)
        words = np.array(raw[start : start + step], dtype=f"S{width}").view(np.uint64).reshape(len(size), -1)  # (m, w)
        mixed = _mixed(size.astype(np.uint64) + _GOLDEN)
        for column in range(words.shape[1]):
            mixed = np.where(size > 8 * column, _mixed((mixed ^ words[:, column]) * _GOLDEN), mixed)
        out[start : start + step] = mixed
    return out.view(np.int64)


def combined(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Columns (n,) of 64-bit integers -> (n,) int64 hashes of their rows; the order of the columns counts."""
    mixed = np.full(len(columns[0]), len(columns), np.uint64)
    for column in columns:
        mixed = _mixed((mixed + _GOLDEN) ^ _mixed(column.astype(np.int64).view(np.uint64)))
    return mixed.view(np.int64)


def ordinals(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) keys -> (n,) how many equal keys stand before each."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    first = np.r_[True, ranked[1:] != ranked[:-1]][: len(keys)]
    begin = np.maximum.accumulate(np.where(first, np.arange(len(keys)), 0)) if len(keys) else order
    out = np.empty(len(keys), np.int64)
    out[order] = np.arange(len(keys)) - begin
    return out


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))
