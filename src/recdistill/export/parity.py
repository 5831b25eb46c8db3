"""Whether an exported encoder answers as the model it came from does.

Letters: I items, d dims, m histories compared, k list.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.data.histories import Histories
from recdistill.errors import BundleError, UsageError, problem
from recdistill.evaluation.vectors import VectorRanker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.bundle.encoder import Encoder
    from recdistill.models.sequential import Sequential

__all__ = ["TOLERANCE", "Parity", "parity", "samples"]

TOLERANCE = 1e-4
"""The greatest difference of a score that is taken."""

_ROUNDING = 2.0**-20
"""Of |u| |v|: scores that differ by less are equal as far as float32 can tell."""
_CELLS = 1 << 22
"""Scores held at a time."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What was found."""

    histories: int
    """m, how many were compared: of one item, of more than is read, and as they are."""
    k: int
    """How long the lists are."""
    identical: int
    """How many lists are identical."""
    tied: int
    """How many differ only in items whose scores float32 cannot tell apart."""
    difference: float
    """The greatest difference of a score, over all items."""
    tolerance: float
    """The greatest that is taken."""

    @property
    def holds(self) -> bool:
        """Whether scores and lists agree."""
        return self.difference <= self.tolerance and self.identical + self.tied == self.histories

    def checked(self) -> Parity:
        """This, if it holds.

        Raises:
            BundleError: it does not; nothing should be served from such a graph.
        """
        if self.holds:
            return self
        what = (
            f"The exported encoder does not answer as its model: scores differ by up to {self.difference:.2g}, and "
            f"{self.histories - self.identical - self.tied:,} of {self.histories:,} lists of {self.k} differ"
        )
        raise BundleError(problem(what, allowed=f"at most {self.tolerance:g}, and no list"))

    def plain(self) -> dict[str, Any]:
        """As a manifest holds it."""
        return asdict(self)


def parity(
    encoder: Encoder,
    model: Sequential,
    histories: Histories | None = None,
    *,
    k: int = 10,
    sample: int = 256,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compare scores of all items, and lists, of an encoder in onnxruntime and of the model in torch.

    Args:
        encoder: what is compared.
        model: what it came from.
        histories: what is encoded; `samples` of the model's own when None.
        k: how long the lists are.
        sample: of how many users, where `histories` is None.
        seed: of their choice.
        tolerance: the greatest difference of a score that is taken.

    Raises:
        UsageError: there is no history to compare.
        BundleError: the graph cannot be loaded or run.
    """
    found = samples(model.histories, model.length, n=sample, seed=seed) if histories is None else histories
    rows = np.arange(found.n_rows, dtype=np.int64)
    if not len(rows):
        raise UsageError(problem("There is no history to compare an encoder on", remedy="Give some"))
    ours, theirs = model.encode(found, rows), encoder.encode(found, rows)  # (m, d)
    if ours.shape != theirs.shape:
        raise BundleError(problem("The exported encoder has another width than its model", theirs.shape[1]))
    item = model.served_items().detach().cpu().numpy()  # (I, d)
    k = min(k, len(item))
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return Parity(len(rows), k, 0, 0, float(np.finfo(np.float64).max), tolerance)
    difference, step = 0.0, max(1, _CELLS // max(len(item), 1))
    for at in range(0, len(rows), step):
        part = (ours[at : at + step] - theirs[at : at + step]) @ item.T
        difference = max(difference, float(np.abs(part).max(initial=0.0)))
    ranker = VectorRanker(ours, item)
    a, b = ranker.top_k(rows, k), ranker.asked_by(theirs).top_k(rows, k)  # (m, k)
    apart = np.flatnonzero((a != b).any(axis=1))
    tied = sum(_tied(ours[row], item, a[row], b[row]) for row in apart.tolist())
    return Parity(len(rows), k, len(rows) - len(apart), tied, difference, tolerance)


def samples(histories: Histories, length: int, *, n: int, seed: int = 0) -> Histories:
    """Up to n histories as they are, the last item alone of some, and some made longer than `length`."""
    there = np.flatnonzero(histories.lengths)
    chosen = there if len(there) <= n else np.sort(np.random.default_rng(seed).choice(there, n, replace=False))
    rows = [histories.row(row) for row in chosen.tolist()]
    some = rows[: max(1, n // 4)]
    rows += [row[-1:] for row in some]
    rows += [np.resize(row, length + 3) for row in some]
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=indptr[1:])
    return Histories(indptr, np.concatenate(rows) if rows else histories.items[:0])


def _tied(user: NDArray[np.float32], item: NDArray[np.float32], a: NDArray[np.int64], b: NDArray[np.int64]) -> bool:
    """Whether two lists hold, place by place, items of scores that float32 cannot tell apart."""
    one, other = item[a].astype(np.float64), item[b].astype(np.float64)  # (k, d)
    gap = np.abs((one - other) @ user.astype(np.float64))
    longest = np.maximum(np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1))
    return bool((gap <= _ROUNDING * np.linalg.norm(user.astype(np.float64)) * longest).all())
