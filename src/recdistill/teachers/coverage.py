"""How much of the training data a teacher from elsewhere knows, said before a run rather than found after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.ids import IdTable

__all__ = ["Coverage", "measured"]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a teacher and the training tables have in common. `print` it."""

    source: str
    items: int
    """Items of the training tables that the teacher knows."""
    of_items: int
    users: int
    """Users of the training tables that the teacher knows."""
    of_users: int
    foreign_items: int
    """Items of the teacher that are not in the training tables."""
    foreign_users: int
    notes: tuple[str, ...] = ()

    def noted(self, *notes: str) -> Coverage:
        """With more to say."""
        return replace(self, notes=(*self.notes, *notes))

    def __str__(self) -> str:
        items, users = _share(self.items, self.of_items), _share(self.users, self.of_users)
        said = (
            f"{self.source} knows {items} of your items ({self.items:,} of {self.of_items:,}), "
            f"{users} of users ({self.users:,} of {self.of_users:,})"
        )
        foreign = [
            f"{count:,} of its {what}"
            for count, what in ((self.foreign_items, "items"), (self.foreign_users, "users"))
            if count
        ]
        if foreign:
            said += f"; {' and '.join(foreign)} are not yours"
        return "\n".join([said, *self.notes])


def measured(
    source: str,
    rows: dict[str, tuple[NDArray[np.int64], IdTable, NDArray[Any]]],
) -> Coverage:
    """Count what matched.

    Args:
        source: how errors and the report call the teacher.
        rows: for "user" and "item": the rows of the teacher's distinct ids (-1 = not ours), our table, those ids.

    Raises:
        DataError: no user, or no item, is in both.
    """
    count: dict[str, tuple[int, int]] = {}
    for side, (matched, table, ids) in rows.items():
        known = int((matched >= 0).sum())
        count[side] = (known, len(matched) - known)
        if known == 0:
            theirs = ", ".join(repr(i) for i in ids[:3].tolist())
            ours = ", ".join(repr(i) for i in table.external(np.arange(min(3, len(table)))).tolist())
            raise DataError(
                problem(
                    f"{source} and the training data have no {side} in common: its {side}s are called {theirs}, "
                    f"yours {ours}",
                    remedy="Write the teacher's file with the ids of the interaction log, not with internal numbers",
                )
            )
    return Coverage(
        source,
        items=count["item"][0],
        of_items=len(rows["item"][1]),
        users=count["user"][0],
        of_users=len(rows["user"][1]),
        foreign_items=count["item"][1],
        foreign_users=count["user"][1],
    )


def _share(part: int, whole: int) -> str:
    """Whole percents, rounded down, so that 100 % means all of them."""
    percent = 100 * part // max(whole, 1)
    return "under 1 %" if percent == 0 and part else f"{percent} %"
