"""Tables of vectors as they are stored and searched: float32, float16, or int8 with a scale a row.

What a row of a compact table stands for is a float32 vector: the number itself, or the integer times its row's scale,
rounded once. Every score is one of that vector, so a compact table is searched as exactly as any; what it loses, it has
lost when it was made. It stays compact in memory: tiles become float32 in the cache, when they are multiplied.

Letters: n rows, d dims, m users or rows asked, T tiles, w tile width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.bundle.mapped import release
from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Tiles", "longest", "quantised", "taken"]

_CHUNK = 1 << 22  # numbers of a table that are read at a time
_CACHE = 1 << 16  # numbers that are made float32 at a time (256 KiB)
_HALF = np.float32(2.0**112)  # what a float16's bits, moved into a float32's places, are too small by
_LEVELS = 127


def quantised(table: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(n, d) floats -> (n, d) int8 in [-127, 127] and (n,) float32 scales: symmetric, the nearest integer.

    The greatest of each row keeps its value but for a rounding; an entry is off by at most half a scale, which is
    1/254 of its row's greatest.

    Raises:
        DataError: a number is not finite.
    """
    values, scale = np.empty(table.shape, np.int8), np.empty(len(table), np.float32)
    step = max(1, _CHUNK // max(table.shape[1], 1))
    for a in range(0, len(table), step):
        part = np.asarray(table[a : a + step], np.float32)
        greatest = np.abs(part).max(axis=1, initial=0)
        if not np.isfinite(greatest).all():
            raise DataError(problem("A table to quantise holds a number that is not finite", remedy="Train again"))
        scale[a : a + step] = greatest / _LEVELS
        each = np.maximum(scale[a : a + step], np.finfo(np.float32).tiny)[:, None]
        values[a : a + step] = np.clip(np.rint(part / each), -_LEVELS, _LEVELS)
    return values, scale


def taken(
    table: NDArray[Any], scale: NDArray[np.float32] | None, rows: NDArray[np.integer] | slice
) -> NDArray[np.float32]:
    """(m,) rows -> (m, d) float32: the vectors they stand for."""
    # `take` and not brackets: it lets other threads go on
    part = table[rows] if isinstance(rows, slice) else np.take(table, rows, axis=0)
    if scale is None:
        return np.asarray(part, np.float32)
    each = scale[rows] if isinstance(rows, slice) else np.take(scale, rows)
    return np.multiply(part, each[..., None], dtype=np.float32)


def longest(table: NDArray[Any], scale: NDArray[np.float32] | None, side: str, rows: NDArray[np.int64] | None) -> float:
    """The greatest length of the vectors of these rows; None = all, read a chunk at a time.

    Raises:
        DataError: one is not finite.
    """
    found, n = 0.0, len(table) if rows is None else len(rows)
    step = max(1, _CHUNK // 4 // table.shape[1])
    for a in range(0, n, step):
        at = slice(a, a + step)
        part = taken(table, scale, at if rows is None else rows[at])
        square = np.einsum("nd,nd->n", part, part, dtype=np.float64)
        wrong = np.flatnonzero(~(square < 1e37))
        if len(wrong):
            place = int(wrong[0])
            row = a + place if rows is None else int(rows[a + place])
            remedy = "Train again with a smaller learning rate, or mend the file the vectors came from"
            raise DataError(
                problem(
                    f"The vector of {side} row {row} is not made of finite numbers of use",
                    [float(x) for x in part[place][:4]],
                    allowed="lengths below 3e18",
                    remedy=remedy,
                )
            )
        found = max(found, float(square.max(initial=0.0)))
        if rows is None:
            release(table[at])
    return float(np.sqrt(found))


class Tiles:
    """A table of items in tiles (T, d, w), of the type it is stored in.

    Args:
        table: (n, d) float32, float16 or int8; may be memory-mapped: pages that were copied are let go.
        scale: (n,) float32, of int8.
        width: w; the last tile is padded with 0.
    """

    def __init__(self, table: NDArray[Any], scale: NDArray[np.float32] | None, width: int) -> None:
        n, d = table.shape
        count = -(-max(n, 1) // width)
        source = table.view(np.int16) if table.dtype == np.float16 else table
        self._packed = np.zeros((count, d, width), source.dtype)
        step = max(1, _CHUNK // (d * width))
        for a in range(0, n // width, step):
            b = min(a + step, n // width)
            part = source[a * width : b * width]
            self._packed[a:b] = part.reshape(b - a, width, d).transpose(0, 2, 1)
            release(part)
        if n % width:
            self._packed[-1, :, : n % width] = source[n // width * width :].T
        self._scale: NDArray[np.float32] | None = None
        if scale is not None:
            self._scale = np.zeros((count, 1, width), np.float32)
            self._scale.reshape(-1)[:n] = scale
        self._idle: list[NDArray[np.float32]] = []

    def fill(self, users: NDArray[np.float32], first: int, out: NDArray[np.float32]) -> None:
        """(m, d) float32 times t tiles from tile `first` on, into `out` (t, m, w)."""
        packed = self._packed[first : first + len(out)]
        if packed.dtype == np.float32:
            np.matmul(users, packed, out=out)
            return
        count, d, width = packed.shape
        step = max(1, _CACHE // (d * width))
        try:
            work = self._idle.pop()  # atomic, so that requests may share a table
        except IndexError:
            work = np.empty((step, d, width), np.float32)
        for a in range(0, count, step):
            b = min(a + step, count)
            part = work[: b - a]
            if self._scale is None:
                _widened(packed[a:b], part)
                np.matmul(users, part, out=out[a:b])
                continue
            part[...] = packed[a:b]
            scale = self._scale[first + a : first + b]
            if len(users) > d:
                part *= scale
                np.matmul(users, part, out=out[a:b])
            else:
                np.matmul(users, part, out=out[a:b])
                out[a:b] *= scale
        self._idle.append(work)


def _widened(bits: NDArray[np.int16], out: NDArray[np.float32]) -> None:
    """The bits of finite float16 -> float32, exactly; numpy's own conversion takes five times as long."""
    words = out.view(np.int32)
    words[...] = bits
    words <<= 13
    words &= np.int32(-0x70000001)  # sign, exponent and fraction; not the copies of the sign between them
    out *= _HALF
