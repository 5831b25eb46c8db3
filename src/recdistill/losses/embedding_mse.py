"""Mean squared error of vectors. AdaRec's embedding loss, Chen et al., arXiv:2107.07173 (official code: `L_emb`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["embedding_mse"]


def embedding_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """`mean_d (s_d - t_d)^2` of each row.

    Args:
        student: (n, d) the student's vectors, projected to the teacher's width.
        teacher: (n, d) the teacher's.

    Returns:
        (n,) >= 0. The official code's number is the mean of it over all positions, padding included.
    """
    return (student - teacher).square().mean(1)
