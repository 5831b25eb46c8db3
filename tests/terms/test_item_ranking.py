"""IR-RRD's item side: golden value, whose lists, draws, and the mirror image of RRD."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.clock import Clock
from recdistill.errors import UsageError
from recdistill.losses.relaxed_ranking import relaxed_ranking
from recdistill.terms.item_ranking import ItemRanking
from recdistill.terms.lists import best_users
from recdistill.terms.relaxed_ranking import RelaxedRanking


def make(world, **changes):
    users = RelaxedRanking(world.taken, world.users, near=3, far=2, depth=12, reach=8, seed=1)
    settings = {"near": 3, "far": 4, "depth": 6, "reach": 5, "seed": 1} | changes
    return ItemRanking(users, lambda: best_users(world.teacher, world.taken, world.users, 6), world.taken, **settings)


def run(term, world, users, epoch=0, step=0):
    batch = world.batch(users)
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock(epoch, step))


def test_all_zero_scores_give_the_closed_form_for_every_item_drawn(world):
    # log((K + L)! / L!) at K = 3, L = 4: 7 * 6 * 5 = 210
    with torch.no_grad():
        world.student.user.zero_()
    term = make(world)
    rows = run(term, world, [4, 9, 4])
    drawn = torch.cat(term._users[0].draws(torch.tensor([4, 9])), 1)
    assert rows.of == "items"
    assert len(rows.value) == len(drawn[drawn >= 0].unique())
    assert rows.value.tolist() == pytest.approx([math.log(210)] * len(rows.value), rel=1e-5)


def test_interesting_users_are_of_the_list_in_its_order_and_others_neither_in_it_nor_have_the_item(world):
    term = make(world)
    run(term, world, [0, 1, 2])
    lists = best_users(world.teacher, world.taken, world.users, 6)
    near, far = term._draws.of(torch.arange(world.items))
    for item in world.batch([0]).positive.tolist():
        mine = lists[item].tolist()
        assert [mine.index(u) for u in near[item].tolist()] == sorted(mine.index(u) for u in near[item].tolist())
        has = [u for u in range(world.users) if item in world.taken.row(u).tolist()]
        assert not set(far[item].tolist()) & set(mine)
        assert not set(far[item].tolist()) & set(has)


def test_the_value_is_the_relaxed_ranking_of_the_items_over_users(world):
    term = make(world, items="positives")
    rows = run(term, world, [4, 9])
    ids = world.batch([4, 9]).positive.unique()
    near, far = term._draws.of(ids)
    score = world.student.item[ids] @ world.student.user.T
    torch.testing.assert_close(rows.value, relaxed_ranking(score.gather(1, near), score.gather(1, far)))


def test_a_constant_added_to_all_scores_of_an_item_changes_nothing(world):
    term = make(world, items="positives")
    one = run(term, world, [4, 9]).value
    with torch.no_grad():  # an inner product: one dimension that all users share
        world.student.user[:, 0] = 1.0
    base = run(term, world, [4, 9]).value
    with torch.no_grad():
        world.student.item[:, 0] += 5.0
    torch.testing.assert_close(run(term, world, [4, 9]).value, base, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(one, base)


def test_a_part_of_the_items_weighs_as_much_as_all_in_expectation(world):
    whole = run(make(world), world, [1, 2, 3, 4]).value.sum().item()
    part = make(world, most=5)
    with torch.no_grad():
        found = [run(part, world, [1, 2, 3, 4], step=step).value for step in range(400)]
    assert {len(each) for each in found} == {5}
    mean = torch.stack([each.sum() for each in found])
    assert abs(mean.mean().item() - whole) < 4 * mean.std().item() / 20


def test_draws_change_with_the_epoch_alone(world):
    term = make(world)
    one, same, other = (run(term, world, [3, 7], epoch=e, step=s).value for e, s in ((0, 0), (0, 5), (1, 0)))
    torch.testing.assert_close(one, same)
    assert one.shape != other.shape or not torch.allclose(one, other)


def test_settings_out_of_range_are_refused_by_their_names(world):
    with pytest.raises(UsageError, match="IR-RRD needs 1 <= item_near <= item_reach <= item_depth; got 'item_near=9"):
        make(world, near=9)
    with pytest.raises(UsageError, match="IR-RRD needs most >= 0; got -1"):
        make(world, most=-1)
