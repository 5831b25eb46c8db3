"""An ensemble's lists from the heads of its members' lists."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.continual import shallow
from recdistill.continual.ensemble import EnsembleRanker, lists_of
from recdistill.continual.shallow import shallow_lists
from recdistill.data.csr import Csr
from recdistill.errors import UsageError

CHANCE = np.random.default_rng(3)
U, ITEMS, M = 29, 40, 3
MEMBERS = [
    (CHANCE.normal(size=(U, 4)).astype(np.float32), CHANCE.normal(size=(ITEMS, 4)).astype(np.float32)) for _ in range(M)
]
TRAIN = Csr.from_pairs(CHANCE.integers(0, U, 120), CHANCE.integers(0, ITEMS, 120), U, ITEMS)


@pytest.mark.parametrize("room", [1 << 21, 200])
def test_at_full_depth_it_is_the_ensemble(monkeypatch, room):
    monkeypatch.setattr(shallow, "_PAIRS", room)
    found, whole = shallow_lists(MEMBERS, TRAIN, 6, depth=ITEMS), lists_of(EnsembleRanker(MEMBERS), TRAIN, 6)
    np.testing.assert_array_equal(found.items, whole.items)
    np.testing.assert_array_equal(found.users, whole.users)


@pytest.mark.parametrize("room", [1 << 21, 70])
def test_what_a_member_does_not_list_counts_as_the_next_after_its_head(monkeypatch, room):
    monkeypatch.setattr(shallow, "_PAIRS", room)
    depth, k = 9, 5
    found = shallow_lists(MEMBERS, TRAIN, k, depth=depth)
    score = np.zeros((U, ITEMS))
    listed = np.zeros((U, ITEMS), np.bool_)
    for user, item in MEMBERS:
        rank = (-(user @ item.T)).argsort(1).argsort(1) + 1
        score += np.minimum(rank, depth + 1) ** -0.05 / M
        listed |= rank <= depth
    for u in range(U):
        listed[u, TRAIN.row(u)] = False
    for u in range(U):
        order = sorted(np.flatnonzero(listed[u]), key=lambda i: (-round(score[u, i], 6), i))
        assert found.items[u].tolist() == (order + [-1] * k)[:k]
    for i in range(ITEMS):
        order = sorted(np.flatnonzero(listed[:, i]), key=lambda u: (-round(score[u, i], 6), u))
        assert found.users[i].tolist() == (order + [-1] * k)[:k]


def test_heads_shorter_than_the_lists_are_refused():
    with pytest.raises(UsageError, match=r"shorter than the lists asked for; got 3.*distil\.near"):
        shallow_lists(MEMBERS, TRAIN, 6, depth=3)
    with pytest.raises(UsageError, match="the same users and items"):
        shallow_lists([MEMBERS[0], (MEMBERS[1][0][:-1], MEMBERS[1][1])], TRAIN, 6, depth=8)


def test_who_is_not_met_has_no_list_and_is_in_none():
    met = ~np.isin(np.arange(U), [0, 2, 7])
    members = [(user * met[:, None], item) for user, item in MEMBERS]
    assert {0, 2, 7} <= set(shallow_lists(members, TRAIN, 6, depth=9).users[0].tolist())
    found = shallow_lists(members, TRAIN, 6, depth=ITEMS, met=met)
    whole = lists_of(EnsembleRanker(members), TRAIN, 6, met=met)
    np.testing.assert_array_equal(found.items, whole.items)
    np.testing.assert_array_equal(found.users, whole.users)
