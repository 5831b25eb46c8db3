"""What newcomers begin with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recdistill.continual.entities import initialised, prominent
from recdistill.continual.settings import Initial, ModelSpec
from recdistill.continual.snapshot import Snapshot, blank
from recdistill.data.csr import Csr
from recdistill.serve import foldin

N = 20


def neighbours_of(newcomer_items, old_items, *, n=N):
    """prominent() for one newcomer, the last row, among old users given by their items."""
    users = [*old_items, newcomer_items]
    row = np.concatenate([[u] * len(items) for u, items in enumerate(users)]).astype(np.int64)
    column = np.concatenate(users).astype(np.int64)
    rows = Csr.from_pairs(row, column, len(users), 100)
    met = np.arange(len(users)) < len(old_items)
    return prominent(rows, rows.transposed(), np.array([len(old_items)]), met, n)[0]


@pytest.mark.parametrize("sharing", [0, 1, 19, 20, 21])
def test_the_most_active_two_hops_away_come_first_and_the_most_active_of_all_fill_up(sharing):
    # user v of 30 has v + 1 items of its own, so the greater row is the more active; the first `sharing` share item 99
    old = [[*range(v + 1), *([99] if v < sharing else [])] for v in range(30)]
    found = neighbours_of([99], old).tolist()
    activity = {v: len(items) for v, items in enumerate(old)}
    order = sorted(range(30), key=lambda v: (-activity[v], v))
    near = [v for v in order if v < sharing]
    assert found == (near + [v for v in order if v not in near])[:N]


def test_the_vector_is_the_mean_of_both_hops_by_hand():
    # old users 0, 1 and old items 0, 1; user 2 is new and took item 0, item 2 is new
    train = Csr.from_pairs([0, 1, 1, 2, 2], [0, 0, 1, 0, 2], 3, 3)
    weights = {
        "user": np.array([[1, 0], [0, 1], [9, 9]], np.float32),
        "item": np.array([[2, 2], [4, 0], [9, 9]], np.float32),
    }
    met = np.array([True, True, False])
    grown = Snapshot(ModelSpec(dim=2), weights, met, met, Csr.empty(3, 3))
    out = initialised(grown, train, Initial(neighbours=1), old=(2, 2))
    # user 2: e1 = item 0 = (2, 2) (item 2 is new); of users 0, 1 who share item 0, user 1 is more active: e2 = (0, 1)
    assert out.weights["user"][2].tolist() == [1.0, 1.5]
    # item 2: touched by user 2 alone, who is new: no one hop; nobody trained two hops away through user 2 but item 0,
    # e2 = (2, 2), and there is no e1 to halve with
    assert out.weights["item"][2].tolist() == [2, 2]
    halved = initialised(grown, train, Initial(neighbours=1, missing="zero"), old=(2, 2))
    assert halved.weights["item"][2].tolist() == [1, 1], "the official divisor stays 2"
    assert initialised(grown, train, Initial(hops="none"), old=(2, 2)) is grown
    one = initialised(grown, train, Initial(hops="one"), old=(2, 2))
    assert one.weights["user"][2].tolist() == [2, 2]
    assert one.weights["item"][2].tolist() == [9, 9], "no neighbour of one hop: as it was drawn"
    assert (out.weights["user"][:2] == weights["user"][:2]).all()


def test_an_old_id_that_was_never_trained_is_a_newcomer_and_the_official_code_passes_it_over():
    train = Csr.from_pairs([0, 0, 1], [0, 1, 0], 3, 2)
    weights = {"user": np.eye(3, 2, dtype=np.float32), "item": np.ones((2, 2), np.float32)}
    met = np.array([True, False, False])  # user 1 came with an older block and left nothing to train on
    grown = Snapshot(ModelSpec(dim=2), weights, met, np.array([True, True]), Csr.empty(3, 2))
    ours = initialised(grown, train, Initial(), old=(2, 2))
    theirs = initialised(grown, train, Initial(who="newest"), old=(2, 2))
    assert ours.weights["user"][1].tolist() == [1.0, 0.5]  # (1, 1) of items, (1, 0) of user 0
    assert theirs.weights["user"][1].tolist() == [0, 1]
    assert ours.weights["user"][2].tolist() == [1, 0], "without an interaction: the most active of all"


def test_who_was_trained_by_an_update_inside_the_block_is_no_newcomer_in_the_next():
    train = Csr.from_pairs([0, 1, 2], [0, 0, 0], 3, 1)
    weights = {"user": np.eye(3, 3, dtype=np.float32), "item": np.ones((1, 3), np.float32)}
    met = np.array([True, True, False])  # of three users only the first is older than the block
    grown = Snapshot(ModelSpec(dim=3), weights, met, np.array([True]), Csr.empty(3, 1))
    out = initialised(grown, train, Initial(who="newest"), old=(1, 1))
    assert out.weights["user"][1].tolist() == [0, 1, 0], "as part 1 left it"
    assert out.weights["user"][2].tolist() == [0.75, 0.75, 0.5]  # (1, 1, 1) of the item, (.5, .5, 0) of both users


def test_chunks_of_newcomers_agree_with_the_naive_form(monkeypatch):
    from recdistill.continual import entities

    chance = np.random.default_rng(3)
    rows = Csr.from_pairs(chance.integers(0, 60, 500), chance.integers(0, 25, 500), 60, 25)
    met = chance.random(60) < 0.6
    newcomers = np.flatnonzero(~met)
    active = rows.degrees
    busiest = sorted(np.flatnonzero(met).tolist(), key=lambda v: (-active[v], v))
    want = []
    for u in newcomers:
        mine = set(rows.row(u).tolist())
        near = [v for v in range(60) if met[v] and mine & set(rows.row(v).tolist())]
        near.sort(key=lambda v: (-active[v], v))
        rest = [v for v in busiest[:4] if v not in near]
        want.append((near + rest)[:4])
    assert prominent(rows, rows.transposed(), newcomers, met, 4).tolist() == want
    monkeypatch.setattr(entities, "_PAIRS", 8)
    assert prominent(rows, rows.transposed(), newcomers, met, 4).tolist() == want


@pytest.mark.parametrize("name", ["mf", "vae"])
def test_vectors_of_newcomers_are_the_same_bits_however_many_are_made_at_a_time(monkeypatch, name):
    from recdistill.continual import entities

    chance = np.random.default_rng(4)
    train = Csr.from_pairs(chance.integers(0, 90, 700), chance.integers(0, 70, 700), 90, 70)
    grown = blank(ModelSpec(name=name, dim=5, init_std=1.0), train, seed=1)
    grown = replace(grown, met_users=np.arange(90) < 50, met_items=np.arange(70) < 40)
    whole = initialised(grown, train, Initial(), old=(50, 40)).weights
    sizes, where = [], np.where
    monkeypatch.setattr(np, "where", lambda *given: sizes.append(np.size(given[1])) or where(*given))
    monkeypatch.setattr(entities, "_PAIRS", 300)
    parts = initialised(grown, train, Initial(), old=(50, 40)).weights
    assert max(sizes) <= 300, "and no more than that at once"
    for table, values in whole.items():
        np.testing.assert_array_equal(parts[table], values)


def test_new_items_of_a_vae_take_after_items_of_the_same_users():
    before = blank(ModelSpec(name="vae", dim=2), Csr.from_pairs([0, 1], [0, 1], 2, 2), seed=0)
    train = Csr.from_pairs([0, 0, 1], [0, 2, 1], 2, 3)
    grown = before.grown(train, seed=1)
    met = np.array([True, True, False])
    grown = Snapshot(grown.spec, grown.weights, np.array([True, True]), met, train)
    out = initialised(grown, train, Initial(neighbours=1), old=(2, 2))
    for name in ("encoder", "decoder", "decoder_bias"):
        np.testing.assert_array_equal(out.weights[name][2], out.weights[name][0])


def test_the_fold_in_of_what_is_served_is_the_same_formula():
    """Where nothing is missing; where a hop is, it counts as zero, as `missing = "zero"` does."""
    chance = np.random.default_rng(6)
    train = Csr.from_pairs(chance.integers(0, 90, 700), chance.integers(0, 70, 700), 90, 70)
    grown = blank(ModelSpec(dim=5, init_std=1.0), train, seed=1)
    grown = replace(grown, met_users=np.arange(90) < 50, met_items=np.arange(70) < 40)
    ours = initialised(grown, train, Initial(missing="zero"), old=(50, 40)).weights
    user, item = foldin.initialised(grown.weights["user"][:50], grown.weights["item"][:40], train)
    np.testing.assert_allclose(user, ours["user"], atol=1e-6)
    np.testing.assert_allclose(item, ours["item"], atol=1e-6)
