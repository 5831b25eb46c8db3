"""Graphs of voyager, looked through before the library parses them.

An approximate index is a file of voyager (github.com/spotify/voyager, a small-world graph: Malkov and Yashunin, 2016,
arXiv:1603.09320). Its loader believes what a file says of itself: a wrong offset or link makes the process read where
it must not. So every number that it will follow is checked here first: sizes against the file, links against the
elements and their levels, labels against the rows, vectors against the bundle's own.

The file, little endian: a head (`_HEAD`); n elements of level 0, each a count, its links, its vector, its label; then
for every element the bytes of its links on higher levels, and these, a count and M links a level.

Letters: n elements, d dims, M links a level.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from recdistill.errors import BundleError, problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Vectors = Callable[[NDArray[np.int64]], NDArray[np.float32]]

__all__ = ["checked"]

_HEAD = struct.Struct("<4sIIBBfB6QiI3QdQ")
_INNER_PRODUCT, _FLOAT32 = 1, 32
_MOST_LINKS, _MOST_LEVELS = 512, 64
_CHUNK = 1 << 16


def checked(where: str, data: bytes, vectors: Vectors, shape: tuple[int, int]) -> None:
    """Refuse a file that is not an index of inner products over exactly these vectors.

    Args:
        where: how errors call it.
        data: the whole file.
        vectors: rows -> (m, d) float32, what the index must hold.
        shape: n and d.

    Raises:
        BundleError: it is anything else.
    """
    n, d = shape
    if len(data) < _HEAD.size:
        raise _refused(where, f"{len(data)} bytes, shorter than its head")
    head = _HEAD.unpack_from(data)
    (magic, version, dims, space, storage, longest, extended, zero, room, count, size, label_at, data_at) = head[:13]
    (top, entry, m, m0, m_again, _, _) = head[13:]
    if (magic, version) != (b"VOYA", 1):
        raise _refused(where, "no index of voyager, version 1")
    if (dims, space, storage, extended) != (d, _INNER_PRODUCT, _FLOAT32, 1):
        raise _refused(where, f"{dims} dimensions, space {space}, storage {storage}, not inner products of {d} float32")
    if (zero, room, count) != (0, n, n):
        raise _refused(where, f"{count:,} elements of {room:,}, not {n:,}")
    if not (0 < m <= _MOST_LINKS and m == m_again and m0 == 2 * m and np.isfinite(longest)):
        raise _refused(where, f"{m}, {m_again} and {m0} links")
    if (data_at, label_at, size) != (4 + 4 * m0, 8 + 4 * m0 + 4 * d, 16 + 4 * m0 + 4 * d):
        raise _refused(where, f"elements of {size} bytes with vectors at {data_at} and labels at {label_at}")
    if len(data) < _HEAD.size + n * (size + 4):
        raise _refused(where, f"{len(data):,} bytes, too few for its elements")
    levels = _levels(where, data, _HEAD.size + n * size, n, m)
    if not 0 <= top < _MOST_LEVELS or not 0 <= entry < n or levels[entry] != top or levels.max(initial=0) != top:
        raise _refused(where, f"an entry point {entry} on level {top}")
    _elements(where, data, vectors, (n, d, m0))


def _levels(where: str, data: bytes, at: int, n: int, m: int) -> NDArray[np.int64]:
    """(n,) the level of each element; every link of the higher levels is checked."""
    words = np.frombuffer(data, "<u4", (len(data) - at) // 4, at)
    if (len(data) - at) % 4:
        raise _refused(where, "a length that is not in words")
    levels = np.zeros(n, np.int64)
    starts = np.zeros(n, np.int64)
    filled = np.flatnonzero(words)
    place = element = 0  # elements without links are one zero word each: they are jumped over together
    while element < n:
        next_filled = int(np.searchsorted(filled, place))
        skip = min((int(filled[next_filled]) if next_filled < len(filled) else len(words)) - place, n - element)
        place, element = place + skip, element + skip
        if element == n:
            break
        if place >= len(words):
            raise _refused(where, "an end before its last element")
        level, rest = divmod(int(words[place]), 4 + 4 * m)
        if rest or not 0 < level < _MOST_LEVELS or place + 1 + level * (1 + m) > len(words):
            raise _refused(where, f"{int(words[place])} bytes of links at element {element}")
        levels[element], starts[element] = level, place + 1
        place, element = place + 1 + level * (1 + m), element + 1
    if place != len(words):
        raise _refused(where, "bytes after its last element")
    for level in range(1, int(levels.max(initial=0)) + 1):
        here = np.flatnonzero(levels >= level)
        for a in range(0, len(here), _CHUNK):
            begin = starts[here[a : a + _CHUNK]] + (level - 1) * (1 + m)
            lists = words[begin[:, None] + np.arange(1 + m)]  # (c, 1 + M)
            _links(where, lists[:, 0], lists[:, 1:], levels, level)
    return levels


def _elements(where: str, data: bytes, vectors: Vectors, sizes: tuple[int, int, int]) -> None:
    n, d, m0 = sizes
    element = np.dtype([("count", "<u4"), ("links", "<u4", (m0,)), ("vector", "<f4", (d + 1,)), ("label", "<u8")])
    table = cast("NDArray[Any]", np.frombuffer(data, element, n, _HEAD.size))
    labelled = np.zeros(n, np.bool_)
    all_levels = np.zeros(n, np.int64)
    for a in range(0, n, _CHUNK):
        part = table[a : a + _CHUNK]
        _links(where, part["count"], part["links"], all_levels, 0)
        if (part["label"] >= n).any():
            raise _refused(where, "a label that is no item")
        rows = part["label"].astype(np.int64)
        labelled[rows] = True
        same = np.array_equal(part["vector"][:, :d], vectors(rows)) and bool(np.isfinite(part["vector"]).all())
        if not same:
            raise _refused(where, "other vectors than the bundle")
    if not labelled.all():
        raise _refused(where, "labels that are no permutation of the items")


def _links(
    where: str, count: NDArray[np.uint32], links: NDArray[np.uint32], levels: NDArray[np.int64], level: int
) -> None:
    """(c,) counts and (c, M) links of one level: to elements that stand on it."""
    used = np.arange(links.shape[1]) < count[:, None]
    if (count > links.shape[1]).any() or (links[used] >= len(levels)).any() or (levels[links[used]] < level).any():
        raise _refused(where, "a link that leads nowhere")


def _refused(where: str, what: str) -> BundleError:
    remedy = "Build it again: recdistill export BUNDLE --format ann"
    return BundleError(problem(f"{where} is refused, and was not given to the library: it has {what}", remedy=remedy))
