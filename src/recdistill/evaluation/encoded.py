"""A ranker that reads histories: a user's vector is computed when the user is first asked.

Letters: U users, I items, d dims, m users asked.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from recdistill.evaluation.vectors import VectorRanker

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from recdistill.data.histories import Histories

    Encode = Callable[[Histories, NDArray[np.int64]], NDArray[np.float32]]

__all__ = ["EncodedRanker"]


class EncodedRanker(VectorRanker):
    """Scores are dot products of what an encoder makes of histories with item vectors; exact as `VectorRanker` is.

    Args:
        encode: histories and (m,) of their rows -> (m, d) float32.
        item: (I, d) float32.
        histories: of U users, as they stand when this ranker is asked.
        threads: as in `VectorRanker`.
    """

    def __init__(
        self, encode: Encode, item: NDArray[np.float32], histories: Histories, *, threads: int | None = None
    ) -> None:
        # pages of the table are touched only for the users that are asked
        super().__init__(np.zeros((histories.n_rows, item.shape[1]), np.float32), item, threads=threads)
        self._encode, self._histories = encode, histories
        self._done = np.zeros(histories.n_rows, np.bool_)
        self._lock = Lock()

    def following(self, histories: Histories) -> EncodedRanker:
        """The same ranker after other histories, such as those that are known when the test is asked."""
        if histories is self._histories:
            return self
        return EncodedRanker(self._encode, self.item, histories, threads=self.threads)

    def settled(self) -> VectorRanker:
        """The ranker with everybody's vector ready, as a bundle serves it."""
        self._check(np.arange(self.n_users))
        return VectorRanker(self.user, self.item, threads=self.threads)

    @override
    def _check(self, queries: NDArray[np.int64]) -> None:
        with self._lock:
            new = np.unique(queries[~self._done[queries]])
            if len(new):
                self.user[new] = self._encode(self._histories, new)
                self._done[new] = True
        super()._check(queries)
