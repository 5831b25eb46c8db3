"""HetComp: the consensus by hand, the climb from step to step, the two stages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recdistill.clock import Clock
from recdistill.errors import UsageError
from recdistill.losses.consensus import above_the_rest, in_order
from recdistill.models.mf import MF
from recdistill.teachers.live import Live
from recdistill.terms.consensus import Consensus


def teacher(world, seed):
    return Live(MF(world.users, world.items, dim=6, init_std=1.0, seed=seed), seen=world.seen)


def make(world, courses, **changes):
    settings = {"near": 10, "positives": 3, "period": 2, "judged": 10, "seed": 4}
    return Consensus(courses, world.taken, world.users, **(settings | changes))


def run(term, world, users, epoch=0, step=0):
    batch = world.batch(users)
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock(epoch, step))


def test_the_target_is_what_the_teachers_lists_are_worth_together(world):
    courses = [[teacher(world, 1)], [teacher(world, 2)]]
    term = make(world, courses)
    found = term.targets(world.batch([7, 3]))
    for row, user in enumerate((3, 7)):
        worth = np.zeros(world.items)
        for (knows,) in courses:
            for rank, item in enumerate(knows.ranked(torch.tensor([user]), 10)[0].tolist(), start=1):
                worth[item] += math.exp(-rank / 10)
        assert found[row].tolist() == np.lexsort((np.arange(world.items), -worth))[:10].tolist()


@pytest.mark.parametrize("steps", [1, 2])
def test_the_value_is_the_formula_of_its_stage(world, steps):
    """A single step is settled at once: fine; before all steps are taken: coarse."""
    term = make(world, [[teacher(world, s) for s in range(steps)]], fine=0.5)
    rows = run(term, world, [7, 3, 7])
    users = torch.tensor([3, 7])
    items = term.targets(world.batch([7, 3, 7]))
    observed = term._observed(users, 0)
    score = (world.student.user[users] @ world.student.item.T).detach()
    rest = score.clone()
    for row, user in enumerate((3, 7)):
        rest[row, world.taken.row(user)] = -torch.inf
        rest[row, items[row]] = -torch.inf
        assert set(observed[row].tolist()) <= set(world.taken.row(user).tolist())
        assert len(set(observed[row].tolist())) == 3
    z = rest.logsumexp(1, keepdim=True)
    if steps == 2:
        want = above_the_rest(score.gather(1, torch.cat([observed, items], 1)), z)
    else:
        top = score.gather(1, items)
        lower = torch.cat([z, top[:, 5:]], 1).logsumexp(1, keepdim=True)
        want = 0.5 * (above_the_rest(score.gather(1, observed), lower) + in_order(top, z))
    assert rows.of == "users"
    torch.testing.assert_close(rows.value, want, rtol=1e-4, atol=1e-4)


def test_a_sampled_rest_is_the_whole_in_expectation_of_its_sum(world):
    term = make(world, [[teacher(world, 1)]], rest="sampled", far=30)
    batch = world.batch([3])
    student, items = world.student.view(batch.query), term.targets(batch)
    with torch.no_grad():
        found = torch.stack([term._log_rest(student, torch.tensor([3]), items, e).exp() for e in range(300)])
        exact = make(world, [[teacher(world, 1)]])._log_rest(student, torch.tensor([3]), items, 0).exp()
    assert abs(found.mean() - exact.item()) < 4 * found.std() / 300**0.5


def test_a_user_climbs_when_the_student_has_come_nearer_and_each_is_looked_at_once(world):
    low, high = teacher(world, 1), teacher(world, 2)
    term = make(world, [[low, high]])
    run(term, world, [3, 7], epoch=1)
    assert term.looked.tolist() == [-1] * world.users
    run(term, world, [3, 7], epoch=2)  # the first look finds the distance to the next step
    assert term.looked[[3, 7]].tolist() == [2, 2]
    assert term.place.sum() == 0
    with torch.no_grad():  # the student becomes the next step for user 3, and nothing for user 7
        world.student = MF(world.users, world.items, dim=6, seed=0)
        world.student.load_state_dict(high.model.state_dict())
        away = term.distance[0].clone()
        term.distance[0, 7] = 0.5
        world.student.user[7] = -high.model.user[7]
    before = term.targets(world.batch([3, 7])).clone()
    run(term, world, [3, 7], epoch=4)
    assert away[3] > 0.1
    assert term.place[0, 3] == 1
    after = term.targets(world.batch([3, 7]))
    assert after[0].tolist() == high.ranked(torch.tensor([3]), 10)[0].tolist()
    if term.place[0, 7] == 0:
        assert after[1].tolist() == before[1].tolist()


def test_when_all_have_climbed_the_order_counts(world):
    term = make(world, [[teacher(world, 1), teacher(world, 2)]])
    coarse = run(term, world, [3, 7], epoch=2).value
    term.place[0, [3, 7]] = 1
    term._made[:] = False
    term._stage = None
    fine = run(term, world, [3, 7], epoch=3).value
    assert term._stage
    assert not torch.allclose(coarse, fine)


def test_where_users_stand_is_part_of_its_state(world):
    courses = [[teacher(world, 1), teacher(world, 2)]]
    term = make(world, courses)
    run(term, world, [3, 7], epoch=2)
    term.place[0, 3] = 1
    other = make(world, courses)
    other.load_state_dict(term.state_dict())
    assert other.targets(world.batch([3])).tolist() == [courses[0][1].ranked(torch.tensor([3]), 10)[0].tolist()]
    assert other.looked[7] == 2


def test_settings_out_of_range_are_refused(world):
    with pytest.raises(UsageError, match="HetComp needs a teacher"):
        make(world, [])
