"""One loaded version: everything a request needs, and nothing of it ever changes.

Letters: U users, I items, n item places of all histories, m items that may be shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from recdistill import bundle
from recdistill.data.csr import Csr
from recdistill.evaluation.ranking import VectorRanker
from recdistill.serve.foldin import folded
from recdistill.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.bundle.io import Bundle
    from recdistill.data.histories import Histories

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
    available: tuple[str | int, ...] | None = None
    """The items of the version that may be shown, m external ids; None: all."""
    unknown: int = 0
    """How many ids of the availability list the version does not have."""

    def showing(self, items: Sequence[str | int] | None) -> Version:
        """The same version with another availability list; ids that it does not have are counted."""
        if items is None:
            return replace(self, available=None, unknown=0)
        rows = self.service.items.rows(list(items))
        known = np.unique(rows[rows >= 0])
        mine = tuple(self.service.items.external(known).tolist())
        return replace(self, available=mine, unknown=int((rows < 0).sum()))


def opened(path: Path, name: str | None = None, *, threads: int = 1) -> Version:
    """Open a bundle that has been checked: headers are checked again, bytes are not read.

    Args:
        path: the bundle's folder.
        name: of the version; None makes one of the model's name and the digest.
        threads: of a batch.

    Raises:
        BundleError: the bundle is broken.
    """
    found = bundle.open(path)
    service = Service.from_bundle(path, threads=threads)
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
    )


def _fold_in(found: Bundle) -> Callable[[Histories, NDArray[np.int64]], NDArray[np.float32]]:
    """What `serve.foldin` makes of histories, as an encoder: (m,) rows of histories -> (m, d)."""
    user, item = found.arrays["user"], found.arrays["item"]
    users_of, active = found.seen.transposed(), found.seen.degrees

    def encode(histories: Histories, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        begin = histories.indptr[rows]
        degrees = histories.indptr[rows + 1] - begin
        line = np.repeat(np.arange(len(rows)), degrees)
        within = np.arange(len(line)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
        touched = histories.items[np.repeat(begin, degrees) + within]  # (n,)
        return folded(Csr.from_pairs(line, touched, len(rows), len(item)), item, user, users_of, active)

    return encode
