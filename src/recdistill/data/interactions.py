"""The log, inside: rows of users and items, optional times, weights and split; and what is held out of it.

Letters: n interactions, U users, I items, m users with a target.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np

from recdistill.data.csr import Csr
from recdistill.data.formats.roles import naming
from recdistill.data.histories import Histories
from recdistill.errors import DataError, UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from recdistill.ids import IdTable

__all__ = ["SPLITS", "HeldOut", "Interactions", "Split"]

SPLITS = ("train", "valid", "test")
"""The names of the codes 0, 1, 2 of `Interactions.split`."""

Keep = Literal["last", "first", "max"]
_COUNTED = 5_000_000  # interactions among which repeats are looked for, only to describe a log


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """An interaction log. The order of the rows is the order of the log."""

    users: IdTable
    """U external ids."""
    items: IdTable
    """I external ids."""
    user: NDArray[np.int32]
    """(n,) user rows."""
    item: NDArray[np.int32]
    """(n,) item rows."""
    timestamp: NDArray[np.int64] | None = None
    """(n,) Unix seconds, UTC."""
    weight: NDArray[np.float32] | None = None
    """(n,) rating, count or value, as in the source; finite."""
    split: NDArray[np.int8] | None = None
    """(n,) 0 train, 1 valid, 2 test, where the source gives a split."""
    notes: tuple[str, ...] = ()
    """What was inferred and what was dropped, one sentence each."""
    _csr: list[Csr] = field(default_factory=list["Csr"], init=False)
    _histories: list[Histories] = field(default_factory=list["Histories"], init=False)

    def __post_init__(self) -> None:
        n = len(self.user)
        for name in ("item", "timestamp", "weight", "split"):
            column = getattr(self, name)
            if column is not None and column.shape != (n,):
                raise DataError(problem(f"The column {name!r} of a log must have its {n} rows", column.shape))
        for name, rows, size in (("user", self.user, self.n_users), ("item", self.item, self.n_items)):
            if n and (rows.min() < 0 or rows.max() >= size):
                worst = int(rows.min() if rows.min() < 0 else rows.max())
                raise DataError(problem(f"A row of the column {name!r} has no id", worst, allowed=f"0 to {size - 1}"))

    @property
    def n_users(self) -> int:
        """U, users without an interaction included."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """I, items without an interaction included."""
        return len(self.items)

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        return f"Interactions({self.describe()})"

    def csr(self) -> Csr:
        """U x I: which items each user has, repeats once. Computed at the first call."""
        if not self._csr:
            self._csr.append(Csr.from_pairs(self.user, self.item, self.n_users, self.n_items))
        return self._csr[0]

    def histories(self) -> Histories:
        """What each user did, oldest first. Computed at the first call."""
        if not self._histories:
            self._histories.append(Histories.of(self))
        return self._histories[0]

    def in_time(self) -> NDArray[np.int64]:
        """(n,) places of the interactions, grouped by user, each group by time, ties by the order of the log."""
        by = self.timestamp
        return np.argsort(self.user, kind="stable") if by is None else np.lexsort((by, self.user))

    def describe(self) -> str:
        """One line for people: sizes, density, times, weights, split."""
        pairs = self.n_users * self.n_items
        parts = [f"{len(self):,} interactions, {self.n_users:,} users, {self.n_items:,} items"]
        if pairs:
            small = len(self) <= _COUNTED or bool(self._csr)
            distinct = len(self.csr()) if small else len(self)
            parts.append(f"density {'' if small else 'at most '}{distinct / pairs:.3%}")
            if distinct < len(self):
                parts.append(f"{len(self) - distinct:,} repeats")
        if self.timestamp is not None and len(self):
            parts.append(f"{_day(int(self.timestamp.min()))} to {_day(int(self.timestamp.max()))}")
        if self.weight is not None and len(self):
            parts.append(f"weights {self.weight.min():g} to {self.weight.max():g}")
        if self.split is not None:
            counts = np.bincount(self.split, minlength=len(SPLITS)).tolist()
            parts.append("given split " + ", ".join(f"{n} {c:,}" for n, c in zip(SPLITS, counts, strict=True)))
        return "; ".join(parts)

    def k_core(self, *, users: int = 1, items: int = 1) -> Interactions:
        """Drop users with fewer than `users` interactions and items with fewer than `items`, until none is left.

        Repeated pairs count each time: deduplicate first where that is not meant.
        """
        for name, least in (("users", users), ("items", items)):
            if least < 1:
                raise UsageError(problem(f"The {name} of a k-core must be at least 1", least))
        user, item = self.user, self.item
        kept = np.arange(len(self))
        rounds = 0
        while True:
            often = np.bincount(user, minlength=self.n_users)[user] >= users
            often &= np.bincount(item, minlength=self.n_items)[item] >= items
            if often.all():
                break
            kept, user, item = kept[often], user[often], item[often]
            rounds += 1
        how = f"at least {users} a user and {items} an item, {rounds} round{'s' if rounds != 1 else ''}"
        return self._filtered(kept, f"k-core ({how})")

    def at_least(self, rating: float) -> Interactions:
        """Keep interactions whose weight is `rating` or more.

        Raises:
            DataError: the log has no weights.
        """
        if self.weight is None:
            remedy = f"Name the column that holds the rating: {naming({'weight': None})}"
            raise DataError(problem("The log has no rating to filter by", remedy=remedy))
        return self._filtered(np.flatnonzero(self.weight >= rating), f"rating at least {rating:g}")

    def deduplicated(self, *, keep: Keep = "last") -> Interactions:
        """One interaction for each pair of user and item; the rows kept stay in the log's order.

        Args:
            keep: the first or the last of the repeats (by time, ties and logs without times by the log's order), or
                the one of the greatest weight (ties: the last).

        Raises:
            DataError: `keep="max"` of a log without weights.
        """
        if keep not in ("last", "first", "max"):
            raise UsageError(problem("Unknown way to choose among repeats", keep, allowed=["last", "first", "max"]))
        by = self.timestamp
        if keep == "max":
            if self.weight is None:
                raise DataError(problem("The log has no weights to keep the greatest of", remedy="Use keep='last'"))
            by = self.weight
        pair = self.user.astype(np.int64) * self.n_items + self.item
        order = np.argsort(pair, kind="stable") if by is None else np.lexsort((by, pair))  # (n,)
        ranked = pair[order]
        change = ranked[1:] != ranked[:-1]
        edge = np.r_[True, change] if keep == "first" else np.r_[change, True]
        return self._filtered(np.sort(order[edge[: len(order)]]), f"one interaction a pair, the {keep}")

    def take(self, index: NDArray[np.int64]) -> Interactions:
        """The interactions at `index`, over the same users and items."""
        return replace(
            self,
            user=self.user[index],
            item=self.item[index],
            timestamp=None if self.timestamp is None else self.timestamp[index],
            weight=None if self.weight is None else self.weight[index],
            split=None if self.split is None else self.split[index],
        )

    def _filtered(self, kept: NDArray[np.int64], why: str) -> Interactions:
        """The interactions at `kept`, ascending; users and items renumbered so that none is empty."""
        part = self.take(kept)
        here, user = _compact(part.user, self.n_users)
        there, item = _compact(part.item, self.n_items)
        gone = (len(self) - len(part), self.n_users - len(here), self.n_items - len(there))
        note = f"Kept {why}: {gone[0]:,} interactions, {gone[1]:,} users and {gone[2]:,} items went"
        if not len(part):
            remedy = "Ask for less"
            raise DataError(problem(f"Nothing is left of the log after the filter: {why}", remedy=remedy))
        return replace(
            part,
            users=self.users if gone[1] == 0 else type(self.users).from_ids(self.users.external(here)),
            items=self.items if gone[2] == 0 else type(self.items).from_ids(self.items.external(there)),
            user=user,
            item=item,
            notes=(*self.notes, note),
        )


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What is held out of a log for validation or for the test; no function that trains takes it."""

    name: Literal["valid", "test"]
    users: IdTable
    items: IdTable
    targets: Csr
    """U x I: what is to be found."""
    seen: Csr
    """U x I: what a ranking at this stage leaves out: train, and for the test also valid."""
    told: Callable[[], Histories] | None = field(default=None, repr=False)
    """Called at the first look at `histories`."""

    _histories: list[Histories] = field(default_factory=list["Histories"], init=False, repr=False)

    @property
    def histories(self) -> Histories | None:
        """What each user did before, oldest first: train, and for the test also valid; None where nobody says."""
        if not self._histories and self.told is not None:
            self._histories.append(self.told())
        return self._histories[0] if self._histories else None

    @property
    def queries(self) -> NDArray[np.int64]:
        """(m,) rows of the users with at least one target, ascending."""
        return np.flatnonzero(self.targets.degrees)

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"HeldOut({self.name}: {len(self):,} targets of {len(self.queries):,} users)"


@dataclass(frozen=True, eq=False)
class Split:
    """A log in three parts, over the users and items of the whole; unpacks as `train, valid, test`."""

    train: Interactions
    valid: HeldOut
    test: HeldOut
    how: str
    seed: int
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Interactions | HeldOut]:
        return iter((self.train, self.valid, self.test))

    def __repr__(self) -> str:
        return f"Split({self.how}: train {len(self.train):,}, valid {len(self.valid):,}, test {len(self.test):,})"


def _compact(rows: NDArray[np.int32], size: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(n,) rows in [0, size) -> the rows that occur, ascending, and each row's place among them."""
    occurs = np.zeros(size, np.bool_)
    occurs[rows] = True
    place = np.cumsum(occurs, dtype=np.int64).astype(np.int32) - 1
    return np.flatnonzero(occurs), place[rows]


def _day(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
