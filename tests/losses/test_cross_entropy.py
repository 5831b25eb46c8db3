"""Cross-entropy over the catalogue: by hand, equal to the plain form in value and gradient, whatever the chunks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.losses import cross_entropy as module
from recdistill.losses.cross_entropy import cross_entropy, log_partition
from recdistill.losses.sampled_softmax import sampled_softmax


def plain(vectors, items, target):
    return F.cross_entropy(vectors @ items.T, target, reduction="none")


def sides(rows=5, catalogue=11, dim=3, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    made = [torch.randn(n, dim, dtype=dtype, generator=g).requires_grad_() for n in (rows, catalogue)]
    return *made, torch.randint(catalogue, (rows,), generator=g)


def test_three_items_by_hand():
    # scores 1, 2, 0: log(e + e^2 + 1) = log(2.718282 + 7.389056 + 1) = 2.407606; minus the target's 2
    vectors, items = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    for chunk in (1, 2, 3, None):
        assert cross_entropy(vectors, items, torch.tensor([1]), chunk=chunk).item() == pytest.approx(0.407606, abs=1e-6)


@given(st.integers(0, 6), st.integers(1, 20), st.integers(1, 25), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_value_and_gradients_are_those_of_the_plain_form(rows, catalogue, chunk, seed):
    vectors, items, target = sides(rows, catalogue, seed=seed)
    upstream = torch.linspace(-1, 2, rows, dtype=torch.float64)
    found = cross_entropy(vectors, items, target, chunk=chunk)
    want = plain(vectors, items, target)
    torch.testing.assert_close(found, want)
    for one, other in zip(
        torch.autograd.grad(found, (vectors, items), upstream),
        torch.autograd.grad(want, (vectors, items), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_gradients_pass_a_finite_difference_check():
    vectors, items, target = sides()
    assert torch.autograd.gradcheck(lambda v, i: cross_entropy(v, i, target, chunk=4), (vectors, items))


@pytest.mark.parametrize("which", [0, 1])
def test_a_side_that_needs_no_gradient_gets_none(which):
    vectors, items, target = sides()
    (items if which == 0 else vectors).requires_grad_(requires_grad=False)
    cross_entropy(vectors, items, target).sum().backward()
    assert (vectors.grad is None) == (which == 1)
    assert (items.grad is None) == (which == 0)


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_scores_stay_finite_with_finite_gradients(size):
    vectors = torch.tensor([[size], [-size]], requires_grad=True)
    items = torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True)
    value = cross_entropy(vectors, items, torch.tensor([1, 1]), chunk=1)
    assert value.tolist() == pytest.approx([2 * size, 0.0])
    for gradient in torch.autograd.grad(value.sum(), (vectors, items)):
        assert torch.isfinite(gradient).all()


def test_what_is_left_out_is_no_part_of_the_sum():
    vectors, items, _ = sides()
    without = torch.tensor([[0, 3], [-1, 10], [2, 2], [-1, -1], [9, 1]])
    for chunk in (1, 4, None):
        found = log_partition(vectors, items, without=without, chunk=chunk)
        scores = vectors @ items.T
        for row, gone in enumerate(without.tolist()):
            kept = [i for i in range(11) if i not in gone]
            torch.testing.assert_close(found[row], scores[row, kept].logsumexp(0))
    gone = torch.arange(11).repeat(5, 1)
    nothing = log_partition(vectors, items, without=gone, chunk=4)
    assert torch.isneginf(nothing).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(nothing.sum(), (vectors, items)))


def test_no_more_scores_exist_at_a_time_than_said(monkeypatch):
    monkeypatch.setattr(module, "_SCORES", 1 << 12)
    sizes = []
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda *a, out: sizes.append(out.numel()) or mm(*a, out=out))
    vectors, items, target = sides(rows=8, catalogue=5000, dtype=torch.float32)
    cross_entropy(vectors, items, target)
    assert len(sizes) > 1
    assert max(sizes) <= 1 << 12


def test_sampled_softmax_by_hand():
    # two draws of chance 1/8 each: each stands for 1 / (2 / 8) = 4 items;  log(e^2 + 4 e^1 + 4 e^-1) - 2
    value = sampled_softmax(torch.tensor([2.0]), torch.tensor([[1.0, -1.0]]), torch.tensor([[1 / 8]]).log())
    assert value.item() == pytest.approx(math.log(math.e**2 + 4 * math.e + 4 / math.e) - 2, abs=1e-6)


def test_sampled_softmax_of_equal_scores_counts_every_item():
    value = sampled_softmax(torch.zeros(2), torch.zeros(2, 5), torch.full((2, 1), 1 / 99).log())
    torch.testing.assert_close(value, torch.full((2,), math.log(100)))


def test_all_items_drawn_once_are_the_full_softmax():
    vectors, items, target = sides(catalogue=6)
    scores = vectors @ items.T
    others = torch.stack([torch.tensor([i for i in range(6) if i != t]) for t in target.tolist()])
    positive, negatives = scores.gather(1, target[:, None])[:, 0], scores.gather(1, others)
    log_q = torch.full((5, 5), 1 / 5, dtype=torch.float64).log()
    torch.testing.assert_close(sampled_softmax(positive, negatives, log_q), plain(vectors, items, target))


def test_sampled_softmax_is_right_on_average_for_unequal_chances():
    vectors, items, _ = sides(rows=1, catalogue=7)
    scores = (vectors @ items.T)[0].detach()
    chance = torch.linspace(1, 3, 6, dtype=torch.float64)
    chance /= chance.sum()
    drawn = torch.multinomial(chance, 4 * 40_000, replacement=True, generator=torch.Generator().manual_seed(1)) + 1
    drawn = drawn.view(40_000, 4)
    value = sampled_softmax(scores[:1].expand(40_000), scores[drawn], chance.log()[drawn - 1])
    total = (value + scores[0]).exp().mean()  # the estimate of the sum is unbiased, its logarithm is not
    assert total.item() == pytest.approx(scores.exp().sum().item(), rel=0.01)
