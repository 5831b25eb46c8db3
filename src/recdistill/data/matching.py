"""Whether two things that count by rows count the same users and items: rows of one log mean nothing in another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from recdistill.ids import IdTable

__all__ = ["Tabled", "same_tables"]

_AT_ONCE = 1024


class Tabled(Protocol):
    """Anything over the users and items of a log."""

    @property
    def users(self) -> IdTable:
        """U external ids."""
        ...

    @property
    def items(self) -> IdTable:
        """I external ids."""
        ...


def same_tables(what: str, theirs: Tabled, of: str, ours: Tabled, *, remedy: str) -> None:
    """Refuse what is matched by row number where the rows are others.

    Identity, then sizes, then the ids; so it costs nothing where both came from one split.

    Args:
        what: how the message calls the first: "The teacher".
        theirs: its users and items.
        of: how the message calls the second: "the training data".
        ours: its users and items.
        remedy: what to do, as a sentence.

    Raises:
        UsageError: users or items differ, or stand in another order; with an id of each.
    """
    for side, a, b in (("users", theirs.users, ours.users), ("items", theirs.items, ours.items)):
        if a is b or (len(a) == len(b) and a == b):
            continue
        mine, other = _first_difference(a, b)
        seen = f"{what} has {len(a):,} {side}, {of} {len(b):,}, and where the one has {mine} the other has {other}"
        raise UsageError(problem(f"{what} and {of} do not have the same {side}: {seen}", remedy=remedy))


def _first_difference(a: IdTable, b: IdTable) -> tuple[str, str]:
    """The ids at the first row at which they differ; "nothing" past the end."""
    shorter = min(len(a), len(b))
    for start in range(0, shorter, _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, shorter))
        mine, other = a.external(rows).tolist(), b.external(rows).tolist()
        found = next((pair for pair in zip(mine, other, strict=True) if pair[0] != pair[1]), None)
        if found is not None:
            return repr(found[0]), repr(found[1])
    ends = [repr(table.external([shorter]).tolist()[0]) if len(table) > shorter else "nothing" for table in (a, b)]
    return ends[0], ends[1]
