"""Optimisers, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from recdistill.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

__all__ = ["OPTIMISERS", "optimiser"]

OPTIMISERS = ("adam",)


def optimiser(
    name: str, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimiser over `parameters`.

    "adam" is Adam with coupled L2 on every parameter at every step, as DE-RRD's official code runs it: a row that no
    batch touches still shrinks and still moves by its momentum.
    """
    if name == "adam":
        return torch.optim.Adam(list(parameters), lr=lr, weight_decay=weight_decay, fused=True)
    raise UnknownName("optimiser", name, OPTIMISERS)
