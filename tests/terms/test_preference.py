"""PCKD's regulariser: only experts learn from it."""

from __future__ import annotations

import pytest
import torch

from recdistill.clock import Clock, constant
from recdistill.errors import UsageError
from recdistill.losses.soft_ranking import soft_ranking
from recdistill.terms.expert_match import ExpertMatch
from recdistill.terms.preference import PreferenceConsistency


def experts(m=2):
    return [
        ExpertMatch(side, student_dim=4, teacher_dim=12, temperature=constant(1.0), experts=m, seed=2, dropped=0.0)
        for side in ("user", "item")
    ]


def run(world, term, users):
    batch = world.batch(users)
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock())


def test_the_value_is_the_cross_entropy_of_projected_with_plain_products(world):
    users, items = experts(1)
    term = PreferenceConsistency(users, items, world.taken, world.users, drawn=4, depth=4, temperature=0.5)
    rows = run(world, term, [9, 2])

    def through(e, x):
        return torch.relu(x @ e.w1.T + e.b1) @ e.w2 + e.b2[0]

    want = []
    for user in (2, 9):
        listed = world.teacher.ranked(torch.tensor([user]), 4)[0]  # all four are drawn
        x, y = world.student.user[user], world.student.item[listed]
        after, before = through(items, y) @ through(users, x), y @ x
        want.append(soft_ranking(after[None], before[None], torch.ones(1, 4, dtype=torch.bool), temperature=0.5))
    assert rows.of == "users"
    torch.testing.assert_close(rows.value, torch.cat(want), rtol=1e-4, atol=1e-4)


def test_the_students_vectors_have_no_gradient_and_the_experts_have(world):
    users, items = experts()
    term = PreferenceConsistency(users, items, world.taken, world.users, drawn=3, depth=20)
    run(world, term, [1, 2, 3]).value.sum().backward()
    assert world.student.user.grad is None
    assert world.student.item.grad is None
    assert users.w1.grad.abs().sum() > 0
    assert items.w2.grad.abs().sum() > 0
    assert list(term.parameters()) == []


def test_settings_out_of_range_are_refused(world):
    with pytest.raises(UsageError, match="PCKD needs 2 <= drawn <= depth"):
        PreferenceConsistency(*experts(), world.taken, world.users, drawn=1)
