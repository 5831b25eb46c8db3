"""What people did since the version that is served, and what the gates said last, out of a stream's ledger.

Read between requests, so that an answer waits for no file; between two looks there is one mapping that never changes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from recdistill.serve.http.messages import Gated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recdistill.ledger import Ledger
    from recdistill.serve.http.version import Version

__all__ = ["Recent"]

_LONGEST = 1000
"""Items of one person that are kept, the newest."""


class Recent:
    """People's items; `look` and `close` are called in one thread, `items` is read in any.

    Args:
        ledger: opens the ledger; called in that thread.
    """

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._open = ledger
        self._ledger: Ledger | None = None
        self._version = ""
        self._next = 0
        self._forgotten = 0
        self.items: Mapping[str, tuple[str, ...]] = {}
        """User -> items, each once, oldest first: since the end of the block that the version was made of."""
        self.gated: Gated | None = None
        """The newest candidate, where the gates refused it."""

    def look(self, version: Version | None) -> None:
        """Read what has come since the last look; another version than before begins anew, None reads no events."""
        if self._ledger is None:
            self._ledger = self._open()
        ledger = self._ledger
        self.gated = _refused(ledger)
        if version is None:
            return
        forgotten = int(ledger.index.value("SELECT count(*) FROM forgotten"))
        anew = version.digest != self._version or forgotten != self._forgotten
        first = version.events if anew else self._next
        rows = ledger.rows(first)
        if anew or len(rows):
            told = {} if anew else dict(self.items)
            users = _ids(ledger, "user", rows.user)
            items = _ids(ledger, "item", rows.item)
            for user, item in zip(rows.user.tolist(), rows.item.tolist(), strict=True):
                name, one = users[user], items[item]
                if name is not None and one is not None and one not in told.get(name, ()):
                    told[name] = (*told.get(name, ()), one)[-_LONGEST:]
            self.items = told
        self._next = first if not len(rows) else int(rows.number.max()) + 1
        self._version, self._forgotten = version.digest, forgotten

    def close(self) -> None:
        """Let go of the ledger."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None


def _refused(ledger: Ledger) -> Gated | None:
    """What the gates said of the candidate that they were asked of last; None where they let it through."""
    query = "SELECT cycle, stage, measured FROM stage WHERE stage LIKE 'gate%' ORDER BY cycle DESC, at DESC LIMIT 1"
    found = ledger.index.row(query)
    if found is None:
        return None
    cycle, stage, measured = found
    why = [f"{check['name']}: {check['why']}" for check in json.loads(measured)["checks"] if not check["passed"]]
    return Gated(cycle, "student" if stage == "gate" else "distilled", why) if why else None


def _ids(ledger: Ledger, table: str, rows: np.ndarray[tuple[int], np.dtype[np.int32]]) -> dict[int, str | None]:
    """The ids of some rows; None where a person was forgotten."""
    return {row: ledger.id_of(table, row) for row in np.unique(rows).tolist()}
