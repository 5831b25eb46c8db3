"""What is evaluated and what is served: rankers in numpy, no torch.

Letters: Q queries, n other items, K list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from recdistill.errors import DataError, UnknownName, problem
from recdistill.evaluation.encoded import EncodedRanker
from recdistill.evaluation.pairnet import PairNetRanker
from recdistill.evaluation.vectors import VectorRanker

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.data.histories import Histories

__all__ = ["RANKERS", "EncodedRanker", "PairNetRanker", "Ranker", "Told", "VectorRanker", "following", "ranker"]

RANKERS = ("neumf", "vectors")
"""The kinds that `ranker` knows."""


class Told(Protocol):
    """What is read of held-out data by a ranker of histories."""

    @property
    def histories(self) -> Histories | None:
        """What each user did before, oldest first."""
        ...


class Ranker(Protocol):
    """Whatever can order the items for a user. A user row it does not have (-1, or beyond) gets no answer, no error."""

    @property
    def n_users(self) -> int:
        """How many user rows it has."""
        ...

    @property
    def n_items(self) -> int:
        """How many item rows it has."""
        ...

    def top_k(self, queries: NDArray[np.int64], k: int, exclude: Csr | None = None) -> NDArray[np.int64]:
        """(Q,) user rows -> (Q, K) int64 item rows, best first, equal scores by smaller row, -1 past the end.

        `exclude` has one row per USER ROW, indexed by the queries.
        """
        ...

    def ranks_among(
        self, queries: NDArray[np.int64], target: NDArray[np.int64], others: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """(Q,), (Q,) or (Q, t), (Q, n; -1 = none) -> rank of each target: 1 + #greater + #equal / 2."""
        ...

    def scores_of(self, queries: NDArray[np.int64], items: NDArray[np.integer]) -> NDArray[np.float32]:
        """(Q,), (Q, K) -> (Q, K) the scores behind the lists, -inf where the user or the item is unknown."""
        ...


def ranker(kind: str, arrays: Mapping[str, NDArray[np.float32]], *, threads: int | None = None) -> Ranker:
    """The ranker of a stored model.

    Args:
        kind: "vectors" (arrays "user" (U, d), "item" (I, d); of int8 also "user.scale" (U,), "item.scale" (I,)), or
            "neumf" (arrays as in `PairNetRanker`).
        arrays: by name; may be memory-mapped.
        threads: as in `VectorRanker`.

    Raises:
        UnknownName: no such kind.
        DataError: an array is missing or of the wrong shape.
    """
    if kind == "vectors":
        scales = {f"{side}_scale": arrays.get(f"{side}.scale") for side in ("user", "item")}
        return VectorRanker(_array(arrays, "user"), _array(arrays, "item"), threads=threads, **scales)
    if kind == "neumf":
        return PairNetRanker(arrays, threads=threads)
    raise UnknownName("kind of ranker", kind, RANKERS)


def following(ranker: Ranker, held: Told) -> Ranker:
    """The ranker as it stands when `held` is asked: after other histories, where it reads any and any are told."""
    if not isinstance(ranker, EncodedRanker) or held.histories is None:
        return ranker
    return ranker.following(held.histories)


def _array(arrays: Mapping[str, NDArray[np.float32]], name: str) -> NDArray[np.float32]:
    if name not in arrays:
        raise DataError(problem(f"The ranker's array {name!r} is missing", allowed=sorted(arrays)))
    return arrays[name]
