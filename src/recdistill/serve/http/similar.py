"""Items like an item: cosines of item vectors. The unit vectors are made when somebody first asks.

Letters: I items, d dims, k list.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from recdistill.evaluation.blocks import Shown
from recdistill.evaluation.ranking import VectorRanker
from recdistill.serve.http.refusal import Refusal

if TYPE_CHECKING:
    from recdistill.serve.http.messages import Id
    from recdistill.serve.http.version import Version

__all__ = ["similar"]

_LOCK = Lock()
_MADE: WeakKeyDictionary[VectorRanker, VectorRanker] = WeakKeyDictionary()


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
    ranker, asked = _ranker(service.ranker), np.array([row])
    shown = None
    if version.available is not None:
        shown = Shown(np.isin(np.arange(len(service.items)), version.available))
    found = ranker.top_k(asked, min(k + 1, len(service.items)), shown=shown)[0]
    found = found[(found >= 0) & (found != row)][:k]
    cosine = ranker.scores_of(asked, found[None, :])[0]
    return service.items.external(found).tolist(), np.clip(cosine, -1.0, 1.0).tolist()


def _ranker(ranker: VectorRanker) -> VectorRanker:
    with _LOCK:
        made = _MADE.get(ranker)
        if made is None:
            unit = ranker.vectors_of_items(np.arange(ranker.n_items))  # (I, d)
            length = np.linalg.norm(unit, axis=1, keepdims=True)
            unit /= np.where(length > 0, length, np.float32(1.0))
            made = _MADE[ranker] = VectorRanker(unit, unit, threads=ranker.threads)
        return made
