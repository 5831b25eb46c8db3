"""Items like an item: cosines of item vectors. The unit vectors are made when somebody first asks.

Letters: I items, d dims, k list.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from recdistill.evaluation.ranking import VectorRanker
from recdistill.serve.http.refusal import Refusal

if TYPE_CHECKING:
    from recdistill.serve.http.messages import Id
    from recdistill.serve.http.version import Version
    from recdistill.serve.service import Service

__all__ = ["similar"]

_LOCK = Lock()
_MADE: WeakKeyDictionary[Service, VectorRanker] = WeakKeyDictionary()


def similar(version: Version, item: Id, k: int) -> tuple[list[str | int], list[float]]:
    """The k items closest to one, itself left out, and their cosines.

    Raises:
        Refusal: 404, the version does not have the item; 422, its model has no item vectors.
    """
    service = version.service
    row = int(service.items.rows([item])[0])
    if row < 0:
        raise Refusal(404, "unknown-item", "The version that is served does not have this item.")
    if not isinstance(service.ranker, VectorRanker):
        raise Refusal(422, "no-vectors", "The model that is served ranks pairs; it has no item vectors.")
    ranker = _ranker(service, service.ranker)
    more = min(k + 1, len(service.items))
    found = ranker.top_k(np.array([row]), more)[0]
    found = found[(found >= 0) & (found != row)][:k]
    if version.available is not None:
        shown = service.items.rows(list(version.available))
        found = np.array([one for one in ranker.top_k(np.array([row]), len(service.items))[0] if one != row])
        found = found[np.isin(found, shown)][:k]
    cosine = ranker.scores_of(np.array([row]), found[None, :])[0]
    return service.items.external(found).tolist(), np.clip(cosine, -1.0, 1.0).tolist()


def _ranker(service: Service, ranker: VectorRanker) -> VectorRanker:
    with _LOCK:
        made = _MADE.get(service)
        if made is None:
            length = np.linalg.norm(ranker.item, axis=1, keepdims=True)  # (I, 1)
            unit = (ranker.item / np.where(length > 0, length, 1.0)).astype(np.float32, copy=False)
            made = _MADE[service] = VectorRanker(unit, unit, threads=ranker.threads)
        return made
