"""What a teacher ranks first: of items, users, from scores or from lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.data.csr import Csr
from recdistill.data.draws import Taken
from recdistill.knowledge.view import Kind, View
from recdistill.models.mf import MF
from recdistill.models.neumf import NeuMF
from recdistill.query import Query
from recdistill.teachers.live import Live
from recdistill.terms import lists as module
from recdistill.terms.lists import best_users


class Lists:
    """A teacher of lists alone."""

    provides = frozenset({Kind.RANKS})

    def __init__(self, lists):
        self.lists = torch.tensor(lists)

    def view(self, query):
        return _ListsView(self.lists[query.row])


class _ListsView(View):
    def __init__(self, lists):
        self.lists = lists

    def ranked(self, k):
        return self.lists[:, :k]


def test_users_of_an_item_are_those_who_score_it_most_and_do_not_have_it(world, monkeypatch):
    monkeypatch.setattr(module, "_SCORES", 20 * 7)  # seven items at a time
    found = best_users(world.teacher, world.taken, world.users, 5)
    score = (world.teacher.model.user @ world.teacher.model.item.T).detach().numpy()
    for user, item in zip(*divmod(world.taken.keys.numpy(), world.items), strict=True):
        score[user, item] = -np.inf
    for item in range(world.items):
        assert found[item].tolist() == np.argsort(-score[:, item])[:5].tolist()


def test_a_teacher_of_lists_names_the_users_in_whose_lists_an_item_stands_highest():
    # item 1 is first of user 2, second of user 0, third of user 1; item 0 of users 0 and 1 first: by user
    teacher = Lists([[0, 1, 3], [0, 3, 1], [1, -1, -1]])
    taken = Taken.of(Csr.from_pairs(np.array([2]), np.array([0]), 3, 4), torch.device("cpu"))
    found = best_users(teacher, taken, 3, 2)
    assert found.tolist() == [[0, 1], [2, 0], [-1, -1], [1, 0]]


@pytest.mark.parametrize("model", [MF, NeuMF])
def test_scores_of_users_for_items_are_those_of_items_for_users(model):
    net = model(6, 8, dim=4, init_std=0.7, seed=3)
    teacher = Live(net, seen=Csr.empty(6, 8))
    whole = net.view(Query(torch.arange(6))).scores_among(torch.arange(8))  # (U, I)
    users = torch.tensor([[0, 5, 5], [1, -1, 2]])
    for view in (net.view(Query(torch.tensor([4]))), teacher.view(Query(torch.tensor([4])))):
        found = view.scores_of(torch.tensor([7, 2]), users)
        torch.testing.assert_close(found[0], whole[[0, 5, 5], 7])
        torch.testing.assert_close(found[1, [0, 2]], whole[[1, 2], 2])
        assert found[1, 1] == -torch.inf
