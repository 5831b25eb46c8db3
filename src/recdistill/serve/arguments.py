"""What a request may say, checked and turned into rows.

Letters: Q users asked, q of them in one block, m items, e items left out of one user's list, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import UsageError, nearest, problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Ids = Sequence[str] | Sequence[int] | Sequence[str | int] | NDArray[Any]

__all__ = ["LeftOut", "Wish", "among", "column", "positive", "refuse", "sequence"]

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
