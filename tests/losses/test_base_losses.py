"""BPR, BCE and sampled softmax: values by hand, gradients, and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.losses.bce import bce
from recdistill.losses.bpr import bpr
from recdistill.losses.softmax import softmax

LOSSES = [bpr, bce, softmax]
every_loss = pytest.mark.parametrize("loss", LOSSES)


def scores(dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(5, dtype=dtype, generator=g), torch.randn(5, 3, dtype=dtype, generator=g)


def test_bpr_by_hand():
    # differences 2 - 1 = 1 and 2 - (-1) = 3: log(1 + e^-1) + log(1 + e^-3) = 0.313262 + 0.048587
    assert bpr(torch.tensor([2.0]), torch.tensor([[1.0, -1.0]])).item() == pytest.approx(0.361849, abs=1e-6)


def test_bce_by_hand():
    # -log sigmoid(2) = log(1 + e^-2) = 0.126928;  -log(1 - sigmoid(1)) = log(1 + e) = 1.313262;
    # -log(1 - sigmoid(-1)) = log(1 + e^-1) = 0.313262
    assert bce(torch.tensor([2.0]), torch.tensor([[1.0, -1.0]])).item() == pytest.approx(1.753452, abs=1e-6)


def test_softmax_by_hand():
    # log(e^2 + e^1 + e^-1) - 2 = log(7.389056 + 2.718282 + 0.367879) - 2 = 2.348993 - 2
    # 10.475217 = e^2.349012
    value = math.log(math.e**2 + math.e + 1 / math.e) - 2
    assert value == pytest.approx(0.349012, abs=1e-6)
    assert softmax(torch.tensor([2.0]), torch.tensor([[1.0, -1.0]])).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("loss", "want"), [(bpr, 3 * math.log(2)), (bce, 4 * math.log(2)), (softmax, math.log(4))])
def test_equal_scores_of_zero_give_the_documented_value(loss, want):
    torch.testing.assert_close(loss(torch.zeros(2), torch.zeros(2, 3)), torch.full((2,), want))


def test_softmax_of_one_negative_is_bpr():
    positive, negatives = scores()
    torch.testing.assert_close(softmax(positive, negatives[:, :1]), bpr(positive, negatives[:, :1]))


@every_loss
def test_gradients_pass_a_finite_difference_check(loss):
    positive, negatives = scores()
    assert torch.autograd.gradcheck(loss, (positive.requires_grad_(), negatives.requires_grad_()))


@every_loss
def test_one_value_a_row_and_permuting_rows_permutes_them(loss):
    positive, negatives = scores()
    order = torch.tensor([3, 0, 4, 1, 2])
    value = loss(positive, negatives)
    assert value.shape == (5,)
    torch.testing.assert_close(loss(positive[order], negatives[order]), value[order])


@every_loss
def test_the_order_of_negatives_is_nothing(loss):
    positive, negatives = scores()
    torch.testing.assert_close(loss(positive, negatives.flip(1)), loss(positive, negatives))


@pytest.mark.parametrize("loss", [bpr, softmax])
def test_a_constant_added_to_all_scores_changes_nothing(loss):
    positive, negatives = scores()
    torch.testing.assert_close(loss(positive + 7, negatives + 7), loss(positive, negatives))


def test_bce_is_pointwise_so_a_constant_does_change_it():
    positive, negatives = scores()
    assert not torch.allclose(bce(positive + 7, negatives + 7), bce(positive, negatives))


@every_loss
def test_it_falls_when_the_positive_rises_and_rises_with_a_negative(loss):
    positive, negatives = scores()
    assert (loss(positive + 0.5, negatives) < loss(positive, negatives)).all()
    assert (loss(positive, negatives + 0.5) > loss(positive, negatives)).all()


@every_loss
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_scores_stay_finite_with_finite_gradients(loss, size):
    positive = torch.tensor([size, -size, 0.0], requires_grad=True)
    negatives = torch.tensor([[-size, size], [size, size], [size, -size]], requires_grad=True)
    value = loss(positive, negatives)
    assert torch.isfinite(value).all()
    for gradient in torch.autograd.grad(value.sum(), (positive, negatives)):
        assert torch.isfinite(gradient).all()


@every_loss
def test_no_negatives_leave_what_the_positive_alone_costs(loss):
    value = loss(torch.tensor([1.5]), torch.zeros(1, 0))
    want = math.log1p(math.exp(-1.5)) if loss is bce else 0.0
    assert value.item() == pytest.approx(want, abs=1e-6)
