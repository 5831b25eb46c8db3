"""Histories, spaces and small networks for the search's tests."""

from __future__ import annotations

import pytest
import torch

from recdistill.search.norm import PositionNorm
from recdistill.search.space import SPACES


@pytest.fixture
def causal():
    return SPACES["causal"]


@pytest.fixture
def attentive():
    return SPACES["attentive"]


@pytest.fixture
def published():
    return SPACES["published"]


@pytest.fixture
def histories():
    """(5, 9) item rows of 30, left padded: real lengths 9, 1, 4, 6 and 0."""
    g = torch.Generator().manual_seed(3)
    rows = torch.randint(0, 30, (5, 9), generator=g)
    for row, length in enumerate([9, 1, 4, 6, 0]):
        rows[row, : 9 - length] = -1
    return rows


@pytest.fixture
def x(histories):
    """(5, 9, 8) embedded histories, zero at padding, and which positions are real."""
    g = torch.Generator().manual_seed(4)
    real = histories >= 0
    return torch.randn(5, 9, 8, generator=g) * real[..., None], real


@pytest.fixture
def shaken():
    """`shaken(chain)`: with norms whose weights and statistics are not trivial, in evaluation."""

    def shake(chain):
        g = torch.Generator().manual_seed(0)
        for module in chain.modules():
            if isinstance(module, PositionNorm):
                for value in (module.weight.data, module.bias.data, module.mean):
                    value.copy_(torch.randn(value.shape, generator=g))
                module.var.copy_(torch.rand(module.var.shape, generator=g) + 0.5)
        return chain.eval()

    return shake
