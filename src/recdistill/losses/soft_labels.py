"""A score against another model's opinion of the same pair. Lee et al., CCD, KDD 2024; Kweon et al., WWW 2021.

Letters: B pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["soft_bce", "soft_hinge"]


def soft_bce(scores: Tensor, labels: Tensor) -> Tensor:
    """`-y log sigmoid(s) - (1 - y) log(1 - sigmoid(s))`.

    Args:
        scores: (B,) logits.
        labels: (B,) in [0, 1].

    Returns:
        (B,) >= 0; least, the entropy of the label, at `s = logit(y)`.
    """
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="none")


def soft_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """`relu(s - y)`: the logit itself against the probability, as the first commit of CCD's official code has it.

    Args:
        scores: (B,) logits.
        labels: (B,) in [0, 1].

    Returns:
        (B,) >= 0; it only ever pushes a score down.
    """
    return F.relu(scores - labels)
