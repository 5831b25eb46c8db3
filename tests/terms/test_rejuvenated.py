"""RCE-KD: whose items are drawn and compared, how the two parts weigh."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill import rng
from recdistill.clock import Clock
from recdistill.errors import UsageError
from recdistill.losses.soft_ranking import soft_ranking
from recdistill.terms.rejuvenated import Rejuvenated, log_weights


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


def drawn_by(draw, own, wanted, user, epoch=0):
    """The five items of `own` whose Gumbel words, with the weights of their places, are greatest; one place a time."""
    noise = rng.gumbel(rng.key(3, "own items", epoch), torch.tensor([user]), len(own))[0].tolist()
    left = [sum(i in wanted for i in own[place:]) for place in range(len(own))]
    weight = [(1 + n) / 4 if draw == "shared" else -(place + 1) / 4 for place, n in enumerate(left)]
    order = sorted(range(len(own)), key=lambda place: -noise[place] - weight[place])
    return [own[place] for place in order[:5]]


@pytest.mark.parametrize("draw", ["shared", "own"])
def test_the_value_is_the_formula_one_user_at_a_time(world, draw):
    term = make(world, draw=draw)
    rows = run(term, world, [9, 2, 9], epoch=1)
    want = []
    for user in (2, 9):
        own, wanted = best(world.student, world.taken, user, 12), best(world.teacher.model, world.taken, user, 6)
        assert term.own[user].tolist() == own
        drawn = drawn_by(draw, own, wanted, user, epoch=1)
        other = [i for i in wanted if i not in drawn and i not in own[:6]]
        w = math.exp(-2.0 * sum(i in drawn for i in wanted) / 6)

        def part(items, user=user):
            s, t = ((m.item[items] @ m.user[user])[None] for m in (world.student, world.teacher.model))
            return soft_ranking(s, t, torch.ones(1, len(items), dtype=torch.bool))

        want.append((1 - w) * part(own[:6]) + w * part(drawn + other))
    assert rows.of == "users"
    torch.testing.assert_close(rows.value, torch.cat(want), rtol=1e-4, atol=1e-4)


def test_the_weights_of_places_are_the_papers_by_hand():
    own = torch.tensor([[7, 3, 9, 5, -1], [0, 1, 2, 4, 6]])
    wanted = torch.tensor([[5, 8, 7, 3], [-1, -1, -1, -1]])  # 3 of the teacher's from 7 on, 2 from 3 on, 1 down to 5
    want = torch.tensor([[4.0, 3.0, 2.0, 2.0, 1.0], [1.0] * 5]) / 10
    torch.testing.assert_close(log_weights(own, wanted, 10.0), want)
    many = torch.arange(60)[None]  # no more than 50 are counted
    torch.testing.assert_close(log_weights(many, many, 1.0)[0, [0, 10, 11, 59]], torch.tensor([51.0, 51, 50, 2]))


@pytest.mark.parametrize(("draw", "weights"), [("shared", [4, 3, 3, 2, 1, 1]), ("own", [-1, -2, -3, -4, -5, -6])])
def test_places_are_drawn_as_often_as_their_weights_say(world, draw, weights):
    many = 20_000
    term = Rejuvenated(world.taken, many, near=3, drawn=1, reach=6, draw=draw, sharpness=2.0, seed=3)
    term.own[:], term.found_in[:] = torch.arange(6), 0
    wanted = torch.tensor([0, 2, 3]).expand(many, 3)
    _, drawn = term._looks(None, torch.arange(many), wanted, 0)
    share = torch.bincount(drawn[:, 0], minlength=6) / many
    torch.testing.assert_close(share, torch.tensor(weights).div(2).softmax(0), rtol=0, atol=0.015)


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
