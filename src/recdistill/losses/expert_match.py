"""The distance of a teacher's vectors from their reconstruction. Kang et al., DE-RRD, CIKM 2020, arXiv:2012.04357."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["distance", "squared_distance"]


def squared_distance(target: Tensor, prediction: Tensor) -> Tensor:
    """(n, d), (n, d) -> (n,) squared Euclidean distance: what the official code computes."""
    return (target - prediction).square().sum(1)


def distance(target: Tensor, prediction: Tensor) -> Tensor:
    """(n, d), (n, d) -> (n,) Euclidean distance: what the paper's formula prints."""
    return torch.linalg.vector_norm(target - prediction, dim=1)
