"""Draws outside what a row has: exact, whatever else is asked at the same time, and uniform."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from recdistill import rng
from recdistill.data import draws
from recdistill.data.csr import Csr
from recdistill.data.draws import Taken, negatives, outside
from recdistill.errors import TrainingError

CPU = torch.device("cpu")


def log(users: int, items: int, n: int, seed: int = 0) -> Csr:
    g = np.random.default_rng(seed)
    return Csr.from_pairs(g.integers(users, size=n), g.integers(items, size=n), users, items)


@st.composite
def logs(draw):
    users, items = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    pairs = draw(st.lists(st.tuples(st.integers(0, users - 1), st.integers(0, items - 1)), max_size=40))
    rows, columns = ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return Csr.from_pairs(np.array(rows, int), np.array(columns, int), users, items)


@given(logs())
@settings(max_examples=60, deadline=None)
def test_membership_equals_the_rows(csr):
    rows, items = torch.arange(csr.n_rows), torch.arange(csr.n_columns).repeat(csr.n_rows, 1)
    got = Taken.of(csr, CPU).has(rows, items)
    want = [[item in csr.row(user) for item in range(csr.n_columns)] for user in range(csr.n_rows)]
    assert got.tolist() == want


def test_the_sieve_lets_everything_through_that_is_there_and_little_else():
    csr = log(300, 1000, 20_000)
    taken = Taken.of(csr, CPU)
    rows = torch.arange(300)
    items = torch.randint(0, 1000, (300, 200), generator=torch.Generator().manual_seed(1))
    assert np.array_equal(taken.has(rows, items).numpy(), csr.contains(rows[:, None].numpy(), items.numpy()))
    bits = taken.sieve.shape[0] * 8
    assert 8 * len(csr) <= bits < 16 * len(csr)


def test_rows_of_taken_are_the_log_s():
    csr = log(5, 9, 20)
    taken = Taken.of(csr, CPU)
    assert all(taken.row(user).tolist() == csr.row(user).tolist() for user in range(5))


@given(logs(), st.integers(0, 2**60), st.integers(0, 6))
@settings(max_examples=80, deadline=None)
def test_distinct_draws_are_free_and_complete(csr, key, k):
    rows = torch.arange(csr.n_rows)
    drawn = outside(key, rows, k, Taken.of(csr, CPU), distinct=True)
    assert drawn.shape == (csr.n_rows, k)
    for user, line in enumerate(drawn.tolist()):
        free = set(range(csr.n_columns)) - set(csr.row(user).tolist())
        there = [item for item in line if item >= 0]
        assert set(there) <= free
        assert len(set(there)) == len(there) == min(k, len(free))
        assert line == there + [-1] * (k - len(there)), "what is missing is missing at the end"


@given(logs(), st.integers(0, 2**60))
@settings(max_examples=60, deadline=None)
def test_what_more_holds_is_never_drawn(csr, key):
    rows = torch.arange(csr.n_rows)
    more = torch.full((csr.n_rows, 3), -1, dtype=torch.int32)
    more[:, 1:] = torch.tensor(sorted([0, csr.n_columns - 1]), dtype=torch.int32)
    drawn = outside(key, rows, csr.n_columns, Taken.of(csr, CPU), more=more, distinct=True)
    for user, line in enumerate(drawn.tolist()):
        free = set(range(csr.n_columns)) - set(csr.row(user).tolist()) - {0, csr.n_columns - 1}
        assert set(line) - {-1} == free


@pytest.mark.parametrize("distinct", [True, False])
def test_a_draw_is_a_function_of_key_and_row_whatever_is_asked_beside_it(distinct):
    taken, rows = Taken.of(log(40, 60, 900), CPU), torch.arange(40)
    whole = outside(11, rows, 7, taken, distinct=distinct)
    order = torch.tensor([31, 2, 2, 17])
    assert torch.equal(outside(11, rows[order], 7, taken, distinct=distinct), whole[order])
    assert not torch.equal(outside(12, rows, 7, taken, distinct=distinct), whole)


def test_rejection_equals_listing_the_first_free_guesses():
    csr = log(30, 50, 600)
    taken, rows = Taken.of(csr, CPU), torch.arange(30)
    drawn = outside(5, rows, 6, taken, distinct=True)
    width = 6 + 8 + 6 // 4
    for user in range(30):  # the naive twin: guesses in order, round after round, skipping taken and repeated ones
        wanted: list[int] = []
        for attempt in range(draws._ROUNDS):
            for guess in rng.integers(5 + attempt, np.array([user]), width, 50)[0].tolist():
                if guess not in csr.row(user) and guess not in wanted:
                    wanted.append(guess)
        assert drawn[user].tolist() == wanted[:6]


@pytest.mark.parametrize("left", [1, 3])
def test_a_user_who_has_nearly_everything_draws_from_what_is_left(left):
    items = 5000
    csr = Csr.from_pairs(np.zeros(items - left, int), np.arange(items - left), 2, items)
    taken, rows = Taken.of(csr, CPU), torch.tensor([0, 1])
    free = list(range(items - left, items))
    drawn = outside(3, rows, 4, taken, distinct=True)
    assert sorted(set(drawn[0].tolist()) - {-1}) == free
    assert (drawn[1] >= 0).all()
    assert set(outside(3, rows, 4, taken, distinct=False)[0].tolist()) <= set(free)
    assert set(negatives(3, torch.zeros(9, dtype=torch.int64), 2, taken).flatten().tolist()) <= set(free)


def test_a_user_who_has_everything_gets_no_distinct_item_and_an_error_for_a_negative():
    csr = Csr.from_pairs([0, 0, 0, 1], [0, 1, 2, 2], 2, 3)
    taken = Taken.of(csr, CPU)
    assert outside(3, torch.tensor([0]), 2, taken, distinct=True).tolist() == [[-1, -1]]
    with pytest.raises(TrainingError, match=r"A user has all 3 items, so no other can be drawn\. Drop such users"):
        negatives(3, torch.tensor([1, 0]), 1, taken)


@given(logs(), st.integers(0, 2**60))
@settings(max_examples=60, deadline=None)
def test_negatives_are_never_in_train(csr, key):
    users = torch.from_numpy(np.repeat(np.arange(csr.n_rows), 3))
    full = [user for user in range(csr.n_rows) if len(csr.row(user)) == csr.n_columns]
    if full:
        with pytest.raises(TrainingError):
            negatives(key, users, 2, Taken.of(csr, CPU))
        return
    drawn = negatives(key, users, 2, Taken.of(csr, CPU))
    assert drawn.shape == (len(users), 2)
    assert not csr.contains(users[:, None].numpy(), drawn.numpy()).any()


def test_negatives_are_drawn_by_place_in_any_number_of_parts(monkeypatch):
    taken = Taken.of(log(40, 60, 900), CPU)
    users = torch.arange(40).repeat(5)
    whole = negatives(8, users, 2, taken)
    monkeypatch.setattr(draws, "_AT_ONCE", 7)
    assert torch.equal(negatives(8, users, 2, taken), whole)
    assert not torch.equal(whole[:40], whole[40:80]), "a user's interactions draw different items"


def test_no_users_and_no_draws_are_fine():
    taken = Taken.of(log(4, 6, 9), CPU)
    assert negatives(1, torch.zeros(0, dtype=torch.int64), 3, taken).shape == (0, 3)
    assert outside(1, torch.arange(4), 0, taken, distinct=True).shape == (4, 0)
    empty = Taken.of(Csr.empty(2, 5), CPU)
    assert (outside(1, torch.arange(2), 5, empty, distinct=True).sort(1).values == torch.arange(5)).all()


@pytest.mark.parametrize("distinct", [True, False])
def test_draws_are_uniform_over_what_is_free(distinct):
    csr = Csr.from_pairs([0] * 4, [1, 4, 5, 9], 1, 12)
    taken = Taken.of(csr, CPU)
    counts = torch.zeros(12)
    rows = torch.zeros(1, dtype=torch.int64)
    for epoch in range(3000):
        counts += torch.bincount(outside(rng.key(0, "t", epoch), rows, 2, taken, distinct=distinct)[0], minlength=12)
    assert counts[[1, 4, 5, 9]].sum() == 0
    free = counts[counts > 0]
    assert len(free) == 8
    assert ((free - 750) ** 2 / 750).sum() < 24.3  # chi-squared of 7 degrees, one in a thousand
