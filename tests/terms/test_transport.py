"""Plans, masses and mappings of layers."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import UsageError
from recdistill.terms.transport import MAPPINGS, attended, exact_plan, one_to_one, one_to_one_plan

D = torch.tensor([[1.0, 2, 4], [3, 1, 1]], dtype=torch.float64)
W, U = torch.full((2,), 1 / 2, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)


def test_the_worked_example_of_the_sheet():
    # row 1 sends all it can to column 1 (1/3), the rest of its 1/2 to column 2: 1/3 + 2/6 + 1/6 + 1/3 = 7/6
    plan = exact_plan(D, W, U)
    assert plan.flatten().tolist() == pytest.approx([1 / 3, 1 / 6, 0, 0, 1 / 6, 1 / 3])
    assert (plan * D).sum().item() == pytest.approx(7 / 6, rel=1e-12)
    # student: c = 2 (1/3 + 1/3), 2 (1/6 + 1/3) = 4/3, 1; r = 7/4, 7/3; softmax(r / 10)
    new = attended(plan, D, W, side="student", rule="published")
    assert new.tolist() == pytest.approx([0.485421, 0.514579], abs=5e-7)
    # teacher: c = 3 (1/3), 3 (1/3 + 1/6), 3 (1/3) = 1, 3/2, 1; r = 7/2, 7/3, 7/2
    new = attended(plan, D, U, side="teacher", rule="published")
    assert new.tolist() == pytest.approx([0.346035, 0.307930, 0.346035], abs=5e-7)
    assert attended(plan, D, W, side="student", rule="bert-emd").tolist() == pytest.approx([3 / 7, 4 / 7])
    assert attended(plan, D, U, side="teacher", rule="bert-emd").tolist() == pytest.approx([0.375, 0.25, 0.375])
    assert attended(plan, D, W, side="student", rule="none") is W


def test_the_relative_rule_by_hand():
    # r / mean(r) = 7/4, 7/3 over 49/24 = 6/7, 8/7; softmax of halves: sigmoid(1/7) for the second
    new = attended(exact_plan(D, W, U), D, W, side="student")
    assert new[1].item() == pytest.approx(1 / (1 + 2.718281828459045 ** (-1 / 7)))


costs = st.lists(st.floats(0.01, 10), min_size=12, max_size=12).map(lambda v: torch.tensor(v, dtype=torch.float64))


@given(costs, st.floats(0.1, 50), st.sampled_from(["relative", "published", "bert-emd"]))
@settings(max_examples=40, deadline=None)
def test_masses_are_masses_and_forget_the_scale_of_costs(values, scale, rule):
    d = values.view(3, 4)
    w, u = torch.full((3,), 1 / 3, dtype=torch.float64), torch.full((4,), 1 / 4, dtype=torch.float64)
    plan = exact_plan(d, w, u)
    for side, mass in (("student", w), ("teacher", u)):
        new = attended(plan, d, mass, side=side, rule=rule)
        assert new.sum().item() == pytest.approx(1)
        assert (new > 0).all()
        torch.testing.assert_close(new, attended(plan, d * scale, mass, side=side, rule=rule))


@given(costs)
@settings(max_examples=40, deadline=None)
def test_a_plan_keeps_its_masses_and_no_other_vertex_is_cheaper(values):
    d = values[:9].view(3, 3)
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    plan = exact_plan(d, third, third)
    torch.testing.assert_close((plan.sum(0), plan.sum(1)), (third, third))
    # with equal masses the vertices are the permutations (Birkhoff)
    cheapest = min(sum(d[i, j].item() for i, j in enumerate(order)) / 3 for order in itertools.permutations(range(3)))
    assert (plan * d).sum().item() == pytest.approx(cheapest)


def test_a_cost_of_zero_takes_all_in_the_published_rule_and_not_in_ours():
    plan = torch.tensor([[1 / 2, 0], [0, 1 / 2]], dtype=torch.float64)
    d, half = torch.tensor([[1e-4, 1.0], [1, 1]], dtype=torch.float64), W
    assert attended(plan, d, half, side="student", rule="published")[0] > 0.999
    assert 0.5 < attended(plan, d, half, side="student")[0] < 0.8
    nothing = torch.zeros_like(d)
    for rule in ("published", "bert-emd", "relative"):
        assert attended(plan, nothing, half, side="student", rule=rule).tolist() == [0.5, 0.5]


def test_no_gradient_goes_through_a_plan():
    assert not exact_plan(D.clone().requires_grad_(), W, U).requires_grad


def test_mappings_are_those_of_the_sheet():
    eight = {name: one_to_one(name, 4, 8) for name in MAPPINGS}
    assert eight["left"] == (0, 1, 2, 3)
    assert eight["right"] == (4, 5, 6, 7)
    assert eight["left-jump"] == (0, 2, 4, 6)
    assert eight["right-jump"] == (1, 3, 5, 7)
    assert (eight["last"], eight["skip"], eight["uniform"]) == (eight["right"], eight["left-jump"], eight["right-jump"])
    three = ["".join(map(str, one_to_one(name, 7, 3))) for name in MAPPINGS[:4]]
    assert three == ["0000012", "0122222", "0011222", "0001122"]


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(MAPPINGS), st.integers(0, 99))
def test_a_mapping_is_ordered_and_in_range(students, teachers, name, seed):
    found = one_to_one(name, students, teachers, seed=seed)
    assert len(found) == students
    assert list(found) == sorted(found)
    assert all(0 <= layer < teachers for layer in found)
    if students <= teachers:
        assert len(set(found)) == students
    plan = one_to_one_plan(found, teachers, torch.ones(1))
    assert plan.sum().item() == pytest.approx(1)


def test_a_mapping_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="Unknown mapping of layers; got 'top'. Allowed: left, right"):  # noqa: RUF043
        one_to_one("top", 4, 8)


def test_without_pot_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ot", None)
    with pytest.raises(UsageError, match=r'needs POT.*pip install "recdistill\[search\]"'):
        exact_plan(D, W, U)
