"""What every kind of ranker promises, asked as evaluation and serving ask it."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.data.csr import Csr
from recdistill.evaluation.ranking import RANKERS, ranker
from recdistill.models import MODELS

ITEMS = 37
OF = {"vectors": "mf", "neumf": "neumf"}
pytestmark = pytest.mark.parametrize("kind", RANKERS)


@pytest.fixture
def made(kind, built):
    return ranker(kind, built(OF[kind]).arrays(), threads=1)


def test_every_kind_is_made_by_a_model_and_every_model_is_of_a_kind(kind, built):
    assert built(OF[kind]).kind == kind
    assert {built(name).kind for name in MODELS} == set(RANKERS)


def test_sizes_are_those_of_the_arrays(made):
    assert (made.n_users, made.n_items) == (24, ITEMS)


def test_answers_do_not_depend_on_what_else_is_asked(made, log):
    users = np.arange(24)
    whole = made.top_k(users, 10, log.csr())
    np.testing.assert_array_equal(np.concatenate([made.top_k(users[u : u + 1], 10, log.csr()) for u in users]), whole)
    np.testing.assert_array_equal(made.top_k(users[::-1], 10, log.csr()), whole[::-1])
    np.testing.assert_array_equal(made.top_k(np.array([3, 3]), 10, log.csr()), whole[[3, 3]])


def test_lists_scores_and_ranks_tell_one_story(made):
    users = np.arange(24)
    lists = made.top_k(users, ITEMS)
    scores = made.scores_of(users, lists)
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    others = lists[:, 5:]
    rank = made.ranks_among(users, lists[:, 4], others)
    assert (rank == 1).all(), "the fifth is the first among those after it"
    rank = made.ranks_among(users, lists[:, 4], np.concatenate([lists[:, :4], np.full((24, 2), -1)], 1))
    assert (rank == 5).all(), "and the fifth with those before it; -1 is nobody"


def test_an_item_is_left_out_for_whom_it_is_excluded(made):
    first = made.top_k(np.array([2]), 1)[0, 0]
    gone = Csr.from_pairs([2], [first], 24, ITEMS)
    assert made.top_k(np.array([2]), ITEMS, gone)[0].tolist().count(first) == 0
    assert made.top_k(np.array([3]), ITEMS, gone)[0].tolist().count(first) == 1


@pytest.mark.parametrize("row", [-1, 24, 10**9])
def test_a_user_it_has_no_row_for_gets_no_answer_and_no_error(made, row):
    assert made.top_k(np.array([row, 1]), 3)[0].tolist() == [-1, -1, -1]
    assert np.isneginf(made.scores_of(np.array([row]), np.array([[0, 1]]))).all()
    assert np.isinf(made.ranks_among(np.array([row]), np.array([0]), np.array([[1]]))).all()


def test_more_than_the_catalogue_ends_in_nothing(made):
    lists = made.top_k(np.array([0]), ITEMS + 4)
    assert sorted(lists[0, :ITEMS].tolist()) == list(range(ITEMS))
    assert (lists[0, ITEMS:] == -1).all()
