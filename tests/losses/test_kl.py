"""Divergences of logits and of layers, and the error of embeddings."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.losses.embedding_mse import embedding_mse
from recdistill.losses.kl import kl
from recdistill.losses.layer_kl import layer_costs, transported

directions = pytest.mark.parametrize("direction", ["forward", "reverse"])


def layers(count, n=6, c=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    return F.log_softmax(torch.randn(count, n, c, generator=g, dtype=torch.float64) * 2, -1)


def naive(student, teacher, direction):
    """(S, T) by torch's own divergence, pair by pair."""
    out = torch.zeros(len(student), len(teacher), dtype=torch.float64)
    for i, q in enumerate(student):
        for j, p in enumerate(teacher):
            over, under = (p, q) if direction == "forward" else (q, p)
            out[i, j] = F.kl_div(under, over, reduction="sum", log_target=True)
    return out


def test_by_hand():
    # student (1/2, 1/2), teacher (1/4, 3/4): KL(t||s) = 1/4 log 1/2 + 3/4 log 3/2; KL(s||t) = 1/2 log 2 + 1/2 log 2/3
    s, t = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])
    assert kl(s, t).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-5)
    assert kl(s, t, direction="reverse").item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-5)


@directions
@given(st.integers(0, 1000), st.floats(0.5, 5))
@settings(max_examples=20, deadline=None)
def test_it_is_never_negative_and_nothing_at_equality(direction, seed, temperature):
    g = torch.Generator().manual_seed(seed)
    s, t = torch.randn(3, 7, generator=g) * 100, torch.randn(3, 7, generator=g) * 100
    assert torch.isfinite(kl(s, t, direction=direction, temperature=temperature)).all()
    assert (kl(s, t, direction=direction, temperature=temperature) >= -1e-4).all()
    torch.testing.assert_close(kl(s + 3, s, direction=direction), torch.zeros(3), atol=1e-3, rtol=0)


@directions
def test_gradients_pass_a_finite_difference_check(direction):
    s = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    t = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: kl(s, t, direction=direction, temperature=2.0), s)


def test_temperature_keeps_the_size_of_gradients():
    # for large tau, tau^2 KL -> var-like: halves of squared differences of centred logits over I
    s, t = torch.tensor([[1.0, 0, -1]]), torch.tensor([[0.0, 1, -1]])
    assert kl(s, t, temperature=1e2).item() == pytest.approx(0.5 * 2 / 3, rel=1e-2)


@directions
def test_all_pairs_at_once_are_the_pairs_one_by_one(direction):
    q, p = layers(3), layers(4, seed=1)
    torch.testing.assert_close(layer_costs(q, p, direction=direction), naive(q, p, direction))


@directions
def test_transported_rows_sum_to_the_planned_cost_with_the_same_gradient(direction):
    q, p = layers(3), layers(4, seed=1)
    plan = torch.rand(3, 4, dtype=torch.float64)
    one, two = q.clone().requires_grad_(), q.clone().requires_grad_()
    value = transported(one, p, plan, direction=direction)
    assert value.shape == (6,)
    whole = (plan * layer_costs(two, p, direction=direction)).sum()
    torch.testing.assert_close(value.sum(), whole)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), one), torch.autograd.grad(whole, two))


@directions
def test_a_row_is_a_position(direction):
    q, p, plan = layers(2), layers(3, seed=1), torch.rand(2, 3, dtype=torch.float64)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    value = transported(q, p, plan, direction=direction)
    torch.testing.assert_close(transported(q[:, order], p[:, order], plan, direction=direction), value[order])


def test_the_error_of_embeddings_by_hand():
    s, t = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]]), torch.tensor([[1.0, 0, 3, 0], [2, 2, 2, 2]])
    assert embedding_mse(s, t).tolist() == [5.0, 4.0]  # (4 + 16) / 4
