"""UnKD: groups of equal popularity, pairs within them, in the teacher's order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.clock import Clock
from recdistill.data.csr import Csr
from recdistill.data.draws import Taken
from recdistill.errors import UsageError
from recdistill.terms.stratified import StratifiedPairs, popularity_groups, shared_out


def make(world, **changes):
    settings = {"groups": 3, "pairs": 12, "depth": 90, "reach": 10, "sharpness": 4.0, "seed": 2}
    return StratifiedPairs(world.taken, world.users, **(settings | changes))


def run(term, world, users, epoch=0):
    batch = world.batch(users)
    return term(world.student.view(batch.query), world.teacher.view(batch.query), batch, Clock(epoch))


def test_groups_hold_equal_shares_of_the_popularity():
    # counts 4, 2, 1, 1, 0: of 8 in all, the first item is half, the other three the other half; who has none comes last
    user = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    item = np.array([2, 2, 2, 2, 0, 0, 3, 4])
    taken = Taken.of(Csr.from_pairs(user, item, 4, 5), torch.device("cpu"))
    group, mean = popularity_groups(taken, 2)
    assert group.tolist() == [1, 1, 0, 1, 1]
    assert mean.tolist() == [4.0, 1.0]


def test_pairs_are_shared_out_evenly_or_towards_what_is_less_popular():
    popularity = torch.tensor([9.0, 4.0, 1.0])
    assert torch.bincount(shared_out(popularity, 12, 0.0)).tolist() == [4, 4, 4]
    # shares 1, 6, 9 of 16: of the 9 pairs beyond one each .56, 3.94, 9: rounded ends 1, 4, 9
    assert torch.bincount(shared_out(popularity, 12, 1.0)).tolist() == [2, 4, 6]


def test_a_pair_is_of_one_group_and_in_the_teachers_order(world):
    term = make(world)
    run(term, world, list(range(20)))
    better, worse, there = term.pairs(torch.arange(20), 0)
    group, _ = popularity_groups(world.taken, 3)
    order = world.teacher.ranked(torch.arange(20), 84)  # everything a user does not have
    assert there.float().mean() > 0.99
    for user in range(20):
        place = {item: at for at, item in enumerate(order[user].tolist())}
        for a, b in zip(better[user][there[user]].tolist(), worse[user][there[user]].tolist(), strict=True):
            assert group[a] == group[b]
            assert place[a] < place[b]
            inside = [item for item in order[user].tolist() if group[item] == group[a]]
            assert inside.index(b) < 10, "within reach"


def test_ranks_are_drawn_by_their_weight(world):
    term = make(world, groups=1, pairs=2000, reach=4, sharpness=2.0)
    run(term, world, [3])
    better, worse, _ = term.pairs(torch.tensor([3]), 5)
    order = world.teacher.ranked(torch.tensor([3]), 4)[0]
    w = torch.exp(-torch.arange(1, 5) / 2.0)
    w = w / w.sum()
    chance = w[:, None] * w[None]
    chance = (chance - chance.diag().diag()) / (1 - chance.diag().sum())  # of two that differ
    for i in range(4):
        for j in range(i + 1, 4):
            share = ((better[0] == order[i]) & (worse[0] == order[j])).float().mean().item()
            assert share == pytest.approx(2 * chance[i, j].item(), abs=0.04)


def test_the_value_is_the_mean_over_pairs_and_each_user_counts_once(world):
    term = make(world)
    rows = run(term, world, [7, 3, 7], 1)
    better, worse, there = term.pairs(torch.tensor([3, 7]), 1)
    apart = (world.student.user[[3, 7], None] * (world.student.item[better] - world.student.item[worse])).sum(2)
    want = (torch.nn.functional.softplus(-apart) * there).sum(1) / there.sum(1)
    assert rows.of == "users"
    torch.testing.assert_close(rows.value, want)


def test_all_zero_scores_cost_log_two(world):
    with torch.no_grad():
        world.student.user.zero_()
    assert run(make(world), world, [1]).value.tolist() == pytest.approx([0.693147], abs=1e-6)


def test_settings_out_of_range_are_refused(world):
    with pytest.raises(UsageError, match="UnKD needs 1 <= groups <= pairs and as many items"):
        make(world, groups=13)
