"""Kullback-Leibler divergence of two softmaxes, in either direction.

"forward" is KL(teacher || student), what distillation means (Hinton et al., 2015, arXiv:1503.02531); "reverse" is
KL(student || teacher), what AdaRec's official code computes by calling its helper with swapped arguments (Chen et al.,
arXiv:2107.07173).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Direction", "kl"]

Direction = Literal["forward", "reverse"]


def kl(student: Tensor, teacher: Tensor, *, direction: Direction = "forward", temperature: float = 1.0) -> Tensor:
    """`tau^2 KL` of `softmax(logits / tau)`; tau^2 keeps the gradients' size (Hinton et al.).

    Args:
        student: (n, I) logits.
        teacher: (n, I) logits.
        direction: which distribution the mean is taken under.
        temperature: tau, > 0.

    Returns:
        (n,) >= 0; 0 at equality, and for logits that differ by a constant.
    """
    s, t = F.log_softmax(student / temperature, -1), F.log_softmax(teacher / temperature, -1)  # (n, I)
    over, under = (t, s) if direction == "forward" else (s, t)
    return temperature**2 * F.kl_div(under, over, reduction="none", log_target=True).sum(-1)
