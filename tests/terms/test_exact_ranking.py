"""A list above everything else, exactly, on both sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.clock import Clock
from recdistill.data.csr import Csr
from recdistill.data.draws import Taken
from recdistill.models.mf import MF
from recdistill.query import Batch, Query
from recdistill.terms.exact_ranking import ExactRanking

CPU = torch.device("cpu")
LISTS = torch.tensor([[2, 0], [4, -1], [1, 3]])  # of 3 users over 5 items
TAKEN = Csr.from_pairs([0, 0, 1, 2], [4, 1, 0, 0], 3, 5)


def batch(rows, side="user"):
    ids = torch.tensor(rows)
    return Batch(Query(ids, side=side), ids.new_empty(0), ids.new_empty(0, 1))


def naive(scores, near, gone):
    near = [i for i in near if i >= 0]
    rest = [i for i in range(len(scores)) if i not in near and i not in gone]
    total = 0.0
    for k, i in enumerate(near):
        total -= scores[i] - torch.logsumexp(scores[near[k:] + rest], 0)
    return total


def test_users_over_items_and_items_over_users_are_those_of_the_definition():
    net = MF(3, 5, dim=2, init_std=1.0, seed=1)
    term = ExactRanking(LISTS, Taken.of(TAKEN, CPU))
    b = batch([2, 0, 0, 1])
    found = term(net.view(b.query), None, b, Clock())
    scores = net.user @ net.item.T
    want = torch.stack([naive(scores[u], LISTS[u].tolist(), TAKEN.row(u).tolist()) for u in (0, 1, 2)])
    torch.testing.assert_close(found.value, want, msg="each distinct user once")
    assert found.of == "users"
    lists = torch.tensor([[1, 2], [2, 0], [0, 1], [1, -1], [0, -1]])
    items = ExactRanking(lists, Taken.of(TAKEN.transposed(), CPU), side="item")
    b = batch([4, 1], side="item")
    found = items(net.view(b.query), None, b, Clock())
    want = torch.stack([naive(scores.T[i], lists[i].tolist(), TAKEN.transposed().row(i).tolist()) for i in (1, 4)])
    torch.testing.assert_close(found.value, want)
    assert found.of == "items"


def test_a_user_with_equal_scores_costs_the_logarithm_of_the_falling_product():
    # 5 items, list of 2, one gone: log 4 + log 3, with all scores 0
    net = MF(3, 5, dim=2, seed=0)
    torch.nn.init.zeros_(net.user)
    term = ExactRanking(LISTS, Taken.of(Csr.from_pairs([0], [4], 3, 5), CPU))
    b = batch([0])
    value = term(net.view(b.query), None, b, Clock()).value
    assert value.item() == pytest.approx(np.log(4) + np.log(3), rel=1e-6)


def test_what_is_nowhere_gets_no_gradient():
    net = MF(3, 5, dim=2, init_std=1.0, seed=1)
    term = ExactRanking(LISTS, Taken.of(TAKEN, CPU))
    b = batch([0])
    term(net.view(b.query), None, b, Clock()).value.sum().backward()
    assert net.item.grad[[1, 4]].abs().max() == 0
    assert net.item.grad[[0, 2, 3]].abs().min() > 0


def test_permuting_items_permutes_nothing_else():
    net = MF(3, 5, dim=2, init_std=1.0, seed=1)
    order = torch.tensor([3, 1, 4, 0, 2])
    place = torch.argsort(order)
    other = MF(3, 5, dim=2, seed=1)
    other.load_state_dict({"user": net.user.detach(), "item": net.item.detach()[order]})
    lists = torch.where(LISTS >= 0, place[LISTS.clamp(min=0)], -1)
    row = np.repeat(np.arange(3), TAKEN.degrees)
    taken = Csr.from_pairs(row, place.numpy()[TAKEN.indices], 3, 5)
    b = batch([0, 1, 2])
    one = ExactRanking(LISTS, Taken.of(TAKEN, CPU))(net.view(b.query), None, b, Clock()).value
    two = ExactRanking(lists, Taken.of(taken, CPU))(other.view(b.query), None, b, Clock()).value
    torch.testing.assert_close(one, two)
