"""Histories: who did what in which order, and the windows that are cut from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.histories import Histories
from recdistill.data.interactions import Interactions
from recdistill.data.split import split
from recdistill.errors import UsageError
from recdistill.ids import IdTable


def log(user, item, timestamp=None, users=4, items=30) -> Interactions:
    return Interactions(
        users=IdTable.from_ids(np.arange(users)),
        items=IdTable.from_ids(np.arange(items)),
        user=np.array(user, np.int32),
        item=np.array(item, np.int32),
        timestamp=None if timestamp is None else np.array(timestamp, np.int64),
    )


def lists(histories: Histories) -> list[list[int]]:
    return [histories.row(u).tolist() for u in range(histories.n_rows)]


def one(*items: int) -> Histories:
    return Histories(np.array([0, len(items)], np.int64), np.array(items, np.int32))


rows = st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=6)


def ragged(given_rows: list[list[int]]) -> Histories:
    indptr = np.cumsum([0, *map(len, given_rows)])
    return Histories(indptr.astype(np.int64), np.array([i for row in given_rows for i in row], np.int32))


def test_they_go_by_time_and_ties_by_the_order_of_the_log():
    # user 0: 7 at t=9, 8 at t=3, 9 at t=3;  user 2: 5 at t=1;  users 1 and 3 did nothing
    made = log([0, 0, 2, 0], [7, 8, 5, 9], [9, 3, 1, 3]).histories()
    assert lists(made) == [[8, 9, 7], [], [5], []]


def test_without_times_they_go_by_the_order_of_the_log_and_keep_repeats():
    assert lists(log([1, 0, 1, 1], [3, 1, 2, 3]).histories()) == [[1], [3, 2, 3], [], []]


def test_a_log_makes_them_once():
    data = log([0, 1], [1, 2])
    assert data.histories() is data.histories()


def test_padding_stands_on_the_left_and_the_end_is_kept():
    made = ragged([[1, 2, 3], [], [4]])
    assert made.padded(np.array([2, 0, 1, -1]), 2).tolist() == [[-1, 4], [2, 3], [-1, -1], [-1, -1]]
    assert made.padded(np.array([1, -1]), 5).tolist() == [[-1], [-1]], "nothing is one place of padding"
    assert made.padded(np.array([0]), 9).tolist() == [[1, 2, 3]], "no wider than needed"


@settings(deadline=None)
@given(rows, st.integers(1, 6), st.data())
def test_padded_rows_are_those_a_loop_would_make(given_rows, length, data):
    made = ragged(given_rows)
    asked = data.draw(st.lists(st.integers(-1, len(given_rows) - 1), min_size=1, max_size=5))
    found = made.padded(np.array(asked, np.int64), length)
    for row, u in zip(found.tolist(), asked, strict=True):
        want = given_rows[u][-length:] if u >= 0 else []
        assert row == [-1] * (found.shape[1] - len(want)) + want


def test_slicing_is_that_of_adarec():
    # the sheet, section 6: ids 1..23, L = 10 -> [14..23], [4..13]; [1..3] is shorter than 4 and dropped
    cut = one(*range(1, 24)).windows(10, every=True, least=4)
    found = [list(range(1, 24))[a:b] for a, b in zip(cut.start, cut.stop, strict=True)]
    assert found == [list(range(14, 24)), list(range(4, 14))]
    three = one(*range(1, 24)).windows(10, every=True, least=3)
    assert (three.start.tolist(), three.stop.tolist()) == ([13, 3, 0], [23, 13, 3])


def test_the_end_alone_is_one_window_a_history():
    cut = ragged([[1, 2, 3, 4, 5], [6], [], [7, 8]]).windows(3)
    assert (cut.row.tolist(), cut.start.tolist(), cut.stop.tolist()) == ([0, 3], [2, 6], [5, 8])


@settings(deadline=None)
@given(rows, st.integers(1, 5), st.data())
def test_windows_of_all_are_the_history_from_its_end(given_rows, length, data):
    least = data.draw(st.integers(1, length))
    made = ragged(given_rows)
    cut = made.windows(length, every=True, least=least)
    for u, row in enumerate(given_rows):
        mine = [made.items[a:b].tolist() for r, a, b in zip(cut.row, cut.start, cut.stop, strict=True) if r == u]
        want = [row[max(end - length, 0) : end] for end in range(len(row), 0, -length)]
        assert mine == [each for each in want if len(each) >= least]


@pytest.mark.parametrize(("length", "least"), [(0, 1), (3, 4), (3, 0)])
def test_windows_of_no_length_are_refused(length, least):
    with pytest.raises(UsageError, match=r"1 <= least <= length; got 'least="):
        one(1, 2).windows(length, least=least)


def test_what_is_known_at_the_test_holds_the_validation_item_and_not_the_test_item():
    data = log([0, 0, 0, 0, 1, 1, 1, 2], [5, 6, 7, 8, 1, 2, 3, 9], [4, 1, 2, 3, 1, 2, 3, 1])
    parts = split(data, "leave-last-out")
    # user 0 by time: 6 7 | 8 | 5;  user 1: 1 | 2 | 3;  user 2 is too short and stays
    assert lists(parts.train.histories()) == [[6, 7], [1], [9], []]
    assert parts.valid.histories is parts.train.histories()
    assert lists(parts.test.histories) == [[6, 7, 8], [1, 2], [9], []]
    assert parts.test.histories is parts.test.histories


@pytest.mark.data
def test_real_histories_are_in_the_order_of_the_source(data_dir):
    import polars as pl

    import recdistill as rd

    path = data_dir("amazon_toys") / "interactions.parquet"
    parts = rd.split(rd.read(path, echo=None), "given")
    frame = pl.read_parquet(path).sort("user_id", "position")
    want = frame.filter(pl.col("split").cast(pl.String) != "test")["item_id"].to_numpy()
    found = parts.test.histories
    order = np.argsort(parts.test.users.external(np.arange(found.n_rows)), kind="stable")
    assert (parts.test.items.external(np.concatenate([found.row(u) for u in order])) == want).all()
