"""Ordered pairs: golden values, gradients, a constant."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.losses.pairs import ordered_pairs


def test_a_case_by_hand():
    # differences log 3 and 0: log(1 + 1/3) = .287682 and log 2 = .693147; their mean
    better, worse = torch.tensor([[math.log(3), 1.0]]), torch.tensor([[0.0, 1.0]])
    both = torch.ones(1, 2, dtype=torch.bool)
    assert ordered_pairs(better, worse, both).item() == pytest.approx((0.287682 + 0.693147) / 2, abs=1e-6)
    assert ordered_pairs(better, worse, torch.tensor([[True, False]])).item() == pytest.approx(0.287682, abs=1e-6)
    assert ordered_pairs(better, worse, ~both).item() == 0


def test_gradients_pass_a_finite_difference_check_and_ignore_a_constant():
    g = torch.Generator().manual_seed(0)
    better, worse = (torch.randn(3, 4, dtype=torch.float64, generator=g).requires_grad_() for _ in range(2))
    there = torch.rand(3, 4, generator=g) < 0.7
    assert torch.autograd.gradcheck(lambda a, b: ordered_pairs(a, b, there), (better, worse))
    torch.testing.assert_close(ordered_pairs(better + 9, worse + 9, there), ordered_pairs(better, worse, there))
