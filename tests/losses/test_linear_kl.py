"""The divergence of two models of vectors: that of their scores, in value and gradient, however many are kept."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.losses import kl as softmaxes
from recdistill.losses import linear_kl as module
from recdistill.losses.kl import kl
from recdistill.losses.linear_kl import Linear, linear_kl

directions = pytest.mark.parametrize("direction", ["forward", "reverse"])


def models(rows=5, catalogue=11, dims=(3, 4), dtype=torch.float64, seed=0):
    """Student and teacher."""
    g = torch.Generator().manual_seed(seed)
    return [
        Linear(*(torch.randn(n, dim, dtype=dtype, generator=g).requires_grad_() for n in (rows, catalogue)))
        for dim in dims
    ]


def test_two_items_by_hand():
    # scores (0, 0) and (0, log 3): student (1/2, 1/2), teacher (1/4, 3/4)
    student = Linear(torch.zeros(1, 1), torch.zeros(2, 1))
    teacher = Linear(torch.ones(1, 1), torch.tensor([[0.0], [math.log(3)]]))
    forward = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert linear_kl(student, teacher).item() == pytest.approx(forward, rel=1e-5)
    reverse = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert linear_kl(student, teacher, direction="reverse").item() == pytest.approx(reverse, rel=1e-5)


@directions
@given(st.integers(0, 6), st.integers(1, 20), st.sampled_from([0, 1 << 20]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_value_and_gradients_are_those_of_the_scores(direction, rows, catalogue, kept, seed):
    student, teacher = models(rows, catalogue, seed=seed)
    upstream = torch.linspace(-1, 2, rows, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_KEPT", kept)
        patch.setattr(module, "_SCORES", 3 * catalogue)
        patch.setattr(softmaxes, "_ROOM", 2 * catalogue)
        found = linear_kl(student, teacher, direction=direction, temperature=1.7)
        ours = torch.autograd.grad(found, student[:2], upstream)
    scores = [model.vectors @ model.items.T for model in (student, teacher)]
    want = kl(*scores, direction=direction, temperature=1.7)
    torch.testing.assert_close(found, want)
    for one, other in zip(ours, torch.autograd.grad(want, student[:2], upstream), strict=True):
        torch.testing.assert_close(one, other)


@directions
def test_gradients_pass_a_finite_difference_check(direction):
    student, teacher = models(rows=3, catalogue=4)
    assert torch.autograd.gradcheck(
        lambda v, i: linear_kl(Linear(v, i), teacher, direction=direction, temperature=2.0), student[:2]
    )


@directions
def test_scores_far_apart_are_finite(direction):
    student, teacher = models(dtype=torch.float32)
    far = Linear(student.vectors * 100, student.items * 100)
    value = linear_kl(far, teacher, direction=direction)
    assert torch.isfinite(value).all()
    assert all(torch.isfinite(each).all() for each in torch.autograd.grad(value.sum(), student[:2]))


def test_nothing_reaches_the_teacher():
    student, teacher = models()
    linear_kl(student, teacher).sum().backward()
    assert student.items.grad is not None
    assert teacher.items.grad is None


@directions
def test_a_teacher_of_another_precision_is_compared_in_the_students(direction):
    student, teacher = (Linear(*(each.detach().float() for each in model)) for model in models())
    finer = Linear(*(each.double() for each in teacher))
    assert torch.equal(linear_kl(student, finer, direction=direction), linear_kl(student, teacher, direction=direction))
    scores = [model.vectors @ model.items.T for model in (student, teacher)]
    assert torch.equal(kl(scores[0], scores[1].double(), direction=direction), kl(*scores, direction=direction))


@pytest.mark.parametrize("kept", [0, 1 << 20])
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_side_that_learns_nothing_gets_no_gradient(frozen, kept, monkeypatch):
    monkeypatch.setattr(module, "_KEPT", kept)
    student, teacher = models()
    linear_kl(student, teacher).sum().backward()
    alone, _ = models()
    alone[frozen].requires_grad_(requires_grad=False)
    linear_kl(alone, teacher).sum().backward()
    assert alone[frozen].grad is None
    torch.testing.assert_close(alone[1 - frozen].grad, student[1 - frozen].grad)
