"""RRD's term: what is drawn, for whom, and what it counts."""

from __future__ import annotations

import math

import pytest
import torch

from recdistill.clock import Clock
from recdistill.data.csr import Csr
from recdistill.data.draws import Taken
from recdistill.errors import MissingKnowledge, UsageError
from recdistill.knowledge.view import Kind, View
from recdistill.losses.relaxed_ranking import relaxed_ranking
from recdistill.models.mf import MF
from recdistill.query import Batch, Query
from recdistill.teachers.live import Live
from recdistill.terms.relaxed_ranking import RelaxedRanking


class Lists(View):
    """A teacher of given lists."""

    def __init__(self, lists: torch.Tensor, row: torch.Tensor, asked: list[list[int]]) -> None:
        self.lists, self.row, self.asked = lists, row, asked

    def select(self, index):
        return Lists(self.lists, self.row[index], self.asked)

    def ranked(self, k):
        self.asked.append(self.row.tolist())
        return self.lists[self.row, :k]


def batch_of(users: list[int]) -> Batch:
    row = torch.tensor(users)
    return Batch(Query(row), torch.zeros(len(users), dtype=torch.int64), torch.zeros(len(users), 1, dtype=torch.int64))


def run(term: RelaxedRanking, world, users: list[int], epoch: int = 0):
    batch = world.batch(users)
    view = world.teacher.view(batch.query)
    return term(world.student.view(batch.query), view, batch, Clock(epoch))


def make(world, **changes) -> RelaxedRanking:
    return RelaxedRanking(
        world.taken,
        world.users,
        **({"near": 5, "far": 7, "depth": 30, "reach": 20, "sharpness": 3.0, "seed": 9} | changes),
    )


def test_zero_scores_cost_the_closed_form_for_every_distinct_user_once():
    # 163.352 = log(80! / 40!) at K = L = 40, whatever is drawn; users 3 and 7 are there three times and once
    users, items = 9, 700
    taken = Taken.of(Csr.empty(users, items), torch.device("cpu"))
    student = MF(users, items, dim=3)
    torch.nn.init.zeros_(student.user)
    teacher = Live(MF(users, items, dim=5, seed=1), seen=Csr.empty(users, items))
    batch = batch_of([3, 7, 3, 3, 1])
    rows = RelaxedRanking(taken, users)(student.view(batch.query), teacher.view(batch.query), batch, Clock())
    assert rows.of == "users"
    assert rows.value.tolist() == pytest.approx([163.352] * 3, abs=1e-3)
    assert rows.value.sum().item() == pytest.approx(3 * 163.352, abs=3e-3)


def test_interesting_items_are_from_the_teacher_s_list_in_its_order_without_repetition(world):
    term = make(world)
    run(term, world, list(range(20)))
    near, _ = term.draws(torch.arange(20))
    lists = world.teacher.ranked(torch.arange(20), 20).tolist()
    for user, drawn in enumerate(near.tolist()):
        ranks = [lists[user].index(item) for item in drawn]
        assert ranks == sorted(set(ranks))


def test_uninteresting_items_are_outside_train_and_the_whole_list(world):
    term = make(world)
    run(term, world, list(range(20)))
    _, far = term.draws(torch.arange(20))
    lists = world.teacher.ranked(torch.arange(20), 30).tolist()
    for user, drawn in enumerate(far.tolist()):
        assert len(set(drawn)) == 7
        assert not set(drawn) & (set(lists[user]) | set(world.seen.row(user).tolist()) | {-1})


def test_top_takes_the_head_of_the_list(world):
    term = make(world, draw="top")
    run(term, world, [2, 11])
    assert torch.equal(term.draws(torch.tensor([2, 11]))[0], world.teacher.ranked(torch.tensor([2, 11]), 5))


def test_draws_are_a_function_of_seed_epoch_and_user_whatever_the_batch(world):
    users = torch.arange(20)

    def drawn(order: list[list[int]], epoch: int = 0, **changes):
        term = make(world, **changes)
        for part in order:
            run(term, world, part, epoch)
        return torch.cat(term.draws(users), 1)

    whole = drawn([list(range(20))])
    assert torch.equal(drawn([[user] for user in reversed(range(20))]), whole)
    assert torch.equal(drawn([[4, 4, 9], list(range(20)), [3]]), whole)
    assert not torch.equal(drawn([list(range(20))], epoch=1), whole)
    assert not torch.equal(drawn([list(range(20))], seed=10), whole)


def test_an_epoch_draws_once_for_a_user_and_the_next_one_again(world):
    term = make(world)
    run(term, world, [1, 2])
    before = torch.cat(term.draws(torch.tensor([1])), 1)
    run(term, world, [1, 5])
    assert torch.equal(torch.cat(term.draws(torch.tensor([1])), 1), before)
    run(term, world, [1], epoch=1)
    assert not torch.equal(torch.cat(term.draws(torch.tensor([1])), 1), before)


def test_a_term_that_begins_at_a_later_epoch_draws_what_one_from_the_start_draws(world):
    one, other = make(world), make(world)
    for epoch in range(4):
        run(one, world, [3, 8], epoch)
    run(other, world, [8, 3], 3)
    assert torch.equal(torch.cat(one.draws(torch.tensor([3, 8])), 1), torch.cat(other.draws(torch.tensor([3, 8])), 1))


def test_the_teacher_is_asked_for_a_user_s_list_once_in_a_run(world):
    term, asked = make(world), []
    lists = world.teacher.ranked(torch.arange(20), 30)
    for epoch, users in enumerate([[4, 2, 4], [2, 7], [7, 4]]):
        batch = batch_of(users)
        term(world.student.view(batch.query), Lists(lists, batch.query.row, asked), batch, Clock(epoch))
    assert asked == [[2, 4], [7]]


def test_the_value_is_the_loss_of_the_student_s_scores(world):
    term = make(world)
    rows = run(term, world, [6, 1, 6])
    near, far = term.draws(torch.tensor([1, 6]))
    view = world.student.view(Query(torch.tensor([1, 6])))
    torch.testing.assert_close(rows.value, relaxed_ranking(view.scores(near), view.scores(far)))


def test_a_short_list_is_padded_and_an_unknown_user_costs_nothing(world):
    lists = torch.full((20, 30), -1)
    lists[0, :3] = torch.tensor([50, 10, 30])
    term = make(world)
    batch = batch_of([0, 1])
    rows = term(world.student.view(batch.query), Lists(lists, batch.query.row, []), batch, Clock())
    near, far = term.draws(torch.tensor([0, 1]))
    assert near.tolist() == [[50, 10, 30, -1, -1], [-1] * 5]
    assert (far >= 0).all()
    assert torch.isfinite(rows.value).all()
    assert rows.value[1] == 0
    rows.value.sum().backward()
    assert torch.isfinite(world.student.user.grad).all()
    assert (world.student.user.grad[1] == 0).all()


def test_a_list_longer_than_the_catalogue_and_no_item_left_below():
    taken = Taken.of(Csr.from_pairs([0], [1], 1, 4), torch.device("cpu"))
    term = RelaxedRanking(taken, 1, near=3, far=2, depth=500, reach=128)
    batch = batch_of([0])
    teacher = Lists(torch.tensor([[3, 0, 2, -1]]), batch.query.row, [])
    rows = term(MF(1, 4, dim=2).view(batch.query), teacher, batch, Clock())
    near, far = term.draws(torch.tensor([0]))
    assert near.tolist() == [[3, 0, 2]]
    assert far.tolist() == [[-1, -1]]
    assert rows.value.item() == pytest.approx(math.log(6), abs=1e-3)  # log 3!, near-zero scores


def test_ranks_are_drawn_as_often_as_the_published_sampler_draws_them():
    # sheet, section 3, T = 10, K = 40 of 500: ranks <= 10 drawn with P 1.000, <= 20: .997, <= 40: .877;
    # each of 41-60: .21; mean deepest rank 64
    users, items = 6000, 1200
    lists = torch.arange(500).repeat(users, 1)
    taken = Taken.of(Csr.empty(users, items), torch.device("cpu"))
    term = RelaxedRanking(taken, users, far=1, seed=3)
    batch = batch_of(list(range(users)))
    term(MF(users, items, dim=1).view(batch.query), Lists(lists, batch.query.row, []), batch, Clock())
    near, _ = term.draws(torch.arange(users))  # item = rank - 1
    often = torch.bincount(near.flatten(), minlength=500) / users
    assert often[:10].mean().item() == pytest.approx(1.0, abs=0.001)
    assert often[:20].mean().item() == pytest.approx(0.997, abs=0.002)
    assert often[:40].mean().item() == pytest.approx(0.877, abs=0.003)
    assert often[40:60].mean().item() == pytest.approx(0.21, abs=0.01)
    assert (near.amax(1) + 1).float().mean().item() == pytest.approx(64, abs=1.0)
    assert often[100:].sum().item() == pytest.approx(0.013, abs=0.008)


def test_settings_that_cannot_be_are_refused(world):
    with pytest.raises(UsageError, match=r"RRD needs 1 <= near <= reach <= depth; got 'near=5, reach=4, depth=30'"):
        make(world, reach=4)
    with pytest.raises(UsageError, match=r"RRD needs far >= 1 and sharpness > 0; got 'far=7, sharpness=0'"):
        make(world, sharpness=0)


def test_it_needs_a_teacher_with_ranks(world):
    assert RelaxedRanking.of_teacher == {Kind.RANKS}
    batch = world.batch([1])
    with pytest.raises(MissingKnowledge, match=r"No teacher cannot give ranks\. Give the pass of this term a teacher"):
        make(world)(world.student.view(batch.query), None, batch, Clock())
