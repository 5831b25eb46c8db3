"""What a request may say, checked and turned into rows.

Letters: Q users asked, q of them in one block, m items, e items left out of one user's list, I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import UsageError, nearest, problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recdistill.ids import IdTable

    Ids = Sequence[str] | Sequence[int] | Sequence[str | int] | NDArray[Any]

__all__ = ["LeftOut", "Wish", "among", "column", "known_items", "left_out_of", "positive", "refuse", "sequence"]

_FOREIGN = {
    "k": ["N", "n", "K", "topk", "top_k", "num_items", "n_items", "n_recommendations"],
    "filter_seen": [
        "filter_viewed",
        "filter_already_liked_items",
        "remove_seen",
        "filter_seen_items",
        "exclude_seen",
        "exclude_known",
        "filter_consumed",
    ],
    "exclude": ["filter_items", "exclude_items", "items_to_exclude", "blacklist"],
    "candidates": ["items", "item_ids", "items_to_recommend", "candidate_items", "whitelist"],
    "users": ["userid", "userids", "user_ids", "user_id", "user", "queries"],
}
_MEANT = {theirs: ours for ours, names in _FOREIGN.items() for theirs in names}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Items to leave out: for everybody, and for single users."""

    shared: NDArray[np.int64]
    """Ascending item rows."""
    own: NDArray[np.int64]
    """Ascending `place of the user in the request * I + item row`."""
    most: int
    """e: how many items any one user's list may lose."""
    n_items: int
    """I."""

    def contains(self, place: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(q,) places of users, (q, m) item rows -> (q, m)."""
        keys = place[:, None] * self.n_items + items
        return among(items, self.shared) | (among(keys, self.own) & (items >= 0))


@dataclass(frozen=True, slots=True)
class Wish:
    """What all users of a request share."""

    k: int
    filter_seen: bool
    left_out: LeftOut
    only: NDArray[np.int64] | None
    """(m,) distinct candidate rows as given, or None for the whole catalogue."""


def among(values: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which values stand in an ascending array; of the shape of `values`."""
    if len(ascending) == 0:
        return np.zeros(values.shape, np.bool_)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[place] == values


def column(ids: Ids) -> NDArray[Any]:
    """Ids as a column: int64 where all are integers of that size, else an object array as given."""
    if isinstance(ids, np.ndarray) and ids.dtype.kind in "iu":
        return ids.astype(np.int64, copy=False)
    values: list[Any] = list(ids)
    if values and all(isinstance(v, int | np.integer) and -(2**63) <= v < 2**63 for v in values):
        return np.array(values, np.int64)
    mixed = np.empty(len(values), dtype=object)
    mixed[:] = values
    return mixed


def sequence(ids: Any, what: str) -> Any:  # noqa: ANN401 - whatever a caller passes
    """Ids as a list, tuple or array.

    Raises:
        UsageError: a single id.
    """
    if isinstance(ids, str | bytes | int | np.integer):
        raise UsageError(
            problem(f"'{what}' must be a sequence of ids", ids, remedy=f"Put a single id into a list: [{ids!r}]")
        )
    return ids if isinstance(ids, np.ndarray | list | tuple) else list(ids)


def positive(k: object, what: str = "k") -> int:
    """An integer of at least 1, or `UsageError`."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UsageError(problem(f"'{what}' must be an integer of at least 1", k))
    return int(k)


def refuse(foreign: Mapping[str, object]) -> None:
    """Answer an argument of another library with ours: `UsageError`."""
    for name in foreign:
        meant = _MEANT.get(name) or nearest(name, _FOREIGN)
        remedy = "filter_seen=True leaves out what the user has already" if meant == "filter_seen" else None
        raise UsageError(
            problem(f"'recommend' has no argument {name!r}", near=meant, allowed=sorted(_FOREIGN), remedy=remedy)
        )


def known_items(items: IdTable, ids: Ids, what: str, notes: list[str]) -> NDArray[np.int64]:
    """Distinct item rows in the order given; unknown ids are counted."""
    rows = items.rows(sequence(ids, what))
    unknown = int((rows < 0).sum())
    if unknown:
        notes.append(f"{what}: {unknown:,} of {len(rows):,} items are not in the catalogue and were ignored")
    rows = rows[rows >= 0]
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]


def left_out_of(items: IdTable, exclude: Ids | Mapping[Any, Ids] | None, users: Ids, notes: list[str]) -> LeftOut:
    """What `exclude` leaves out of the lists of these users; what is not known is counted in `notes`."""
    n = len(items)
    if exclude is None:
        return LeftOut(np.zeros(0, np.int64), np.zeros(0, np.int64), 0, n)
    if not isinstance(exclude, Mapping):
        shared = np.sort(known_items(items, exclude, "exclude", notes))
        return LeftOut(shared, np.zeros(0, np.int64), len(shared), n)
    asked = list(users)
    places: dict[str, list[int]] = {}
    for place, user in enumerate(asked):
        places.setdefault(str(user), []).append(place)
    idle = sum(str(user) not in places for user in exclude)
    if idle:
        notes.append(f"exclude: {idle:,} of {len(exclude):,} users were not asked for")
    # one search for the items of all users
    mine = [(places[str(user)], sequence(own, "exclude")) for user, own in exclude.items() if str(user) in places]
    flat = [item for _, each in mine for item in each]
    rows = items.rows(flat)
    unknown = int((rows < 0).sum())
    if unknown:
        notes.append(f"exclude: {unknown:,} of {len(rows):,} items are not in the catalogue and were ignored")
    keys, most, at = [np.zeros(0, np.int64)], 0, 0
    for lines, each in mine:
        own = np.unique(rows[at : at + len(each)])
        own = own[own >= 0]
        at += len(each)
        most = max(most, len(own))
        keys.extend(line * n + own for line in lines)
    return LeftOut(np.zeros(0, np.int64), np.sort(np.concatenate(keys)), most, n)
