"""RCE-KD: whose items are compared, how the two parts weigh."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.clock import Clock
from recdistill.errors import UsageError
from recdistill.losses.soft_ranking import soft_ranking
from recdistill.terms.rejuvenated import Rejuvenated


def make(world, **changes):
    settings = {"near": 6, "drawn": 5, "reach": 12, "sharpness": 4.0, "beta": 2.0, "seed": 3}
    return Rejuvenated(world.taken, world.users, **(settings | changes))


def run(term, world, users, epoch=0):
    batch = world.batch(users)
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock(epoch))


def best(model, taken, user, k):
    score = (model.item @ model.user[user]).detach().clone()
    score[taken.row(user)] = -torch.inf
    return score.topk(k).indices.tolist()


def test_the_value_is_the_formula_one_user_at_a_time(world):
    term = make(world)
    rows = run(term, world, [9, 2, 9])
    want = []
    for user in (2, 9):
        own, wanted = best(world.student, world.taken, user, 12), best(world.teacher.model, world.taken, user, 6)
        assert term.own[user].tolist() == own
        _, drawn = term._looks(None, torch.tensor([user]), 0)
        drawn = drawn[0].tolist()
        assert set(drawn) <= set(own)
        assert len(set(drawn)) == 5
        other = [i for i in wanted if i not in drawn and i not in own[:6]]
        w = math.exp(-2.0 * sum(i in drawn for i in wanted) / 6)

        def part(items, user=user):
            s, t = ((m.item[items] @ m.user[user])[None] for m in (world.student, world.teacher.model))
            return soft_ranking(s, t, torch.ones(1, len(items), dtype=torch.bool))

        want.append((1 - w) * part(own[:6]) + w * part(drawn + other))
    assert rows.of == "users"
    torch.testing.assert_close(rows.value, torch.cat(want), rtol=1e-4, atol=1e-4)


def test_the_students_list_is_found_again_every_period_and_is_part_of_the_state(world):
    term = make(world, period=2)
    run(term, world, [4])
    old = term.own[4].clone()
    with torch.no_grad():
        world.student.user[4] *= -1
    run(term, world, [4], epoch=1)
    assert torch.equal(term.own[4], old)
    run(term, world, [4], epoch=2)
    assert not torch.equal(term.own[4], old)
    assert set(term.state_dict()) == {"own", "found_in"}


def test_settings_out_of_range_are_refused(world):
    with pytest.raises(UsageError, match="RCE-KD needs 1 <= near, drawn <= reach"):
        make(world, near=13)
