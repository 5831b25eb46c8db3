"""Small segments become larger ones: what an ingest costs does not grow with the number of ingests before it.

Sixteen segments of one size class become one of a higher class, as in a log-structured merge tree (O'Neil et al., Acta
Informatica 33, 1996): an event is written again once a class, and of each class at most fifteen files stand. A
segment counts as of the greatest class among itself and those after it, so that they stay in order.

Letters: n events of a segment.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from recdistill.ledger import segments
from recdistill.ledger.segments import Rows

if TYPE_CHECKING:
    from pathlib import Path

    from recdistill.ledger.index import Index

__all__ = ["FEW", "due", "merged"]

FEW = 16
"""Segments of one class that are left beside each other."""

Found = list[tuple[int, int, int, str]]
"""first, last, n and name of segments, in order."""


def due(index: Index, since: int) -> Found:
    """The newest segments that are to become one; empty while they are few.

    Args:
        index: where segments are recorded.
        since: number of the first event of the open block; what begins before it is left alone.
    """
    found = index.rows("SELECT first, last, n, name FROM segment WHERE first >= ? ORDER BY first", since)
    at, size, count, begin = len(found), 0, 0, len(found)
    while at:  # from the newest on
        at -= 1
        own = _class(found[at][2])
        if own > size:
            size, count = own, 0
        count += 1
        if count >= FEW:
            begin = at
    return [(first, last, n, name) for first, last, n, name in found[begin:]]


def merged(index: Index, folder: Path, found: Found) -> list[str]:
    """Put one segment in place of several; neighbours with other columns stay beside each other.

    Args:
        index: in a transaction.
        folder: of the files.
        found: neighbours, in order.

    Returns:
        The names of the files that are in no list any more: the caller removes them once the transaction is through.
    """
    parts = [(one, segments.read(folder / one[3])) for one in found]
    gone: list[str] = []
    for _, group in groupby(parts, key=lambda part: (part[1].timestamp is None, part[1].weight is None)):
        alike = list(group)
        if len(alike) < 2:
            continue
        rows = Rows.joined([each for _, each in alike])
        name, size = segments.write(folder, rows)
        first, last = alike[0][0][0], alike[-1][0][1]
        index.many("DELETE FROM segment WHERE first = ?", [(one[0],) for one, _ in alike])
        index.run("INSERT INTO segment VALUES (?, ?, ?, ?, ?)", first, last, len(rows), name, size)
        gone += [one[3] for one, _ in alike]
    recorded = index.rows("SELECT name FROM segment") if gone else []
    return sorted(set(gone) - {name for (name,) in recorded})  # segments that a forgetting has emptied share a file


def _class(n: int) -> int:
    """0 for up to FEW events, 1 for up to FEW times as many, ..."""
    size = 0
    while n > FEW ** (size + 1):
        size += 1
    return size
