"""Softmax against softmax over a few items."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.losses.soft_ranking import soft_ranking

ALL = torch.ones(1, 2, dtype=torch.bool)


def test_a_case_by_hand():
    # teacher (log 3, 0): shares .75, .25; student (0, log 3): log shares log .25, log .75
    t, s = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, math.log(3)]])
    want = -(0.75 * math.log(0.25) + 0.25 * math.log(0.75))
    assert soft_ranking(s, t, ALL).item() == pytest.approx(want, abs=1e-6)
    # temperature 1/2 doubles the scores: shares .9, .1
    want = -(0.9 * math.log(0.1) + 0.1 * math.log(0.9))
    assert soft_ranking(s, t, ALL, temperature=0.5).item() == pytest.approx(want, abs=1e-5)


def test_it_is_least_at_equality_up_to_a_constant_and_ignores_one():
    g = torch.Generator().manual_seed(0)
    t = torch.randn(4, 5, generator=g, dtype=torch.float64)
    s = torch.randn(4, 5, generator=g, dtype=torch.float64)
    there = torch.ones(4, 5, dtype=torch.bool)
    assert (soft_ranking(s, t, there) > soft_ranking(t + 3, t, there)).all()
    torch.testing.assert_close(soft_ranking(s + 50, t - 7, there), soft_ranking(s, t, there))


def test_what_is_not_there_changes_nothing_and_nobodys_items_cost_nothing():
    s = torch.tensor([[1.0, -torch.inf, 2.0], [1.0, 2.0, 3.0]], requires_grad=True)
    t = torch.tensor([[0.0, -torch.inf, 1.0], [1.0, 2.0, 3.0]])
    there = torch.tensor([[True, False, True], [False, False, False]])
    value = soft_ranking(s, t, there)
    alone = soft_ranking(s[:1, [0, 2]], t[:1, [0, 2]], ALL)
    torch.testing.assert_close(value[:1], alone)
    assert value[1] == 0
    value.sum().backward()
    assert torch.isfinite(s.grad).all()


def test_gradients_pass_a_finite_difference_check():
    g = torch.Generator().manual_seed(0)
    t = torch.randn(3, 4, generator=g, dtype=torch.float64)
    s = torch.randn(3, 4, generator=g, dtype=torch.float64).requires_grad_()
    there = torch.tensor([[True] * 4, [True, False, True, True], [False] * 4])
    assert torch.autograd.gradcheck(lambda s: soft_ranking(s, t, there, temperature=0.7), (s,))
