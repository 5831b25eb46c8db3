"""Ids that begin with a text, out of the sort permutation of an id table: two bisections, no scan.

Letters: n ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recdistill.ids import IdTable

__all__ = ["beginning_with"]

_DIGITS = 19  # of an int64


def beginning_with(ids: IdTable, text: str, limit: int) -> list[str | int]:
    """The first ids, in order of the table's sort, that begin with `text`.

    Args:
        ids: the table; integers begin with their decimal digits, the fewest digits first.
        text: may be empty.
        limit: how many at most, at least 1.
    """
    found = _texts(ids, text, limit) if ids.kind == "str" else _integers(ids, text, limit)
    return ids.external(found).tolist()


def _texts(ids: IdTable, text: str, limit: int) -> list[int]:
    arrays = ids.arrays()
    order, offsets, stored = arrays["order"], arrays["offsets"], arrays["bytes"]
    asked = text.encode()

    def head(place: int) -> bytes:
        row = int(order[place])
        begin = int(offsets[row])
        return stored[begin : min(begin + len(asked), int(offsets[row + 1]))].tobytes()

    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if head(middle) < asked else (low, middle)
    end = low
    while end < min(len(order), low + limit) and head(end) == asked:
        end += 1
    return order[low:end].tolist()


def _integers(ids: IdTable, text: str, limit: int) -> list[int]:
    arrays = ids.arrays()
    order, stored = arrays["order"], arrays["ids"]
    if not text:
        return order[:limit].tolist()
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and len(text) > 1):
        return []
    number, found = int(text), list[int]()
    for more in range(1 if number == 0 else _DIGITS + 1 - len(text)):
        bounds = [number * 10**more, (number + 1) * 10**more - 1]
        if bounds[0] > np.iinfo(np.int64).max or len(found) >= limit:
            break
        low = int(np.searchsorted(stored, bounds[0], side="left", sorter=order))
        high = int(np.searchsorted(stored, min(bounds[1], int(np.iinfo(np.int64).max)), side="right", sorter=order))
        found.extend(order[low : min(high, low + limit - len(found))].tolist())
    return found
