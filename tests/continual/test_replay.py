"""What is replayed: candidates, ranks, draws, labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.continual import replay
from recdistill.continual.batches import PairBatches
from recdistill.continual.replay import Memory, Remembered, memories, merged, ranks
from recdistill.continual.settings import Replay
from recdistill.data.csr import Csr

CHANCE = np.random.default_rng(5)
USER, ITEM = CHANCE.normal(size=(7, 3)).astype(np.float32), CHANCE.normal(size=(11, 3)).astype(np.float32)
WITHOUT = Csr.from_pairs([0, 0, 1, 6], [2, 3, 10, 0], 7, 11)


@pytest.mark.parametrize("room", [1 << 21, 23])
def test_ranks_are_those_of_the_naive_form_with_and_without_a_mask(monkeypatch, room):
    monkeypatch.setattr(replay, "_SCORES", room)
    users, items = np.array([0, 3, 6]), np.array([[5, 0, -1], [1, 2, 10], [8, 8, 4]])
    for without in (None, WITHOUT):
        found = ranks((USER, ITEM), users, items, without=without)
        for row, u in enumerate(users):
            scores = USER[u] @ ITEM.T
            gone = set() if without is None else set(without.row(u).tolist())
            for column, i in enumerate(items[row]):
                want = 0 if i < 0 else sum(scores[j] > scores[i] for j in range(11) if j not in gone)
                assert found[row, column] == want


@pytest.mark.parametrize("room", [3, 1 << 20])
def test_ranks_among_some_items_are_theirs_scaled_up_to_what_is_counted(monkeypatch, room):
    monkeypatch.setattr(replay, "_SCORES", room)
    users, items = np.array([0, 3, 6]), np.array([[5, 0, -1], [1, 2, 10], [8, 8, 4]])
    among = np.array([1, 2, 5, 9])
    for without in (None, WITHOUT):
        found = ranks((USER, ITEM), users, items, without=without, among=among)
        for row, u in enumerate(users):
            scores = USER[u] @ ITEM.T
            gone = set() if without is None else set(without.row(u).tolist())
            left = [j for j in among.tolist() if j not in gone]
            for column, i in enumerate(items[row]):
                above = sum(scores[j] > scores[i] for j in left)
                want = 0 if i < 0 else np.rint(above * (11 - len(gone)) / max(len(left), 1))
                assert found[row, column] == want
    everything = ranks((USER, ITEM), users, items, without=WITHOUT, among=np.arange(11))
    np.testing.assert_array_equal(everything, ranks((USER, ITEM), users, items, without=WITHOUT))


def test_candidates_are_the_head_of_a_sources_list_without_the_last_two_blocks_and_labels_are_its_sigmoids():
    (memory,) = memories([((USER[:5], ITEM[:9]), 2), (None, 3), ((USER, ITEM), 0)], depth=4, without=WITHOUT)
    assert memory.users.tolist() == [0, 1, 2, 3, 4]
    scores = USER[:5] @ ITEM[:9].T
    scores[0, [2, 3]] = -np.inf
    assert memory.items.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :4].tolist()
    chosen = np.take_along_axis(scores, memory.items, 1)
    np.testing.assert_allclose(memory.label, 1 / (1 + np.exp(-chosen)), rtol=1e-6)


def test_the_memory_of_a_part_of_the_users_is_theirs_whatever_the_others():
    (whole,) = memories([((USER, ITEM), 2)], depth=4, without=WITHOUT)
    (part,) = memories([((USER, ITEM), 2)], depth=4, without=WITHOUT, users=3, seed=1)
    assert len(part.users) == 3
    np.testing.assert_array_equal(part.items, whole.items[part.users])
    np.testing.assert_array_equal(part.label, whole.label[part.users])


def test_the_memory_of_some_users_is_theirs_and_a_source_that_knows_none_of_them_has_none():
    (whole,) = memories([((USER, ITEM), 2)], depth=4, without=WITHOUT)
    asked = np.array([1, 2, 4, 6])
    (some,) = memories([((USER, ITEM), 2), ((USER[:1], ITEM), 2)], depth=4, without=WITHOUT, among=asked)
    assert some.users.tolist() == asked.tolist()
    np.testing.assert_array_equal(some.items, whole.items[asked])
    (few,) = memories([((USER, ITEM), 2)], depth=4, without=WITHOUT, among=asked, users=2, seed=1)
    assert len(few.users) == 2
    assert set(few.users.tolist()) < set(asked.tolist())


def test_draws_follow_their_weights():
    """10,000 users with the same five candidates; one draw each: counts against exp(eps (rank_ref - rank_source))."""
    n, eps = 10_000, 0.7
    item = np.array([[3.0], [1.0], [2.0], [5.0], [4.0]], np.float32)  # the reference ranks: 2 4 3 0 1
    memory = Memory(np.arange(n), np.tile(np.arange(5), (n, 1)), np.full((n, 5), 0.5, np.float32), 1)
    settings = Replay(sharpness=eps)
    reference = (np.ones((n, 1), np.float32), item)
    pairs = Remembered([memory], lambda: reference, settings, n_items=5, without=Csr.empty(n, 5), seed=1)
    _, drawn, _ = pairs.draw(0)
    weight = np.exp(eps * (np.array([2, 4, 3, 0, 1]) - np.arange(5)))
    expected = n * weight / weight.sum()
    chi = ((np.bincount(drawn, minlength=5) - expected) ** 2 / expected).sum()
    assert chi < 18.5, "0.999 of chi-square with 4 degrees of freedom"


def test_of_a_pair_drawn_twice_the_greater_label_stays():
    key, item = np.array([7, 8, 7, 8]), np.array([7, 8, 7, 8])
    assert merged(key, item, np.array([0.1, 0.5, 0.9, 0.5], np.float32)).tolist() == [-1, 8, 7, -1]


def test_a_list_shorter_than_what_is_drawn_leaves_places_empty_that_weigh_nothing():
    (memory,) = memories([((USER, ITEM[:2]), 3)], depth=5, without=Csr.from_pairs([0], [0], 7, 11))
    pairs = Remembered([memory], lambda: (USER, ITEM[:2]), Replay(), n_items=2, without=Csr.empty(7, 2), seed=1)
    batches = PairBatches(pairs, size=4, seed=0)
    rows = [(b.query.row, b.positive, b.weight, b.label) for b in batches.epoch(0)]
    user, item, weight, label = (torch.cat(column) for column in zip(*rows, strict=True))
    assert len(rows) == len(batches) == 6
    assert len(user) == 21
    real = weight > 0
    assert int(real.sum()) == 13, "two of two for six users, one for user 0"
    assert item.min() >= 0
    assert (label[real] > 0).all()


def test_pairs_are_drawn_anew_when_due_by_what_the_model_is_then():
    now = [np.array([[1.0], [2.0], [3.0]], np.float32)]
    memory = Memory(np.arange(50), np.tile(np.arange(3), (50, 1)), np.full((50, 3), 0.5, np.float32), 1)
    one = np.ones((50, 1), np.float32)
    pairs = Remembered(
        [memory], lambda: (one, now[0]), Replay(sharpness=20, redraw=2), n_items=3, without=Csr.empty(50, 3), seed=1
    )
    first = pairs.drawn(0)[1].clone()
    assert (first == 0).all(), "the source has it first, the model last: forgotten"
    now[0] = -now[0]
    assert torch.equal(pairs.drawn(1)[1], first)
    assert (pairs.drawn(2)[1] != 0).any()


def test_the_official_masks_count_training_items_in_the_reference():
    memory = Memory(np.array([0]), np.array([[0, 1]]), np.full((1, 2), 0.5, np.float32), 1)
    reference = (np.ones((1, 1), np.float32), np.array([[1.0], [3.0], [2.0]], np.float32))
    taken = Csr.from_pairs([0], [2], 1, 3)
    alike = ranks(reference, memory.users, memory.items, without=taken)
    theirs = ranks(reference, memory.users, memory.items, without=None)
    assert (alike.tolist(), theirs.tolist()) == ([[1, 0]], [[2, 0]])
