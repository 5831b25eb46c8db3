"""The mixture of experts through its documented function: a naive twin, gradients, and what may be left out."""

from __future__ import annotations

import pytest
import torch

from recdistill.terms.mixture import Experts, mixture


def inputs(n=6, m=4, h=5, s=3, t=7, *, dtype=torch.float64, tau=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=dtype, generator=g)

    weights = torch.softmax(normal(n, m) / tau, 1)
    return normal(n, s), weights, Experts(normal(m * h, s), normal(m * h), normal(m * h, t), normal(m, t))


def naive(x, weights, e: Experts):
    m = weights.shape[1]
    h = e.w1.shape[0] // m
    out = x.new_zeros(x.shape[0], e.w2.shape[1])
    for k in range(m):
        own = slice(k * h, (k + 1) * h)
        out = out + weights[:, k : k + 1] * (torch.relu(x @ e.w1[own].T + e.b1[own]) @ e.w2[own] + e.b2[k])
    return out


def leaves(x, weights, experts):
    return [each.detach().clone().requires_grad_() for each in (x, weights, *experts)]


@pytest.mark.parametrize("n", [1, 6, 33])
@pytest.mark.parametrize("m", [1, 4])
def test_it_equals_a_loop_over_experts_with_its_gradients(n, m):
    given = leaves(*inputs(n, m))
    upstream = torch.randn(n, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = mixture(given[0], given[1], Experts(*given[2:]))
    want = naive(given[0], given[1], Experts(*given[2:]))
    torch.testing.assert_close(got, want)
    ours = torch.autograd.grad((got * upstream).sum(), given)
    theirs = torch.autograd.grad((want * upstream).sum(), given)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_pass_a_finite_difference_check():
    given = leaves(*inputs(3, 2, 3, 2, 2))
    assert torch.autograd.gradcheck(lambda x, w, *e: mixture(x, w, Experts(*e)), given)


@pytest.mark.parametrize("tau", [0.3, 0.05])
def test_leaving_out_light_experts_equals_the_loop_over_those_that_are_kept(tau):
    x, weights, experts = inputs(40, 10, tau=tau)
    given = leaves(x, weights, experts)
    kept = torch.where(given[1] >= 0.1 / 10, given[1], 0)
    got = mixture(given[0], given[1], Experts(*given[2:]), dropped=0.1)
    want, whole = naive(given[0], kept, Experts(*given[2:])), naive(x, weights, experts)
    assert torch.allclose(got, want) or torch.allclose(got, whole), "each row is asked of the kept experts, or of all"
    assert ((got - whole).norm(dim=1) / whole.norm(dim=1)).max() < 0.5
    upstream = torch.randn(40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    like = want if torch.allclose(got, want) else naive(given[0], given[1], Experts(*given[2:]))
    ours = torch.autograd.grad((got * upstream).sum(), given)
    theirs = torch.autograd.grad((like * upstream).sum(), given)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_bfloat16_products_are_close_and_come_back_in_float32():
    x, weights, experts = inputs(64, 4, 32, 16, 24, dtype=torch.float32)
    exact = mixture(x, weights, experts)
    low = mixture(x, weights, experts, precision="bfloat16")
    assert low.dtype == torch.float32
    assert ((low - exact).norm() / exact.norm()).item() < 0.02
