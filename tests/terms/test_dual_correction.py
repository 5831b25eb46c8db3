"""DCD's terms: what they draw, and what they cost."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.clock import Clock
from recdistill.errors import UsageError
from recdistill.losses.relaxed_ranking import relaxed_ranking
from recdistill.terms.dual_correction import ItemCorrection, UserCorrection
from recdistill.terms.lists import best_users


def run(term, world, users, clock=None):
    batch = world.batch(users)
    clock = clock or Clock()
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, clock)


def test_where_every_error_is_drawn_the_value_is_the_formula(world):
    """K and L as large as the list: under-estimated items in the teacher's order above over-estimated ones."""
    term = UserCorrection(world.taken, world.users, near=10, far=10, depth=10, steep=0.1)
    rows = run(term, world, [8, 3, 8])
    want = []
    for user in (3, 8):
        items = world.teacher.ranked(torch.tensor([user]), 10)[0]
        score = world.student.item[items] @ world.student.user[user]
        rank = (-score).argsort(stable=True).argsort()
        lower = rank - torch.arange(10)
        want.append(relaxed_ranking(score[lower > 0][None], score[lower < 0][None]))
    assert rows.of == "users"
    torch.testing.assert_close(rows.value, torch.cat(want))


def test_a_student_without_errors_learns_nothing(world):
    rows = UserCorrection(world.taken, world.users, near=4, far=4, depth=10)
    batch = world.batch([1, 2])
    view = world.teacher.model.view(batch.query)
    assert rows(view, world.teacher.view(batch.query), batch, Clock()).value.abs().max() == 0


def test_all_zero_scores_are_the_teachers_order_and_cost_nothing(world):
    with torch.no_grad():
        world.student.user.zero_()
    assert run(UserCorrection(world.taken, world.users, near=4, far=4, depth=10), world, [1, 2]).value.sum() == 0


def test_items_are_the_distinct_positives_and_their_lists_are_of_users(world):
    lists = best_users(world.teacher, world.taken, world.users, 8)
    term = ItemCorrection(lambda: lists, near=8, far=8, steep=0.1)
    rows = run(term, world, [8, 3, 8, 5])
    ids = world.batch([8, 3, 8, 5]).positive.unique()
    score = (world.student.item[ids] @ world.student.user.T).gather(1, lists[ids].long())
    want = []
    for each in score:
        lower = (-each).argsort(stable=True).argsort() - torch.arange(8)
        want.append(relaxed_ranking(each[lower > 0][None], each[lower < 0][None]))
    assert rows.of == "items"
    torch.testing.assert_close(rows.value, torch.cat(want))


def test_draws_follow_the_weights(world):
    """Of one item with a large error and one with a small, the first is drawn more often: tanh(9 e) to tanh(e)."""
    term = UserCorrection(world.taken, world.users, near=1, far=1, depth=10, steep=0.1)
    batch, user = world.batch([6]), 6
    items = world.teacher.ranked(torch.tensor([user]), 10)[0]
    wanted = torch.tensor([9, 0, 1, 2, 3, 4, 5, 6, 8, 7])  # rank of each place: 9 lower, 1 lower (place 8 -> rank 8)
    scores = torch.full((1, world.items), -50.0)
    scores[0, items] = -wanted.float()

    class Fixed:
        def select(self, index):
            return self

        def scores(self, asked):
            return scores.expand(len(asked), -1).gather(1, asked)

    teacher = world.teacher.view(batch.query)
    values = [term(Fixed(), teacher, batch, Clock(0, step)).value.item() for step in range(20)]
    # one item falls (place 0 by nine), so it is the only one that can be drawn; what is above it differs
    assert all(value > math.log(1 + math.e**0) for value in values)
    assert len({round(value, 4) for value in values}) > 1


@pytest.mark.parametrize("change", [{"near": 0}, {"far": 0}, {"steep": 0.0}])
def test_settings_out_of_range_are_refused(world, change):
    with pytest.raises(UsageError, match="DCD needs near >= 1, far >= 1 and steep > 0"):
        UserCorrection(world.taken, world.users, **change)
