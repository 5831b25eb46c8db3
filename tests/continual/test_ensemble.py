"""Ranks of several members, averaged."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.continual import ensemble
from recdistill.continual.ensemble import EnsembleRanker, Lists, lists_of
from recdistill.data.csr import Csr
from recdistill.errors import UsageError

CHANCE = np.random.default_rng(0)
U, ITEMS, M = 31, 23, 3
MEMBERS = [
    (
        np.round(CHANCE.normal(size=(U, 4)), 1).astype(np.float32),
        np.round(CHANCE.normal(size=(ITEMS, 4)), 1).astype(np.float32),
    )
    for _ in range(M)
]
TRAIN = Csr.from_pairs(CHANCE.integers(0, U, 120), CHANCE.integers(0, ITEMS, 120), U, ITEMS)


def naive():
    out = np.zeros((U, ITEMS))
    for user, item in MEMBERS:
        scores = user @ item.T
        for u in range(U):
            for rank, i in enumerate(sorted(range(ITEMS), key=lambda i: (-scores[u, i], i)), 1):
                out[u, i] += rank**-0.05 / M
    return out


def test_a_rank_counts_what_the_paper_says():
    user, item = np.ones((1, 1), np.float32), np.array([[1.0], [3.0], [-2.0], [3.0]], np.float32)
    # ranks 3, 1, 4, 2: equal scores by the smaller item
    found = EnsembleRanker([(user, item)]).scores(np.array([0]))[0]
    np.testing.assert_allclose(found, [3**-0.05, 1, 4**-0.05, 2**-0.05], rtol=1e-6)


@pytest.mark.parametrize("room", [1 << 21, 100])
def test_scores_and_lists_are_those_of_the_naive_form(monkeypatch, room):
    monkeypatch.setattr(ensemble, "_SCORES", room)
    ranker = EnsembleRanker(MEMBERS)
    found = ranker.scores(np.arange(U))
    np.testing.assert_allclose(found, naive(), rtol=1e-5)
    allowed = found.copy()
    for u in range(U):
        allowed[u, TRAIN.row(u)] = -1
    lists = lists_of(ranker, TRAIN, 6)
    for u in range(U):
        order = [i for i in sorted(range(ITEMS), key=lambda i: (-allowed[u, i], i)) if allowed[u, i] >= 0]
        assert lists.items[u].tolist() == order[:6]
    for i in range(ITEMS):
        order = [u for u in sorted(range(U), key=lambda u: (-allowed[u, i], u)) if allowed[u, i] >= 0]
        assert lists.users[i].tolist() == order[:6]
    asked = np.array([4, -1, U, 0])
    top = ranker.top_k(asked, 4, TRAIN)
    assert top[[0, 3]].tolist() == lists.items[[4, 0], :4].tolist()
    assert (top[[1, 2]] == -1).all()


def test_no_list_holds_what_is_left_out_and_short_ones_end_with_minus_1():
    everything = Csr.from_pairs(np.repeat(np.arange(U), ITEMS - 2), np.tile(np.arange(ITEMS - 2), U), U, ITEMS)
    lists = lists_of(EnsembleRanker(MEMBERS), everything, 5)
    assert set(lists.items[:, :2].ravel().tolist()) == {ITEMS - 2, ITEMS - 1}
    assert (lists.items[:, 2:] == -1).all()
    assert (lists.users[: ITEMS - 2] == -1).all()
    again = Lists.from_arrays(lists.arrays())
    assert again.items is lists.items


def test_ranks_among_others_agree_with_scores():
    ranker = EnsembleRanker(MEMBERS)
    s = ranker.scores(np.arange(U))
    found = ranker.ranks_among(np.array([2, -1]), np.array([3, 3]), np.array([[4, 5, -1], [4, 5, 6]]))
    assert found[0] == 1 + (s[2, [4, 5]] > s[2, 3]).sum() + (s[2, [4, 5]] == s[2, 3]).sum() / 2
    assert found[1] == np.inf


def test_members_of_different_sizes_are_refused():
    with pytest.raises(UsageError, match="The members of an ensemble must have the same users and items"):
        EnsembleRanker([MEMBERS[0], (MEMBERS[1][0][:-1], MEMBERS[1][1])])
    with pytest.raises(UsageError, match="no member"):
        EnsembleRanker([])


def emptied(gone):
    """The members, with rows of users emptied as forgetting leaves them; who is still met."""
    met = ~np.isin(np.arange(U), gone)
    return [(user * met[:, None], item) for user, item in MEMBERS], met


def test_who_is_not_met_has_no_list_and_is_in_none():
    gone = np.array([0, 3, 4, 5, 9, 20])
    members, met = emptied(gone)
    lists = lists_of(EnsembleRanker(members), TRAIN, 6, met=met)
    assert np.isin(lists_of(EnsembleRanker(members), TRAIN, 6).users[0], gone).any(), "an empty row ranks item 0 first"
    left = np.flatnonzero(met)
    alone = lists_of(EnsembleRanker([(user[left], item) for user, item in MEMBERS]), TRAIN.select(left), 6)
    assert (lists.items[gone] == -1).all()
    np.testing.assert_array_equal(lists.items[left], alone.items)
    np.testing.assert_array_equal(lists.users, left[alone.users])


def test_where_everybody_is_met_the_lists_are_the_same_as_without_saying():
    said, unsaid = (lists_of(EnsembleRanker(MEMBERS), TRAIN, 6, met=met) for met in (np.ones(U, np.bool_), None))
    np.testing.assert_array_equal(said.items, unsaid.items)
    np.testing.assert_array_equal(said.users, unsaid.users)
