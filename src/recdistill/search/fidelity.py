"""Whether the supernet's word can be trusted: its order of designs against that of the same designs trained alone.

Letters: n designs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Fidelity", "kendall", "spearman"]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Scores of the same designs, with inherited weights and trained alone."""

    names: tuple[str, ...]
    """Of the designs: "searched", "random-3", ..."""
    inherited: tuple[float, ...]
    """Of the supernet's weights, statistics estimated anew."""
    retrained: tuple[float, ...]

    @property
    def kendall(self) -> float:
        """tau-b in [-1, 1]; NaN when one side is all ties."""
        return kendall(self.inherited, self.retrained)

    @property
    def spearman(self) -> float:
        """Rho in [-1, 1]; NaN when one side is all ties."""
        return spearman(self.inherited, self.retrained)

    def __str__(self) -> str:
        """One line."""
        return f"{len(self.names)} designs: Kendall tau {self.kendall:.2f}, Spearman rho {self.spearman:.2f}"


def kendall(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's tau-b: concordant less discordant pairs, over the root of the product of untied pairs of each side.

    Kendall, Biometrika 33, 1945. O(n^2).

    Raises:
        UsageError: the two are not of one length, or there are fewer than 2.
    """
    a, b = _both(one, other)
    first = np.sign(a[:, None] - a[None, :])
    second = np.sign(b[:, None] - b[None, :])
    scale = np.sqrt(float((first**2).sum()) * float((second**2).sum()))
    return float((first * second).sum() / scale) if scale else float("nan")


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rho: the correlation of ranks, ties sharing theirs; errors as for `kendall`."""
    a, b = (_ranks(each) for each in _both(one, other))
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale else float("nan")


def _both(one: Sequence[float], other: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(one) != len(other) or len(one) < 2:
        raise UsageError(problem("A rank correlation needs two lists of one length, 2 or more", (len(one), len(other))))
    return np.asarray(one, np.float64), np.asarray(other, np.float64)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    below = (values[None, :] < values[:, None]).sum(1)
    same = (values[None, :] == values[:, None]).sum(1)
    return below + (same + 1) / 2
