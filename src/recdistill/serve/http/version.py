"""One loaded version: everything a request needs, and nothing of it ever changes.

Letters: U users, I items, n item places of all histories, m items that may be shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.evaluation.ranking import VectorRanker
from recdistill.evaluation.tables import taken
from recdistill.ledger.versions import learned
from recdistill.serve.foldin import folded
from recdistill.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.bundle.io import Bundle
    from recdistill.data.histories import Histories
    from recdistill.serve.service import Search

__all__ = ["Version", "opened"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Version:
    """A version takes its name from its bundle, its answers from a `Service`."""

    name: str
    path: Path
    digest: str
    """Of the bundle's manifest, which names every byte."""
    service: Service
    reads: Literal["history", "folded-in"] | None
    """How a history becomes a vector."""
    model: str
    parameters: int
    bytes: int
    available: NDArray[np.int64] | None = None
    """(m,) ascending rows of the items that may be shown; None: all."""
    unknown: int = 0
    """How many ids of the availability list the version does not have."""
    events: int = 0
    """Of a stream: the number of the first event that the version knows nothing of."""

    def showing(self, items: Sequence[str | int] | None) -> Version:
        """The same version with another availability list; ids that it does not have are counted.

        Raises:
            UsageError: it has none of them.
        """
        service = self.service.with_available(None if items is None else list(items))
        if items is None:
            return replace(self, service=service, available=None, unknown=0)
        rows = self.service.items.rows(list(items))
        return replace(self, service=service, available=np.unique(rows[rows >= 0]), unknown=int((rows < 0).sum()))

    def among(self, items: Sequence[str | int]) -> Service | None:
        """Its service with a request's own availability list within that of the version; None: nothing is left."""
        rows = np.unique(self.service.items.rows(list(items)))
        rows = rows[rows >= 0]
        if self.available is not None:
            rows = np.intersect1d(rows, self.available, assume_unique=True)
        return self.service.with_available(self.service.items.external(rows)) if len(rows) else None


class _Vectors:
    """Rows of a table as float32, whatever they are stored as: what `folded` reads of it."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], side: str) -> None:
        self._table, self._scale = arrays[side], arrays.get(f"{side}.scale")
        self.shape = self._table.shape

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        return taken(self._table, self._scale, rows)


def opened(path: Path, name: str | None = None, *, threads: int = 1, search: Search = "auto") -> Version:
    """Open a bundle that has been checked: headers are checked again, bytes are not read.

    Args:
        path: the bundle's folder.
        name: of the version; None makes one of the model's name and the digest.
        threads: of a batch.
        search: how lists are found, as in `Service.from_bundle`.

    Raises:
        BundleError: the bundle is broken.
        UsageError: it cannot be searched as asked.
    """
    found = bundle.open(path)
    service = Service.from_bundle(path, threads=threads, search=search)
    reads: Literal["history", "folded-in"] | None = None if service.encode is None else "history"
    if reads is None and isinstance(service.ranker, VectorRanker) and len(service.users) and len(service.items):
        reads, service.encode = "folded-in", _fold_in(found)
    digest = found.manifest.digest
    return Version(
        name=f"{found.manifest.model}-{digest[:8]}" if name is None else name,
        path=path,
        digest=digest,
        service=service,
        reads=reads,
        model=found.manifest.model,
        parameters=found.manifest.n_parameters,
        bytes=found.manifest.total_bytes,
        events=learned(found),
    )


def _fold_in(found: Bundle) -> Callable[[Histories, NDArray[np.int64]], NDArray[np.float32]]:
    """What `serve.foldin` makes of histories, as an encoder: (m,) rows of histories -> (m, d)."""
    user, item = (cast("NDArray[np.float32]", _Vectors(found.arrays, side)) for side in ("user", "item"))
    users_of, active = found.seen.transposed(), found.seen.degrees

    def encode(histories: Histories, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        begin = histories.indptr[rows]
        degrees = histories.indptr[rows + 1] - begin
        line = np.repeat(np.arange(len(rows)), degrees)
        within = np.arange(len(line)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
        touched = histories.items[np.repeat(begin, degrees) + within]  # (n,)
        return folded(Csr.from_pairs(line, touched, len(rows), len(item)), item, user, users_of, active)

    return encode
