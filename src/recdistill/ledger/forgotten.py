"""Who was forgotten: of a person a salted mark is kept, and until when what they did is refused.

Letters: n events of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.ids import text_keys
from recdistill.ledger import keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.ledger.events import Events
    from recdistill.ledger.index import Index

__all__ = ["forget", "refused"]


def forget(index: Index, row: int, *, now: float) -> None:
    """Put a mark in place of a user's id, in a transaction; nothing where there is no id any more."""
    user = index.value("SELECT id FROM user WHERE row = ?", row)
    if user is None:
        return
    high = index.value("SELECT max(high) FROM block")
    index.run("INSERT OR REPLACE INTO forgotten VALUES (?, ?, ?)", int(_marks(index, [user])[0]), now, high)
    index.run("UPDATE user SET id = NULL WHERE row = ?", row)


def refused(index: Index, events: Events, *, now: float) -> NDArray[np.bool_]:
    """(n,) whether an event is of a person who was forgotten after it.

    An event is of before where it is not later than the stream was when the person was forgotten: by its own time, or
    by that of its arrival, `now`, where it has none. How late the stream was is bounded by the clock: one event of the
    year 2100 must not refuse people until then.
    """
    out = np.zeros(len(events), np.bool_)
    gone = index.rows("SELECT mark, min(coalesce(before, at), at) FROM forgotten")
    if not gone:
        return out
    marks = _marks(index, events.users)
    when = np.full(len(events), now) if events.timestamp is None else events.timestamp
    for mark, until in gone:
        out |= (marks == mark)[events.user] & (when <= until)
    return out


def _marks(index: Index, users: list[str]) -> NDArray[np.int64]:
    salt = int(index.value("SELECT value FROM about WHERE name = 'salt'"))
    return keys.combined(text_keys(users), np.full(len(users), salt))
