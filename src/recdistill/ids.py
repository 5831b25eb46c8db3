"""External id <-> row, both directions typed; growth keeps old rows. numpy only.

An id is an int64 or a utf-8 string ("007" stays a string); its row is its place, 0..n-1. Strings are kept as bytes +
offsets + a sort permutation, so that a bundle maps them from disk and searches them by bisection; there is no
dictionary of strings.

Letters: n ids of the table, m ids asked, L bytes of the longest id asked.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from recdistill.errors import DataError, problem
from recdistill.external import as_ids, integers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from recdistill.external import ExternalIds

__all__ = ["IdKind", "IdTable", "mixed", "text_keys"]

IdKind = Literal["int", "str"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_FEW = 16  # ids that are searched for one by one
_CHUNK_BYTES = 1 << 24  # of a block of padded ids while searching
_DENSE_BYTES = 1 << 28  # above it, ids are sorted as Python bytes instead of a padded matrix


class IdTable:
    """External ids of users or of items, and their rows.

    Args:
        kind: "int" or "str".
        arrays: as `arrays` gives them; use `from_ids` or `from_arrays`.
    """

    __slots__ = ("_arrays", "kind")

    kind: IdKind

    def __init__(self, kind: IdKind, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.kind = kind
        self._arrays = dict(arrays)

    @classmethod
    def from_ids(cls, values: ExternalIds) -> IdTable:
        """Distinct external ids, in row order.

        Integers give an "int" table, strings a "str" table, a mixture a "str" table (12 becomes "12").

        Raises:
            DataError: an id occurs twice, is no integer or text, or does not fit int64.
        """
        ids = as_ids(values)
        if ids.dtype == np.int64:
            order = np.argsort(ids, kind="stable")
            ranked = ids[order]
            twice = np.flatnonzero(ranked[1:] == ranked[:-1])
            if len(twice):
                raise _repeated(int(ranked[twice[0]]))
            return cls("int", {"ids": ids, "order": order})
        text, offsets = _packed(ids)
        order = _sorted(text, offsets)
        table = cls("str", {"bytes": text, "offsets": offsets, "order": order})
        twice = table._repeats()
        if len(twice):
            raise _repeated(ids[order[twice[0]]])
        return table

    @classmethod
    def from_arrays(cls, kind: str, arrays: Mapping[str, NDArray[Any]]) -> IdTable:
        """The table that `arrays` described; the arrays may be memory-mapped and read-only.

        Only types, shapes and end points are checked: what lies between is not read.

        Raises:
            DataError: an array is missing, or their shapes do not belong together.
        """
        wanted = {"int": {"ids", "order"}, "str": {"bytes", "offsets", "order"}}.get(kind)
        if wanted is None:
            raise DataError(problem("The kind of an id table must be known", kind, allowed=["int", "str"]))
        if set(arrays) != wanted:
            raise DataError(
                problem(f"A table of {kind} ids needs other arrays", sorted(arrays), allowed=sorted(wanted))
            )
        for name, array in arrays.items():
            dtype = np.uint8 if name == "bytes" else np.int64
            if array.ndim != 1 or array.dtype != dtype:
                what = f"The id array {name!r} must be one-dimensional {np.dtype(dtype)}"
                raise DataError(problem(what, f"{array.dtype} {array.shape}"))
        n = len(arrays["order"])
        if kind == "int":
            sound = len(arrays["ids"]) == n
        else:
            offsets = arrays["offsets"]
            sound = len(offsets) == n + 1 and offsets[0] == 0 and offsets[-1] == len(arrays["bytes"])
        if not sound:
            shapes = {name: array.shape[0] for name, array in sorted(arrays.items())}
            raise DataError(problem(f"The arrays of a table of {kind} ids do not fit together", shapes))
        return cls("int" if kind == "int" else "str", arrays)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a bundle stores.

        int: `ids` int64 (n,) by row, `order` int64 (n,), the rows in ascending order of id.
        str: `bytes` uint8, `offsets` int64 (n + 1,), where each row's utf-8 begins, `order` int64 (n,), the rows in
        ascending order of their bytes.
        """
        return dict(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays["order"])

    def __repr__(self) -> str:
        head = ", ".join(repr(i) for i in self.external(np.arange(min(3, len(self)))).tolist())
        return f"IdTable({len(self):,} {self.kind} ids: {head}{', ...' if len(self) > 3 else ''})"

    def __eq__(self, other: object) -> bool:
        """Same kind, same ids, same rows."""
        if not isinstance(other, IdTable):
            return NotImplemented
        parts = ("ids",) if self.kind == "int" else ("bytes", "offsets")
        return self.kind == other.kind and all(np.array_equal(self._arrays[p], other._arrays[p]) for p in parts)

    __hash__ = None  # pyright: ignore[reportAssignmentType] - compared by content

    def rows(self, external: ExternalIds) -> NDArray[np.int64]:
        """(m,) external ids -> (m,) int64 rows, -1 = unknown.

        Few ids are bisected, O(m log n), and nothing of size n is made or read; many text ids, against m log n > n,
        are matched by 64-bit hashes and compared in full, O((m + n) log n).

        A table of ints accepts "12" too ("012" and "x" are unknown); a table of strings accepts 12 as "12".

        Raises:
            DataError: an id is no integer or text (a float, None, a bool).
        """
        ids = as_ids(external)
        if len(self) == 0 or len(ids) == 0:
            return np.full(len(ids), -1, np.int64)
        order = self._arrays["order"]
        if self.kind == "int":
            known = np.ones(len(ids), np.bool_)
            if ids.dtype != np.int64:
                ids, known = integers(ids)
            stored = self._arrays["ids"]
            place = np.minimum(np.searchsorted(stored, ids, sorter=order), len(order) - 1)
            row = order[place]  # (m,)
            return np.where(known & (stored[row] == ids), row, -1)
        if ids.dtype == np.int64:
            ids = np.array([str(i) for i in ids.tolist()], dtype=object)
        text, offsets = _packed(ids)
        many = len(ids) * len(self).bit_length() > len(self)
        return self._matched(text, offsets) if many else self._bisect(text, offsets)

    def external(self, rows: NDArray[np.int64] | Sequence[int]) -> NDArray[Any]:
        """Rows of any shape -> external ids of that shape: int64, or an object array of str.

        Raises:
            DataError: a row outside 0..n-1 (-1, "unknown", has no external id).
        """
        wanted = np.asarray(rows, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            worst = wanted.min() if wanted.min() < 0 else wanted.max()
            raise DataError(problem("A row has no external id", int(worst), allowed=f"0 to {len(self) - 1}"))
        if self.kind == "int":
            return self._arrays["ids"][wanted]
        distinct, inverse = np.unique(wanted, return_inverse=True)
        starts, ends = self._arrays["offsets"][distinct], self._arrays["offsets"][distinct + 1]
        text = self._arrays["bytes"]
        found = np.empty(len(distinct), dtype=object)
        found[:] = [text[s:e].tobytes().decode() for s, e in zip(starts.tolist(), ends.tolist(), strict=True)]
        return found[inverse.reshape(wanted.shape)]

    def grown(self, new: ExternalIds) -> IdTable:
        """The table with the ids of `new` that it lacks appended, in order of appearance; old rows keep their numbers.

        Raises:
            DataError: text that is no integer, for a table of ints.
        """
        ids = as_ids(new)
        if self.kind == "int" and ids.dtype != np.int64:
            numbers, sound = integers(ids)
            if not sound.all():
                what = "A table of integer ids cannot take in text"
                remedy = "Read the log with ids as text, so that the table holds strings from the start"
                raise DataError(problem(what, ids[np.flatnonzero(~sound)[0]], remedy=remedy))
            ids = numbers
        if self.kind == "str" and ids.dtype == np.int64:
            ids = np.array([str(i) for i in ids.tolist()], dtype=object)
        fresh = ids[self.rows(ids) < 0]
        if self.kind == "int":
            _, first = np.unique(fresh, return_index=True)
            return IdTable.from_ids(np.concatenate([self._arrays["ids"], fresh[np.sort(first)]]))
        distinct = np.array(list(dict.fromkeys(fresh.tolist())), dtype=object)
        text, offsets = _packed(distinct)
        text = np.concatenate([self._arrays["bytes"], text])
        offsets = np.concatenate([self._arrays["offsets"], self._arrays["offsets"][-1] + offsets[1:]])
        return IdTable("str", {"bytes": text, "offsets": offsets, "order": _sorted(text, offsets)})

    def _matched(self, text: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Packed strings -> (m,) rows, by hashes; where a hash is shared, by bisection."""
        own_text, own_offsets = self._arrays["bytes"], self._arrays["offsets"]
        own, asked = _hashes(own_text, own_offsets), _hashes(text, offsets)
        order = np.argsort(own, kind="stable")  # (n,)
        place = np.minimum(np.searchsorted(own, asked, sorter=order), len(order) - 1)
        row = order[place]
        meant = np.flatnonzero(own[row] == asked)  # the other ids are unknown
        lengths = np.diff(offsets)
        same = np.zeros(len(meant), np.bool_)
        step = max(1, _CHUNK_BYTES // max(1, int(lengths.max(initial=1))))
        for start in range(0, len(meant), step):
            part = meant[start : start + step]
            padded = _padded(text, offsets[part], lengths[part], int(lengths[part].max()))
            same[start : start + step] = _compare(own_text, own_offsets, row[part], padded, lengths[part]) == 0
        found = np.full(len(asked), -1, np.int64)
        found[meant[same]] = row[meant[same]]
        clash = meant[~same]  # another id of the same hash
        if len(clash):
            names = np.array(
                [text[s:e].tobytes().decode() for s, e in zip(offsets[clash], offsets[clash + 1], strict=True)],
                dtype=object,
            )
            found[clash] = self._bisect(*_packed(names))
        return found

    def _bisect(self, text: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """M packed strings -> (m,) rows, all bisections at once, in chunks of `_CHUNK_BYTES`."""
        m = len(offsets) - 1
        if m <= _FEW:
            return np.array([self._bisect_one(text[a:b].tobytes()) for a, b in pairwise(offsets.tolist())], np.int64)
        lengths = np.diff(offsets)
        found = np.empty(m, np.int64)
        step = max(1, _CHUNK_BYTES // max(1, int(lengths.max(initial=1))))
        for start in range(0, m, step):
            part = slice(start, min(start + step, m))
            asked = _padded(text, offsets[:-1][part], lengths[part], int(lengths[part].max()))  # (chunk, L)
            found[part] = self._bisect_padded(asked, lengths[part])
        return found

    def _bisect_one(self, asked: bytes) -> int:
        """The row of one id, -1 = unknown: for a few, a twentieth of what an array's steps cost."""
        order, offsets, text = self._arrays["order"], self._arrays["offsets"], self._arrays["bytes"]
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) >> 1
            row = order[middle]
            found = text[offsets[row] : offsets[row + 1]].tobytes()
            if found == asked:
                return int(row)
            low, high = (middle + 1, high) if found < asked else (low, middle)
        return -1

    def _bisect_padded(self, asked: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        order, offsets, text = self._arrays["order"], self._arrays["offsets"], self._arrays["bytes"]
        low = np.zeros(len(asked), np.int64)
        high = np.full(len(asked), len(order) - 1, np.int64)
        for _ in range(len(order).bit_length()):
            middle = (low + high) >> 1
            less = _compare(text, offsets, order[middle], asked, lengths) < 0
            low = np.where(less & (low < high), middle + 1, low)
            high = np.where(less, high, middle)
        row = order[low]
        return np.where(_compare(text, offsets, row, asked, lengths) == 0, row, -1)

    def _repeats(self) -> NDArray[np.int64]:
        """Places in the sort order whose id equals the next one's."""
        text, offsets, order = self._arrays["bytes"], self._arrays["offsets"], self._arrays["order"]
        lengths = np.diff(offsets)[order]
        same = np.flatnonzero(lengths[1:] == lengths[:-1])
        step = max(1, _CHUNK_BYTES // max(1, int(lengths.max(initial=1))))
        for start in range(0, len(same), step):
            part = same[start : start + step]
            size, longest = lengths[part], int(lengths[part].max())
            one = _padded(text, offsets[order[part]], size, longest)
            two = _padded(text, offsets[order[part + 1]], size, longest)
            equal = part[(one == two).all(axis=1)]
            if len(equal):
                return equal
        return np.zeros(0, np.int64)


def _compare(
    text: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int64],
    asked: NDArray[np.uint8],
    lengths: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The ids at `rows` (m,) against `asked` (m, L): negative where the stored id comes first, 0 where equal."""
    size = offsets[rows + 1] - offsets[rows]
    width = asked.shape[1]
    stored = _padded(text, offsets[rows], np.minimum(size, width), width)  # (m, L)
    if width == 0:
        return size
    unequal = stored != asked
    at = unequal.argmax(axis=1)
    line = np.arange(len(rows))
    difference = stored[line, at].astype(np.int64) - asked[line, at]
    return np.where(difference != 0, difference, size - lengths)  # equal as far as it goes: the shorter comes first


def text_keys(texts: Sequence[str]) -> NDArray[np.int64]:
    """(n,) texts -> (n,) int64 hashes of length and utf-8 bytes; the same on every machine, and in every version.

    Among 100 million texts the chance that any two share a hash is 3 in 10,000.

    Raises:
        DataError: a text holds half of a surrogate pair.
    """
    return _hashes(*_packed(np.array([*texts, None], object)[:-1])).view(np.int64)


def _hashes(text: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Packed strings -> (n,) hashes of length and bytes, eight bytes at a time."""
    lengths = np.diff(offsets)
    hashes = np.empty(len(lengths), np.uint64)
    step = max(1, _CHUNK_BYTES // (int(lengths.max(initial=1)) + 8))
    for start in range(0, len(lengths), step):
        size = lengths[start : start + step]
        width = max(8, -(-int(size.max()) // 8) * 8)
        words = _padded(text, offsets[start : start + len(size)], size, width).view(np.uint64)  # (chunk, width / 8)
        hashed = mixed(size.astype(np.uint64) + _GOLDEN)
        for column in range(words.shape[1]):
            hashed = np.where(size > 8 * column, mixed((hashed ^ words[:, column]) * _GOLDEN), hashed)  # no padding
        hashes[start : start + len(size)] = hashed
    return hashes


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """(n,) words, each bit of which changes half of the bits: the finaliser of SplitMix64 (Steele, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def _padded(
    text: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64], width: int
) -> NDArray[np.uint8]:
    """(m,) starts and lengths -> (m, width) bytes, 0 past the end."""
    if len(text) == 0 or width == 0:
        return np.zeros((len(starts), width), np.uint8)
    column = np.arange(width)
    if len(starts) * width > len(text):  # a copy of the text with room at its end, cut in rows, is cheaper
        roomy = np.concatenate([text, np.zeros(width, np.uint8)])
        cut = np.lib.stride_tricks.sliding_window_view(roomy, width)[starts]  # (m, width)
        cut[column[None, :] >= lengths[:, None]] = 0
        return cut
    inside = column[None, :] < lengths[:, None]  # (m, width)
    place = np.where(inside, starts[:, None] + column[None, :], 0)
    return np.where(inside, text[place], 0).astype(np.uint8, copy=False)


def _packed(ids: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(m,) object array of str -> their utf-8 bytes, (m + 1,) offsets."""
    strings = cast("list[str]", ids.tolist())
    joined = "".join(strings)
    try:
        encoded = joined.encode()
        pieces = strings if len(encoded) == len(joined) else [s.encode() for s in strings]
    except UnicodeEncodeError as error:
        value = joined[error.start : error.end]
        raise DataError(problem("An id holds half of a surrogate pair, which is no text", value)) from None
    offsets = np.zeros(len(strings) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=offsets[1:])
    return np.frombuffer(encoded, np.uint8), offsets


def _sorted(text: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows in ascending order of their bytes, a prefix before what it begins."""
    lengths = np.diff(offsets)
    width = int(lengths.max(initial=1)) or 1
    if len(lengths) * width > _DENSE_BYTES:
        flat = text.tobytes()
        cuts = offsets.tolist()
        return np.array(sorted(range(len(lengths)), key=lambda i: flat[cuts[i] : cuts[i + 1]]), np.int64)
    by_length = np.argsort(lengths, kind="stable")  # numpy drops trailing NULs when it compares: length breaks that tie
    fixed = _padded(text, offsets[:-1][by_length], lengths[by_length], width).view(f"S{width}")[:, 0]
    return by_length[np.argsort(fixed, kind="stable")]


def _repeated(value: object) -> DataError:
    return DataError(problem("An id occurs twice in a table of ids", value, remedy="Give each id once"))
