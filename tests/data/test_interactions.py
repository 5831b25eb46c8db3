"""The log inside: filters worked by hand, renumbering, notes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.interactions import HeldOut, Interactions
from recdistill.errors import DataError, UsageError
from recdistill.ids import IdTable


def log_of(pairs, *, users=None, items=None, timestamp=None, weight=None, split=None) -> Interactions:
    """A log of (user row, item row) pairs; ids u0.. and i0.."""
    pairs = np.array(pairs, np.int32).reshape(-1, 2)
    users = int(pairs[:, 0].max(initial=-1)) + 1 if users is None else users
    items = int(pairs[:, 1].max(initial=-1)) + 1 if items is None else items
    return Interactions(
        users=IdTable.from_ids([f"u{i}" for i in range(users)]),
        items=IdTable.from_ids([f"i{i}" for i in range(items)]),
        user=pairs[:, 0],
        item=pairs[:, 1],
        timestamp=None if timestamp is None else np.array(timestamp, np.int64),
        weight=None if weight is None else np.array(weight, np.float32),
        split=None if split is None else np.array(split, np.int8),
    )


def external(log: Interactions) -> list[tuple[str, str]]:
    return list(zip(log.users.external(log.user).tolist(), log.items.external(log.item).tolist(), strict=True))


logs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40).map(log_of)


def test_a_core_is_iterated_until_nothing_more_goes():
    # u0: i0 i1, u1: i0 i1, u2: i1 i2, u3: i2. Round 1: u3 has one. Then i2 has one. Then u2 has one. Left: u0, u1.
    log = log_of([(0, 0), (0, 1), (1, 0), (2, 1), (1, 1), (2, 2), (3, 2)])
    core = log.k_core(users=2, items=2)
    assert external(core) == [("u0", "i0"), ("u0", "i1"), ("u1", "i0"), ("u1", "i1")]
    assert (core.n_users, core.n_items) == (2, 2)
    assert core.notes[-1] == (
        "Kept k-core (at least 2 a user and 2 an item, 3 rounds): 3 interactions, 2 users and 1 items went"
    )


@given(logs, st.integers(1, 3), st.integers(1, 3))
def test_a_core_of_a_core_is_itself(log, users, items):
    try:
        core = log.k_core(users=users, items=items)
    except DataError:
        return
    again = core.k_core(users=users, items=items)
    assert external(again) == external(core)
    assert np.bincount(core.user).min() >= users
    assert np.bincount(core.item).min() >= items
    assert set(external(core)) <= set(external(log))


@given(logs)
def test_one_core_only_renumbers_and_keeps_order(log):
    core = log.k_core()
    assert external(core) == external(log)
    assert len(np.unique(core.user)) == core.n_users
    assert len(np.unique(core.item)) == core.n_items


def test_ratings_below_the_bar_go():
    log = log_of([(0, 0), (0, 1), (1, 1)], weight=[5, 3.5, 4])
    kept = log.at_least(4)
    assert external(kept) == [("u0", "i0"), ("u1", "i1")]
    assert kept.weight.tolist() == [5, 4]
    with pytest.raises(DataError, match=r"no rating to filter by"):
        log_of([(0, 0)]).at_least(4)
    with pytest.raises(DataError, match=r"Nothing is left of the log after the filter: rating at least 9"):
        log.at_least(9)


def test_which_of_the_repeats_is_kept():
    pairs = [(0, 0), (0, 1), (0, 0), (0, 0)]
    log = log_of(pairs, timestamp=[30, 20, 10, 30], weight=[1, 2, 9, 9])
    # the pair (0, 0) stands at rows 0, 2, 3 with times 30, 10, 30 and weights 1, 9, 9
    assert log.deduplicated(keep="last").timestamp.tolist() == [20, 30]  # rows 1, 3: the later of the ties
    assert log.deduplicated(keep="first").timestamp.tolist() == [20, 10]  # rows 1, 2
    assert log.deduplicated(keep="max").weight.tolist() == [2, 9]
    untimed = log_of(pairs, weight=[1, 2, 3, 4])
    assert untimed.deduplicated().weight.tolist() == [2, 4]
    assert untimed.deduplicated(keep="first").weight.tolist() == [1, 2]
    with pytest.raises(UsageError, match=r"Unknown way to choose among repeats; got 'best'. Allowed: last, first, max"):
        log.deduplicated(keep="best")
    with pytest.raises(DataError, match=r"no weights to keep the greatest of"):
        log_of(pairs).deduplicated(keep="max")


@given(logs, st.sampled_from(["first", "last"]))
def test_deduplication_keeps_each_pair_once(log, keep):
    kept = log.deduplicated(keep=keep)
    assert sorted(external(kept)) == sorted(set(external(log)))
    order = external(log) if keep == "first" else external(log)[::-1]
    expected = list(dict.fromkeys(order))
    assert external(kept) == (expected if keep == "first" else expected[::-1])


def test_the_matrix_has_each_pair_once_and_is_computed_once():
    log = log_of([(1, 2), (0, 1), (1, 2), (1, 0)])
    assert [row.tolist() for row in (log.csr().row(0), log.csr().row(1))] == [[1], [0, 2]]
    assert log.csr() is log.csr()
    assert log.take(np.array([0])).csr() is not log.csr()


def test_it_describes_itself():
    log = log_of([(0, 0), (1, 1)], timestamp=[0, 86400], weight=[1, 5], split=[0, 2])
    assert log.describe() == (
        "2 interactions, 2 users, 2 items; density 50.000%; 1970-01-01 to 1970-01-02; weights 1 to 5; "
        "given split train 1, valid 0, test 1"
    )


def test_columns_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"column 'weight' of a log must have its 1 rows"):
        log_of([(0, 0)], weight=[1, 2])
    with pytest.raises(DataError, match=r"A row of the column 'item' has no id; got 3. Allowed: 0 to 1"):
        log_of([(0, 3)], items=2)


def test_held_out_data_is_no_log():
    assert not issubclass(HeldOut, Interactions)
    assert not {"user", "item", "csr"} & set(dir(HeldOut))
