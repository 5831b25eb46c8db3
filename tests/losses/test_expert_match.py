"""The two distances of DE."""

from __future__ import annotations

import pytest
import torch

from recdistill.losses.expert_match import distance, squared_distance

both = pytest.mark.parametrize("loss", [squared_distance, distance])


def test_by_hand():
    # (3, 4) - (0, 0): 9 + 16 = 25, and 5;  (1, 1) - (1, -1): 4, and 2
    target, prediction = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    assert squared_distance(target, prediction).tolist() == [25.0, 4.0]
    assert distance(target, prediction).tolist() == [5.0, 2.0]


@both
def test_gradients_pass_a_finite_difference_check(loss):
    g = torch.Generator().manual_seed(0)
    target = torch.randn(4, 3, dtype=torch.float64, generator=g, requires_grad=True)
    prediction = torch.randn(4, 3, dtype=torch.float64, generator=g, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (target, prediction))


@both
def test_equality_costs_nothing_and_has_a_finite_gradient(loss):
    x = torch.randn(3, 5)
    prediction = x.clone().requires_grad_()
    value = loss(x, prediction)
    assert (value == 0).all()
    (gradient,) = torch.autograd.grad(value.sum(), prediction)
    assert torch.isfinite(gradient).all()


@both
def test_permuting_rows_permutes_values(loss):
    target, prediction, order = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([2, 0, 3, 1])
    assert torch.equal(loss(target[order], prediction[order]), loss(target, prediction)[order])
