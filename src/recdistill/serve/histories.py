"""Histories that a request brings: external ids to item rows, after what is stored of their users.

Letters: Q histories asked, I items, n item places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.data.csr import Csr
from recdistill.data.histories import Histories
from recdistill.errors import UsageError, problem
from recdistill.serve.arguments import sequence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recdistill.ids import IdTable
    from recdistill.serve.arguments import Ids

    Asked = Mapping[Any, Ids] | Sequence[Ids]

__all__ = ["Brought", "brought"]


@dataclass(frozen=True, slots=True, eq=False)
class Brought:
    """Q histories, ready to be encoded."""

    ids: Ids
    """(Q,) whose they are; 0, 1, 2 ... where nobody was named."""
    rows: NDArray[np.int64]
    """(Q,) rows of users, -1 = unknown or nobody."""
    histories: Histories
    """Q rows: what is stored of the user, then what was brought."""
    ignored: int
    """How many items are not in the catalogue."""
    total: int
    """How many items were brought."""

    @property
    def there(self) -> NDArray[np.bool_]:
        """(Q,) whether there is anything to read."""
        return self.histories.lengths > 0

    def seen(self, stored: Csr) -> Csr:
        """(Q x I) what the users had already, and what was brought."""
        place, items = _rows_of(stored.indptr, stored.indices, self.rows)
        own = np.repeat(np.arange(len(self.rows)), self.histories.lengths)
        both = np.concatenate([place, own]), np.concatenate([items, self.histories.items])
        return Csr.from_pairs(*both, len(self.rows), stored.n_columns)


def brought(asked: Asked, users: IdTable, items: IdTable, stored: Histories | None) -> Brought:
    """Look ids up.

    Args:
        asked: `{user: item ids}`, oldest first, which follow what is stored of that user; or item ids alone, of
            visitors nobody knows.
        users: of the stored histories.
        items: the catalogue.
        stored: U rows, or None.

    Raises:
        UsageError: a history is no sequence of ids.
        DataError: an id is neither text nor an integer.
    """
    if isinstance(asked, str | bytes) or not isinstance(asked, Mapping | list | tuple | np.ndarray):
        allowed = "[[item, ...], ...] or {user: [item, ...]}"
        raise UsageError(problem("'histories' must be a list of histories", type(asked).__name__, allowed=allowed))
    named = isinstance(asked, Mapping)
    ids: Ids = list(asked) if named else list(range(len(asked)))
    given = [sequence(one, "histories") for one in (asked.values() if named else asked)]
    rows = users.rows(ids) if named else np.full(len(ids), -1, np.int64)
    flat = items.rows([item for one in given for item in one])  # (n,)
    owner = np.repeat(np.arange(len(given)), [len(one) for one in given])
    known = flat >= 0
    place, before = np.zeros(0, np.int64), np.zeros(0, np.int32)
    if stored is not None:
        place, before = _rows_of(stored.indptr, stored.items, rows)
    whose = np.concatenate([place, owner[known]])
    order = np.argsort(whose, kind="stable")  # what is stored comes first
    indptr = np.zeros(len(given) + 1, np.int64)
    np.cumsum(np.bincount(whose, minlength=len(given)), out=indptr[1:])
    together = np.concatenate([before, flat[known].astype(np.int32)])[order]
    return Brought(ids, rows, Histories(indptr, together), int((~known).sum()), len(flat))


def _rows_of(
    indptr: NDArray[np.int64], values: NDArray[np.int32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(Q,) rows, -1 = none -> (n,) places among the Q, and their values; reads these rows alone."""
    known = np.flatnonzero(rows >= 0)
    start = indptr[rows[known]]
    n = indptr[rows[known] + 1] - start
    within = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
    return np.repeat(known, n), np.asarray(values[np.repeat(start, n) + within], np.int32)
