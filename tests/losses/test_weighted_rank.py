"""RD's loss and its two weights: golden values, gradients, what is not there."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.losses.weighted_rank import discrepancy, position_weights, weighted_rank


def test_a_case_by_hand():
    # weights .75 and .25, scores 0 and log 3: .75 log 2 + .25 log(1 + 1/3) = .519860 + .071921
    value = weighted_rank(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.75, 0.25]]))
    assert value.item() == pytest.approx(0.519860 + 0.071921, abs=1e-5)


def test_positions_weigh_by_an_exponential_that_sums_to_one():
    # e^-1, e^-2 over their sum: 1 / (1 + e^-1) = .731059
    assert position_weights(2, 1.0, like=torch.zeros(1)).tolist() == pytest.approx([0.731059, 0.268941], abs=1e-6)


def test_the_discrepancy_of_a_case_by_hand():
    # I = 9; of 4 sampled scores (3, 1, 0, -1) one is above 2, three above -0.5: r' = 1 + floor(8 * 1/4) = 3 and
    # 1 + floor(8 * 3/4) = 7; places 1 and 2: tanh(.1 * 2), tanh(.1 * 5)
    found = discrepancy(torch.tensor([[2.0, -0.5]]), torch.tensor([[3.0, 1.0, 0.0, -1.0]]), n_items=9, steep=0.1)
    assert found[0].tolist() == pytest.approx([math.tanh(0.2), math.tanh(0.5)], abs=1e-6)


def test_an_item_the_student_ranks_as_high_weighs_nothing():
    found = discrepancy(torch.tensor([[5.0, 4.0]]), torch.tensor([[3.0, 1.0]]), n_items=100, steep=0.1)
    assert found.tolist() == [[0.0, 0.0]]


def test_sampled_items_that_are_not_there_change_nothing():
    near, some = torch.tensor([[0.5, 2.0]]), torch.tensor([[1.0, 0.0]])
    padded = torch.cat([some, torch.full((1, 3), -torch.inf)], 1)
    args = {"n_items": 50, "steep": 0.05}
    torch.testing.assert_close(discrepancy(near, padded, **args), discrepancy(near, some, **args))


def test_what_weighs_nothing_may_score_anything():
    scores = torch.tensor([[1.0, -torch.inf, 100.0]], requires_grad=True)
    value = weighted_rank(scores, torch.tensor([[1.0, 0.0, 0.5]]))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[0, 1] == 0


def test_gradients_pass_a_finite_difference_check():
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, dtype=torch.float64, generator=g).requires_grad_()
    weights = torch.rand(3, 4, dtype=torch.float64, generator=g)
    assert torch.autograd.gradcheck(lambda s: weighted_rank(s, weights), (scores,))
