"""CD's term: golden value, whose ranks guide, what is drawn."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.clock import Clock
from recdistill.errors import UsageError
from recdistill.terms.soft_labels import SoftLabels


def make(world, **changes):
    return SoftLabels(world.taken, **({"candidates": 90, "drawn": 5, "seed": 2} | changes))


def run(term, world, users, step=0):
    batch = world.batch(users)
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock(0, step))


def test_all_zero_scores_of_both_cost_log_two_an_item(world):
    with torch.no_grad():
        world.student.user.zero_()
        world.teacher.model.user.zero_()
    rows = run(make(world), world, [3, 1, 3])
    assert rows.of == "users"
    assert rows.value.tolist() == pytest.approx([5 * math.log(2)] * 2, rel=1e-5)


def test_the_value_is_the_cross_entropy_with_the_teachers_softened_scores(world):
    term = make(world, temperature=2.0, shift=0.5)
    rows = run(term, world, [3])
    batch = world.batch([3])
    student, teacher = world.student.view(batch.query), world.teacher.view(batch.query)
    items, _, there = term.draw(student, teacher, torch.tensor([3]), Clock())
    assert there.all()
    q = torch.sigmoid((world.teacher.model.item[items[0]] @ world.teacher.model.user[3] + 0.5) / 2)
    p = torch.sigmoid(world.student.item[items[0]] @ world.student.user[3])
    torch.testing.assert_close(rows.value[0], -(q * p.log() + (1 - q) * (1 - p).log()).sum())


@pytest.mark.parametrize("guide", ["student", "teacher"])
def test_candidates_as_many_as_items_draw_from_the_guides_whole_ranking(world, guide):
    """Weight e^(-gamma j / n): with a large gamma the guide's very first items are drawn."""
    term = make(world, guide=guide, sharpness=5000.0)
    batch = world.batch([7])
    views = {"student": world.student.view(batch.query), "teacher": world.teacher.view(batch.query)}
    items, _, _ = term.draw(views["student"], views["teacher"], torch.tensor([7]), Clock())
    scores = views[guide].scores_among(torch.arange(world.items))[0].detach()
    scores[world.taken.row(7)] = -torch.inf
    assert items[0].tolist() == scores.topk(5).indices.tolist()


def test_training_items_are_never_drawn(world):
    batch = world.batch(list(range(20)))
    term = make(world, sharpness=0.0, drawn=60)
    items, _, there = term.draw(
        world.student.view(batch.query), world.teacher.view(batch.query), torch.arange(20), Clock()
    )
    for user in range(20):
        assert not set(items[user][there[user]].tolist()) & set(world.taken.row(user).tolist())
        assert len(set(items[user][there[user]].tolist())) == 60


def test_gradients_reach_the_drawn_items_alone(world):
    term = make(world)
    rows = run(term, world, [3])
    (of_items,) = torch.autograd.grad(rows.value.sum(), world.student.item)
    assert int((of_items.abs().sum(1) > 0).sum()) == 5


def test_settings_out_of_range_are_refused(world):
    with pytest.raises(UsageError, match="CD needs 1 <= drawn <= candidates; got 'drawn=5, candidates=4'"):
        make(world, candidates=4)
    with pytest.raises(UsageError, match="CD needs sharpness >= 0 and temperature > 0"):
        make(world, temperature=0.0)
