"""The log-sum-exp over everybody but a few, and soft labels."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.losses import log_rest as module
from recdistill.losses.log_rest import log_rest
from recdistill.losses.soft_labels import soft_bce, soft_hinge


def dense(vectors, table, row, column):
    scores = vectors @ table.T
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[row, column] = True
    return scores.masked_fill(mask, -torch.inf).logsumexp(1)


@pytest.mark.parametrize("room", [1 << 18, 70])
def test_value_and_gradients_are_those_of_the_dense_form(monkeypatch, room):
    monkeypatch.setattr(module, "_SCORES", room)
    torch.manual_seed(0)
    vectors, table = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 171))
    row = torch.tensor([0, 0, 1, 4, 4, 4, 0])
    column = torch.tensor([3, 170, 64, 0, 1, 65, 3])
    got, want = log_rest(vectors, table, row, column), dense(vectors, table, row, column)
    torch.testing.assert_close(got, want)
    up = torch.randn(5, dtype=torch.float64)
    ours = torch.autograd.grad(got, (vectors, table), up)
    theirs = torch.autograd.grad(want, (vectors, table), up)
    torch.testing.assert_close(ours, theirs)


def test_logits_of_a_hundred_stay_finite_and_nobody_left_is_minus_infinity():
    vectors, table = torch.tensor([[100.0], [1.0]]), torch.tensor([[1.0], [-1.0]])
    nothing = torch.zeros(0, dtype=torch.int64)
    assert log_rest(vectors, table, nothing, nothing).tolist() == pytest.approx([100.0, math.log(2 * math.cosh(1))])
    found = log_rest(vectors, table, torch.tensor([1, 1]), torch.tensor([0, 1]))
    assert found[1].item() == -torch.inf


def test_soft_labels_worked_by_hand():
    # s = 0, y = 1/4: -1/4 log 1/2 - 3/4 log 1/2 = log 2;  relu(2 - 1/4) = 1.75;  a score below its label is free
    assert soft_bce(torch.tensor([0.0]), torch.tensor([0.25])).item() == pytest.approx(math.log(2))
    assert soft_hinge(torch.tensor([2.0, 0.1]), torch.tensor([0.25, 0.25])).tolist() == [1.75, 0]


def test_the_least_of_soft_bce_is_where_the_sigmoid_is_the_label():
    label = torch.tensor([0.3])
    s = torch.logit(label).requires_grad_()
    soft_bce(s, label).sum().backward()
    assert abs(s.grad.item()) < 1e-6
