"""Fold-in: the initialisation formula of CCD's sheet, section 4a, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.data.csr import Csr
from recdistill.errors import UsageError
from recdistill.evaluation.ranking import VectorRanker
from recdistill.ids import IdTable
from recdistill.serve import Service
from recdistill.serve.foldin import NEIGHBOURS, FoldIn, folded, initialised


def vectors(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)


def naive(mine, theirs, own, seen, active):
    """e = (e1 + e2) / 2 as the sheet writes it, user by user."""
    out = np.zeros((mine.n_rows, own.shape[1]))
    for u in range(mine.n_rows):
        items = mine.row(u).tolist()
        old = [i for i in items if i < len(theirs)]
        e1 = np.mean([theirs[i] for i in old], axis=0) if old else np.zeros(own.shape[1])
        near = [v for v in range(len(own)) if set(items) & set(seen.row(v).tolist())]
        near.sort(key=lambda v: (-active[v], v))
        others = sorted((v for v in range(len(own)) if v not in near), key=lambda v: (-active[v], v))
        chosen = (near + others)[:NEIGHBOURS]
        e2 = np.mean([own[v] for v in chosen], axis=0) if chosen else np.zeros(own.shape[1])
        out[u] = (e1 + e2) / 2
    return out


@pytest.mark.parametrize("neighbours", [0, 1, 19, 20, 21, 40])
def test_a_new_users_vector_is_the_mean_worked_by_hand_for_any_number_of_neighbours(neighbours):
    """40 old users; the first `neighbours` of them have item 0, which the new user touched beside item 2."""
    rows = [(v, 0) for v in range(neighbours)] + [(v, 3 + v % 4) for v in range(40)] + [(v, 7) for v in range(30, 40)]
    seen = Csr.from_pairs(*zip(*rows, strict=True), 40, 8)
    theirs, own = vectors(8, 1), vectors(40, 2)
    mine = Csr.from_pairs([0, 0], [0, 2], 1, 8)
    got = folded(mine, theirs, own, seen.transposed(), seen.degrees)
    e1 = (theirs[0] + theirs[2]) / 2
    if neighbours == 40:  # all share item 0: the 20 most active are 30..39, with three items each, then 0..9
        expected = (e1 + own[[*range(30, 40), *range(10)]].mean(0)) / 2
        np.testing.assert_allclose(got[0], expected, rtol=1e-5)
    if neighbours == 20:  # exactly 20: these, not everyone, as the official code takes
        np.testing.assert_allclose(got[0], (e1 + own[:20].mean(0)) / 2, rtol=1e-5)
    if neighbours == 0:  # the most active of all fill up: 30..39 with two items, then 0..9
        np.testing.assert_allclose(got[0], (e1 + own[[*range(30, 40), *range(10)]].mean(0)) / 2, rtol=1e-5)
    np.testing.assert_allclose(got, naive(mine, theirs, own, seen, seen.degrees), rtol=1e-4, atol=1e-6)


def test_it_equals_the_naive_sum_whatever_is_new(monkeypatch):
    chance = np.random.default_rng(5)
    block = Csr.from_pairs(chance.integers(0, 60, 300), chance.integers(0, 45, 300), 60, 45)
    user, item = vectors(35, 3), vectors(30, 4)
    for pairs in (1 << 22, 50):  # all at once, and a few at a time
        monkeypatch.setattr("recdistill.serve.foldin._PAIRS", pairs)
        users, items = initialised(user, item, block)
        assert (users[:35] == user).all()
        assert (items[:30] == item).all()
        back = block.transposed()
        old_users = Csr.from_pairs(*pairs_of(block, rows=35), 35, 45)
        old_items = Csr.from_pairs(*pairs_of(back, rows=30), 30, 60)
        wanted = naive(block.select(np.arange(35, 60)), item, user, old_users, block.degrees[:35])
        np.testing.assert_allclose(users[35:], wanted, rtol=1e-4, atol=1e-6)
        wanted = naive(back.select(np.arange(30, 45)), user, item, old_items, back.degrees[:30])
        np.testing.assert_allclose(items[30:], wanted, rtol=1e-4, atol=1e-6)


def pairs_of(csr, *, rows):
    line = np.repeat(np.arange(csr.n_rows), csr.degrees)
    return line[line < rows], csr.indices[line < rows]


def test_without_an_old_item_only_the_neighbours_speak_and_at_half_length():
    own = vectors(3, 1)
    seen = Csr.from_pairs([0, 1, 2], [0, 0, 1], 3, 2)
    mine = Csr.from_pairs([0], [2], 1, 3)  # item 2 is new to the tables
    wide = Csr.from_pairs([0, 1, 2], [0, 0, 1], 3, 3)
    got = folded(mine, vectors(2, 2), own, wide.transposed(), seen.degrees)
    np.testing.assert_allclose(got[0], own.mean(0) / 2, rtol=1e-5)


@pytest.fixture
def service():
    user, item = vectors(30, 6), vectors(12, 7)
    chance = np.random.default_rng(8)
    seen = Csr.from_pairs(chance.integers(0, 30, 90), chance.integers(0, 12, 90), 30, 12)
    users, items = IdTable.from_ids([f"u{n}" for n in range(30)]), IdTable.from_ids([f"i{n}" for n in range(12)])
    served = Service(VectorRanker(user, item), users, items, seen, np.arange(12))
    return served, FoldIn(served, user, item), user, item


def test_a_new_user_is_answered_at_once_and_marked_so(service):
    served, fold, _, item = service
    found = fold.recommend({"new": ["i1", "i4", "nothing"], "blank": []}, 5)
    assert [found.source_of(user) for user, _ in found] == ["fold-in", "popular"]
    (vector,) = fold.vectors([["i1", "i4"]])
    score = item @ vector
    score[[1, 4]] = -np.inf
    assert found.to_dict()["new"][0].id == f"i{score.argmax()}"
    assert [one.id for one in found.to_dict()["blank"]] == [f"i{n}" for n in range(5)]
    assert len(fold.recommend({"new": [f"i{n}" for n in range(10)]}, 5).to_dict()["new"]) == 2
    del served


def test_vectors_of_another_size_are_refused(service):
    served, _, user, item = service
    with pytest.raises(UsageError, match="needs the vectors of the service's users and items"):
        FoldIn(served, item, user)
