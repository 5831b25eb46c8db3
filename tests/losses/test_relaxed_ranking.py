"""Relaxed ranking: golden values, a naive twin, padding, and what repairs an inversion."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from recdistill.losses import relaxed_ranking as module
from recdistill.losses.relaxed_ranking import relaxed_ranking


def naive(near: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
    """The formula term by term, in float64; an item at -inf is not there."""
    out = []
    for all_near, all_far in zip(near.double(), far.double(), strict=True):
        a, b = all_near[all_near > -torch.inf], all_far[all_far > -torch.inf]
        out.append(sum((torch.logsumexp(torch.cat([a[k:], b]), 0) - a[k] for k in range(len(a))), torch.tensor(0.0)))
    return torch.stack([value.double() for value in out])


def draw(q: int, k: int, n: int, *, scale: float = 1.0, dtype=torch.float64, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(q, k, dtype=dtype, generator=g), scale * torch.randn(q, n, dtype=dtype, generator=g))


@pytest.fixture(params=["near", "log-space"])
def branch(request, monkeypatch):
    """Both ways to the value: sums of exponentials, and logarithms throughout."""
    monkeypatch.setattr(module, "_SPREAD", math.inf if request.param == "near" else 0.0)
    return request.param


@pytest.mark.parametrize(("k", "n", "want"), [(40, 40, 163.352), (20, 20, 67.985), (100, 200, 551.674)])
def test_all_zero_scores_give_the_closed_form(branch, k, n, want):
    # log((K + L)! / L!)
    assert math.lgamma(k + n + 1) - math.lgamma(n + 1) == pytest.approx(want, abs=5e-4)
    value = relaxed_ranking(torch.zeros(2, k), torch.zeros(2, n))
    assert value.tolist() == pytest.approx([want] * 2, abs=1e-3)


def test_a_case_by_hand(branch):
    # a = [1, 0], b = [0]:  log(e + 1 + 1) - 1 = 1.551445 - 1;  log(1 + 1) - 0 = 0.693147
    value = relaxed_ranking(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0]]))
    assert value.item() == pytest.approx(0.551445 + 0.693147, abs=1e-5)


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_both_ways_agree_with_the_naive_formula(branch, scale):
    near, far = draw(6, 7, 5, scale=min(scale, 8.0) if branch == "near" else scale)
    torch.testing.assert_close(relaxed_ranking(near, far), naive(near, far))


def test_gradients_pass_a_finite_difference_check(branch):
    near, far = draw(3, 5, 4)
    assert torch.autograd.gradcheck(relaxed_ranking, (near.requires_grad_(), far.requires_grad_()))


def test_gradients_with_padding_equal_those_of_the_formula(branch):
    near, far = draw(3, 5, 4)
    near[0, 3:], far[1, 2:], near[2] = -torch.inf, -torch.inf, -torch.inf
    near.requires_grad_()
    far.requires_grad_()
    got = torch.autograd.grad(relaxed_ranking(near, far).sum(), (near, far))
    want = torch.autograd.grad(naive(near, far).sum(), (near, far))
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_a_row_sum_to_nothing(branch):
    # the value ignores a constant, so its directional derivative along (1, ..., 1) is 0
    near, far = (x.requires_grad_() for x in draw(4, 6, 3))
    of_near, of_far = torch.autograd.grad(relaxed_ranking(near, far).sum(), (near, far))
    torch.testing.assert_close(of_near.sum(1) + of_far.sum(1), torch.zeros(4, dtype=torch.float64))


def test_missing_items_change_nothing(branch):
    near, far = draw(2, 4, 3)
    nothing = torch.full((2, 2), -torch.inf, dtype=torch.float64)
    padded = relaxed_ranking(torch.cat([near, nothing], 1), torch.cat([far, nothing], 1))
    torch.testing.assert_close(padded, relaxed_ranking(near, far))


def test_a_row_with_nothing_costs_nothing(branch):
    nothing = torch.full((1, 3), -torch.inf, requires_grad=True)
    value = relaxed_ranking(nothing, nothing)
    assert value.item() == 0
    (gradient,) = torch.autograd.grad(value.sum(), nothing)
    assert (gradient == 0).all()


def test_no_uninteresting_items_is_list_mle(branch):
    near, _ = draw(3, 4, 1)
    none = torch.full((3, 1), -torch.inf, dtype=torch.float64)
    # Plackett-Luce of the whole order: the probabilities of all orders sum to 1
    total = sum(torch.exp(-relaxed_ranking(near[:, list(order)], none)) for order in itertools.permutations(range(4)))
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64))


def test_a_constant_added_to_all_scores_changes_nothing(branch):
    near, far = draw(4, 5, 6)
    torch.testing.assert_close(relaxed_ranking(near + 11, far + 11), relaxed_ranking(near, far))


def test_permuting_users_permutes_values_and_the_order_of_uninteresting_items_is_nothing(branch):
    near, far = draw(4, 5, 6)
    order = torch.tensor([2, 0, 3, 1])
    value = relaxed_ranking(near, far)
    torch.testing.assert_close(relaxed_ranking(near[order], far[order]), value[order])
    torch.testing.assert_close(relaxed_ranking(near, far.flip(1)), value)


@given(st.integers(0, 10_000), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_repairing_an_inversion_lowers_it(seed, place):
    near, far = draw(1, 6, 4, seed=seed)
    low, high = near[0, place], near[0, place + 1]
    if low == high:
        return
    right, wrong = near.clone(), near.clone()
    right[0, place], right[0, place + 1] = torch.maximum(low, high), torch.minimum(low, high)
    wrong[0, place], wrong[0, place + 1] = torch.minimum(low, high), torch.maximum(low, high)
    assert relaxed_ranking(right, far).item() < relaxed_ranking(wrong, far).item()


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_pushing_an_uninteresting_item_down_lowers_it(seed):
    near, far = draw(1, 4, 4, seed=seed)
    pushed = far.clone()
    pushed[0, 0] -= 1
    assert relaxed_ranking(near, pushed).item() < relaxed_ranking(near, far).item()


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_scores_stay_finite(size):
    near = torch.tensor([[-size, size, 0.0], [size, -size, size]], requires_grad=True)
    far = torch.tensor([[size, -size], [-size, size]], requires_grad=True)
    value = relaxed_ranking(near, far)
    torch.testing.assert_close(value.double(), naive(near, far).detach(), rtol=1e-5, atol=1e-3)
    for gradient in torch.autograd.grad(value.sum(), (near, far)):
        assert torch.isfinite(gradient).all()


def test_the_two_ways_meet_in_float32(monkeypatch):
    near, far = draw(50, 40, 40, scale=4.0, dtype=torch.float32)
    results = []
    for spread in (math.inf, 0.0):
        monkeypatch.setattr(module, "_SPREAD", spread)
        leaves = [x.clone().requires_grad_() for x in (near, far)]
        value = relaxed_ranking(*leaves)
        results.append([value.detach(), *torch.autograd.grad(value.sum(), leaves)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("near", "far"), [([0.0, torch.nan], 0.0), ([torch.nan, 0.0], 0.0), ([0.0, 1.0], torch.nan)])
def test_a_score_that_is_not_a_number_is_not_hidden(branch, near, far):
    assert relaxed_ranking(torch.tensor([near]), torch.tensor([[far]])).isnan().all()


def test_a_second_derivative_is_refused_rather_than_wrong(branch):
    near, far = (x.requires_grad_() for x in draw(2, 3, 3))
    (gradient,) = torch.autograd.grad(relaxed_ranking(near, far).square().sum(), near, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
