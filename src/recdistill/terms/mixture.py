"""A mixture of two-layer experts as two matrix products.

Letters: n rows, M experts, h hidden, s input width, t output width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["mixture"]


def mixture(
    x: Tensor, weights: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, *, dropped: float = 0.0
) -> Tensor:
    """`sum_m weights_m (relu(x W1_m + b1_m) W2_m + b2_m)`.

    Args:
        x: (n, s); weights: (n, M); w1: (M * h, s); b1: (M * h,); w2: (M * h, t); b2: (M, t).
        dropped: TODO.

    Returns:
        (n, t)
    """
    z = (x @ w1.T + b1).relu().view(x.shape[0], weights.shape[1], -1) * weights[:, :, None]  # (n, M, h)
    return z.flatten(1) @ w2 + weights @ b2
