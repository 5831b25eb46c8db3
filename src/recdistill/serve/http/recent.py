"""What people did of late whom the served version does not know yet, out of a stream's ledger.

Read between requests, so that an answer waits for no file; between two looks there is one mapping that never changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recdistill.ids import IdTable
    from recdistill.ledger import Ledger

__all__ = ["Recent"]

_LONGEST = 1000
"""Items of one person that are kept, the newest."""


class Recent:
    """New people's items; `look` and `close` are called in one thread, `items` is read in any.

    Args:
        ledger: opens the ledger; called in that thread.
    """

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._open = ledger
        self._ledger: Ledger | None = None
        self._known: IdTable | None = None
        self._next = 0
        self._forgotten = 0
        self.items: Mapping[str, tuple[str, ...]] = {}
        """User -> items, each once, oldest first: of the open block and the newest closed one."""

    def look(self, known: IdTable) -> None:
        """Read what has come since the last look.

        Args:
            known: the users of the version that is served; another table than before begins anew.
        """
        if self._ledger is None:
            self._ledger = self._open()
        ledger = self._ledger
        forgotten = int(ledger.index.value("SELECT count(*) FROM forgotten"))
        anew = known is not self._known or forgotten != self._forgotten
        first = ledger.first_of_late() if anew else self._next
        rows = ledger.rows(first)
        if anew or len(rows):
            told = {} if anew else dict(self.items)
            users = _ids(ledger, "user", rows.user)
            names = list(dict.fromkeys(user for user in users.values() if user is not None))
            new = {user for user, row in zip(names, known.rows(names).tolist(), strict=True) if row < 0}
            mine = np.array([users[row] in new for row in rows.user.tolist()], np.bool_)
            items = _ids(ledger, "item", rows.item[mine])
            for user, item in zip(rows.user[mine].tolist(), rows.item[mine].tolist(), strict=True):
                name, one = users[user], items[item]
                if name is not None and one is not None and one not in told.get(name, ()):
                    told[name] = (*told.get(name, ()), one)[-_LONGEST:]
            self.items = told
        self._next = first if not len(rows) else int(rows.number.max()) + 1
        self._known, self._forgotten = known, forgotten

    def close(self) -> None:
        """Let go of the ledger."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None


def _ids(ledger: Ledger, table: str, rows: np.ndarray[tuple[int], np.dtype[np.int32]]) -> dict[int, str | None]:
    """The ids of some rows; None where a person was forgotten."""
    return {row: ledger.id_of(table, row) for row in np.unique(rows).tolist()}
