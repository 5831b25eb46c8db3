"""Who is like whom: a thresholded cosine of rows, sparse from beginning to end.

Letters: R rows, p pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.data.csr import Csr

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["alike"]

_PAIRS = 1 << 22


def alike(
    rows: Csr, *, degree: int = 10, low: float = 0.1, high: float = 0.9, stored: int = 64, crowded: int = 2_000
) -> Csr:
    """Rows whose cosine is at least a threshold, chosen so that a row has `degree` neighbours in the mean.

    Args:
        rows: R x C, each value counts 1: `cos(a, b) = |a and b| / sqrt(|a| |b|)`.
        degree: the mean number of neighbours wanted of rows that are not empty.
        low: the least threshold, and so what is stored.
        high: the greatest.
        stored: neighbours kept of a row before the threshold is known.
        crowded: a column that more rows hold is passed over: it makes nobody alike, and costs the square of itself.

    Returns:
        R x R, symmetric but for the limit `stored`, nobody a neighbour of itself.
    """
    n = rows.n_rows
    columns = rows.transposed()
    wide = columns.degrees > crowded
    if wide.any():
        keep = ~np.repeat(wide, columns.degrees)
        row = np.repeat(np.arange(columns.n_rows), columns.degrees)[keep]
        columns = Csr.from_pairs(row, columns.indices[keep], columns.n_rows, n)
    length = np.sqrt(np.maximum(rows.degrees, 1))
    cost = np.zeros(n, np.int64)
    np.add.at(cost, np.repeat(np.arange(n), rows.degrees), columns.degrees[rows.indices])
    spent = np.cumsum(cost)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    at = 0
    while at < n:
        before = spent[at - 1] if at else 0
        end = max(at + 1, int(np.searchsorted(spent, before + _PAIRS, side="right")))
        parts.append(_near(rows, columns, np.arange(at, end), length, low=low, stored=stored))
        at = end
    a, b, cosine = (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else (np.zeros(0),) * 3
    wanted = degree * int((rows.degrees > 0).sum())
    threshold = low if len(cosine) <= wanted else min(float(np.partition(cosine, -wanted)[-wanted]), high)
    kept = cosine >= threshold
    return Csr.from_pairs(a[kept], b[kept], n, n)


def _near(
    rows: Csr, columns: Csr, some: NDArray[np.int64], length: NDArray[np.float64], *, low: float, stored: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Of the rows `some`: (p,) row, (p,) neighbour, (p,) cosine, at least `low`, at most `stored` of a row."""
    mine = rows.select(some)
    asked = np.repeat(some, mine.degrees)
    reached = columns.select(mine.indices.astype(np.int64))
    key = np.repeat(asked, reached.degrees) * rows.n_rows + reached.indices
    pair, both = np.unique(key, return_counts=True)
    a, b = np.divmod(pair, rows.n_rows)
    cosine = both / (length[a] * length[b])
    good = (cosine >= low) & (a != b)
    a, b, cosine = a[good], b[good], cosine[good]
    order = np.lexsort((b, -cosine, a))
    a, b, cosine = a[order], b[order], cosine[order]
    first = np.arange(len(a)) - np.searchsorted(a, a) < stored
    return a[first], b[first], cosine[first]
