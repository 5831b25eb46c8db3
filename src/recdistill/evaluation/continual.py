"""Learning and remembering along a stream: LA, RA and their harmonic mean.

    LA_k = mean_{j <= k} a[j][j]     how well each block was learned when it was new (plasticity)
    RA_k = mean_{j <= k} a[k][j]     how well the model of now still serves every block (stability)
    H_k  = 2 LA_k RA_k / (LA_k + RA_k)

`a[k][j]` is the metric on block j's test users after block k was learned. Lee et al., CCD, KDD 2024, arXiv:2405.19046,
as the first author's later code computes it. Whether the base block counts is not stated there, so both are offered.

Letters: K blocks after the base block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Continual", "continual"]


@dataclass(frozen=True, slots=True)
class Continual:
    """LA, RA and H after a block."""

    la: float
    ra: float
    h: float


def continual(a: NDArray[np.float64], *, base: bool = True, decimals: int | None = None) -> list[Continual]:
    """LA, RA and H after every block.

    Args:
        a: (K + 1, K + 1) the metric; `a[k, j]` for j <= k is read, the rest may be anything.
        base: whether block 0 counts. Without it there is no figure after block 0: NaN.
        decimals: round each value first, as the official evaluation does with 4.

    Returns:
        K + 1 figures; H is 0 where LA and RA both are.

    Raises:
        UsageError: `a` is not square, or has no value at a place that is read.
    """
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise UsageError(problem("Figures of a stream come as a square: one row after each block", a.shape))
    read = np.tril(np.ones(a.shape, np.bool_))
    if not np.isfinite(a[read]).all():
        k, j = np.argwhere(read & ~np.isfinite(a))[0].tolist()
        raise UsageError(problem(f"There is no figure of block {j} after block {k}", a[k, j].item()))
    a = a if decimals is None else np.round(a, decimals)
    first = 0 if base else 1
    out: list[Continual] = []
    for k in range(len(a)):
        if k < first:
            out.append(Continual(float("nan"), float("nan"), float("nan")))
            continue
        la, ra = float(np.diag(a)[first : k + 1].mean()), float(a[k, first : k + 1].mean())
        out.append(Continual(la, ra, 2 * la * ra / (la + ra) if la + ra else 0.0))
    return out
