"""Draws without what a row already has: rejection against sorted keys, never a dense mask.

Every draw is a function of (key, row), whatever else is in the batch. Letters: Q rows, k draws, R list length, n keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from recdistill import rng
from recdistill.errors import TrainingError, problem
from recdistill.order import sorted_items

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.data.csr import Csr

__all__ = ["Taken", "first_distinct", "negatives", "outside"]

_ROUNDS = 8
"""Rounds of guessing before what is left is listed; 8 rounds fail only where nearly everything is taken."""

_BITS_A_KEY = 8
"""Bits of the sieve for each key: at most one question in nine passes it for nothing, for a byte a key."""
_ODD = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_AT_ONCE = 1 << 15
"""Interactions drawn for at a time: their hashes stay in a core's cache, and what is drawn is the same."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What each user row already has, searched by sorted keys on the device."""

    keys: Tensor
    """(n,) int64, `row * n_items + item`, ascending."""
    indptr: Tensor
    """(U + 1,) int64 where each row begins."""
    n_items: int
    sieve: Tensor
    """(2**b,) uint8: one bit for each hash of a key, so that most questions need no search."""

    @classmethod
    def of(cls, csr: Csr, device: torch.device) -> Taken:
        """From sorted rows of items."""
        return cls._of(torch.from_numpy(csr.keys).to(device), torch.from_numpy(csr.indptr).to(device), csr.n_columns)

    def turned(self) -> Taken:
        """What each item row already has: the users who have it."""
        n_rows = self.indptr.shape[0] - 1
        row, column = self.keys.div(max(self.n_items, 1), rounding_mode="floor"), self.keys % max(self.n_items, 1)
        keys = (column * n_rows + row).sort().values
        begin = torch.arange(self.n_items + 1, device=keys.device) * n_rows
        return Taken._of(keys, torch.searchsorted(keys, begin), n_rows)

    @classmethod
    def _of(cls, keys: Tensor, indptr: Tensor, n_columns: int) -> Taken:
        device = keys.device
        size = 1 << max((_BITS_A_KEY * len(keys) - 1).bit_length(), 3)
        bits = torch.zeros(size, dtype=torch.uint8, device=device)
        bits[_hashed(keys, size)] = 1
        shifts = torch.arange(8, dtype=torch.uint8, device=device)
        sieve = (bits.view(-1, 8) << shifts).sum(1, dtype=torch.uint8)
        return cls(keys, indptr, n_columns, sieve)

    def row(self, row: int) -> Tensor:
        """The items of one row, ascending."""
        return self.keys[int(self.indptr[row]) : int(self.indptr[row + 1])] - row * self.n_items

    def pairs(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(Q,) rows -> of all they have: (p,) which of them, (p,) the item, and (p,) its place among that one's."""
        start = self.indptr[rows]
        count = self.indptr[rows + 1] - start  # (Q,)
        which = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), count)
        place = torch.arange(len(which), device=rows.device) - (count.cumsum(0) - count)[which]
        return which, self.keys[start[which] + place] - rows[which] * self.n_items, place

    def log_q(self, rows: Tensor) -> Tensor:
        """(Q,) rows -> (Q, 1) float32 logarithm of the chance of each item a row does not have, in a uniform draw."""
        free = self.n_items - (self.indptr[rows + 1] - self.indptr[rows])
        return -free.clamp(min=1).float().log()[:, None]

    def has(self, rows: Tensor, items: Tensor) -> Tensor:
        """(Q,), (Q, k) -> (Q, k) bool."""
        wanted = rows[:, None] * self.n_items + items
        place = _hashed(wanted, self.sieve.shape[0] * 8)
        byte = self.sieve.take(place >> 3)
        out = ((byte >> (place & 7).to(torch.uint8)) & 1).bool()
        maybe = out.nonzero(as_tuple=True)
        sought = wanted[maybe]
        if sought.shape[0]:
            found = torch.searchsorted(self.keys, sought).clamp_(max=self.keys.shape[0] - 1)
            out[maybe] = self.keys[found] == sought
        return out


def _hashed(keys: Tensor, size: int) -> Tensor:
    """(...) int64 keys -> (...) int64 in [0, size), size a power of 2: the top bits of a product."""
    bits = size.bit_length() - 1
    return ((keys * _ODD) >> (64 - bits)) & (size - 1)


def outside(key: int, rows: Tensor, k: int, taken: Taken, *, more: Tensor | None = None, distinct: bool) -> Tensor:
    """Items drawn uniformly from what `rows` do not have.

    Args:
        key: of `rng.key`; fresh for every purpose and epoch.
        rows: (Q,) int64 user rows, in [0, U). Equal rows draw equal items.
        k: draws a row.
        taken: what must not be drawn.
        more: (Q, R) ascending item rows that must not be drawn either (-1 = none).
        distinct: without replacement; a row with fewer than k items left is padded with -1 at its end.

    Returns:
        (Q, k) int64 item rows.

    Raises:
        TrainingError: `distinct` is off and a row has every item.
    """
    return _draw(key, rows, rows, k, taken, more=more, distinct=distinct)


def negatives(key: int, users: Tensor, n: int, taken: Taken, *, place: Tensor | None = None) -> Tensor:
    """(B,) users of interactions -> (B, n) items their users do not have, with replacement.

    Interaction b draws by its place (B,), b when None, so a user's interactions draw different items. Errors as for
    `outside`.
    """
    place = torch.arange(users.shape[0], device=users.device) if place is None else place
    parts = zip(place.split(_AT_ONCE), users.split(_AT_ONCE), strict=True)
    drawn = [_draw(key, part, of, n, taken, more=None, distinct=False) for part, of in parts]
    return torch.cat(drawn) if drawn else users.new_empty(0, n)


def _draw(
    key: int, place: Tensor, rows: Tensor, k: int, taken: Taken, *, more: Tensor | None, distinct: bool
) -> Tensor:
    out = torch.full((rows.shape[0], k), -1, dtype=torch.int64, device=rows.device)
    width = k + 8 + k // 4 if distinct else k
    todo = torch.arange(rows.shape[0] if k else 0, device=rows.device)
    for attempt in range(_ROUNDS):
        if todo.shape[0] == 0:
            return out
        drawn = rng.integers(key + attempt, place[todo], width, taken.n_items)  # (t, w)
        bad = taken.has(rows[todo], drawn)
        if more is not None:
            bad |= _in_sorted(more[todo], drawn)
        drawn.masked_fill_(bad, -1)
        had = out[todo]  # (t, k)
        now = first_distinct(torch.cat([had, drawn], 1), k) if distinct else torch.where(had >= 0, had, drawn)
        out[todo] = now
        todo = todo[(now < 0).any(1)]
    for t in todo.tolist():  # rows that have nearly every item: list what is left
        free = torch.ones(taken.n_items, dtype=torch.bool, device=rows.device)
        free[taken.row(int(rows[t]))] = False
        if more is not None:
            free[more[t][more[t] >= 0]] = False
        left = free.nonzero()[:, 0]
        if distinct:
            order = rng.bits(key + _ROUNDS, left, 1)[:, 0] ^ rng.bits(key, place[t : t + 1], 1)[0]
            out[t] = -1
            chosen = left[order.argsort(stable=True)][:k]
            out[t, : chosen.shape[0]] = chosen
        elif left.shape[0] == 0:
            msg = problem(
                f"A user has all {taken.n_items} items, so no other can be drawn",
                remedy="Drop such users by a filter, or add items",
            )
            raise TrainingError(msg)
        else:
            out[t] = left[rng.integers(key + _ROUNDS, place[t : t + 1], k, left.shape[0])[0]]
    return out


def _in_sorted(lists: Tensor, items: Tensor) -> Tensor:
    """(t, R) ascending, (t, w) -> (t, w) bool: whether each item is in its row's list."""
    place = torch.searchsorted(lists, items.to(lists.dtype)).clamp_(max=lists.shape[1] - 1)  # (t, w)
    return lists.gather(1, place) == items


def first_distinct(items: Tensor, k: int) -> Tensor:
    """(t, w) items, -1 = none -> (t, k) the first k distinct ones in their order, -1 past the end."""
    ordered, place = sorted_items(items)
    again = torch.zeros_like(ordered, dtype=torch.bool)
    torch.eq(ordered[:, 1:], ordered[:, :-1], out=again[:, 1:])
    good = torch.zeros_like(again).scatter_(1, place, ~again & (ordered >= 0))  # (t, w)
    slot = torch.where(good, good.cumsum(1) - 1, k).clamp_(max=k)  # what does not fit goes to a spare column
    out = items.new_full((items.shape[0], k + 1), -1).scatter_(1, slot, items)
    return out[:, :k]
