"""Users who have little, and items that few have: the parts of a test in which systems differ.

"cold" users are the quarter of the measured users with the fewest training interactions; who has as many as the last
of them is cold too. "head" items are the most popular ones that make up half of all training interactions. Both cuts
are of the training data, never of a system's answers.

Letters: U users, I items, m users with a target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from recdistill.data.csr import Csr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.data.interactions import HeldOut

__all__ = ["Segment", "item_segments", "targets_within", "user_segments"]

_COLD = 0.25
_HEAD = 0.5


@dataclass(frozen=True, eq=False)
class Segment:
    """Some users, or some items."""

    name: str
    """ "cold users", "warm users", "head items", "tail items"."""
    about: str
    """Where it was cut: "at most 12 training interactions"."""
    of: Literal["users", "items"]
    member: NDArray[np.bool_]
    """(U,) or (I,)."""


def user_segments(train: Csr, queries: NDArray[np.int64]) -> tuple[Segment, ...]:
    """Cold and warm users; none where all measured users have as many training interactions.

    Args:
        train: U x I.
        queries: (m,) the users who are measured.
    """
    degrees = train.degrees  # (U,)
    if not len(queries):
        return ()
    cut = int(np.sort(degrees[queries])[int(_COLD * (len(queries) - 1))])
    cold = degrees <= cut
    if cold[queries].all():
        return ()
    return (
        Segment("cold users", f"at most {cut:,} training interactions", "users", cold),
        Segment("warm users", f"more than {cut:,}", "users", ~cold),
    )


def item_segments(train: Csr) -> tuple[Segment, ...]:
    """Head and tail items; none where the catalogue cannot be divided.

    Args:
        train: U x I.
    """
    often = np.bincount(train.indices, minlength=train.n_columns)  # (I,)
    order = np.argsort(-often, kind="stable")
    total = np.cumsum(often[order])
    if not len(total) or total[-1] == 0:
        return ()
    head = np.zeros(len(often), np.bool_)
    n = int(np.searchsorted(total, _HEAD * total[-1])) + 1
    head[order[:n]] = True
    if head.all():
        return ()
    about = (
        f"the {n:,} most popular of {len(often):,} items, {100 * total[n - 1] / total[-1]:.0f} % of the interactions"
    )
    return (
        Segment("head items", about, "items", head),
        Segment("tail items", f"the other {len(often) - n:,}", "items", ~head),
    )


def targets_within(held: HeldOut, segment: Segment) -> HeldOut:
    """Held-out data whose targets are the segment's items alone; rankings leave out what they left out before."""
    of, targets = segment.member, held.targets
    keep = of[targets.indices]
    rows = np.repeat(np.arange(targets.n_rows), targets.degrees)
    return replace(held, targets=Csr.from_pairs(rows[keep], targets.indices[keep], targets.n_rows, targets.n_columns))
