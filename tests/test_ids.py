"""External ids and rows: both directions, both kinds, growth, and what a bundle stores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.errors import DataError
from recdistill.ids import IdTable, _packed, text_keys

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
int64s = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(texts, unique=True, max_size=30), st.lists(texts, max_size=10))
def test_text_ids_go_to_rows_and_back_like_a_dictionary_would(ids, strangers):
    table = IdTable.from_ids(np.array([*ids, "end"][:-1], dtype=object)) if not ids else IdTable.from_ids(ids)
    naive = {name: row for row, name in enumerate(ids)}
    asked = ids + strangers
    assert table.rows(asked).tolist() == [naive.get(name, -1) for name in asked]
    if ids:
        assert table.kind == "str"
        assert table.external(np.arange(len(ids))).tolist() == ids


@given(st.lists(int64s, unique=True, min_size=1, max_size=30), st.lists(int64s, max_size=10))
def test_integer_ids_go_to_rows_and_back_like_a_dictionary_would(ids, strangers):
    table = IdTable.from_ids(ids)
    naive = {number: row for row, number in enumerate(ids)}
    asked = ids + strangers
    assert table.kind == "int"
    assert table.rows(asked).tolist() == [naive.get(number, -1) for number in asked]
    assert table.rows([str(number) for number in asked]).tolist() == [naive.get(number, -1) for number in asked]
    assert table.external(np.arange(len(ids))).tolist() == ids


@given(st.one_of(st.lists(texts, unique=True, min_size=1), st.lists(int64s, unique=True, min_size=1)))
def test_a_stored_table_answers_the_same_read_only(ids):
    table = IdTable.from_ids(ids)
    arrays = {name: array.copy() for name, array in table.arrays().items()}
    for array in arrays.values():
        array.flags.writeable = False
    again = IdTable.from_arrays(table.kind, arrays)
    assert again == table
    assert again.rows(ids).tolist() == list(range(len(ids)))
    assert again.external(np.arange(len(ids))).tolist() == ids


@given(st.lists(texts, unique=True, min_size=1), st.lists(texts))
def test_growth_keeps_old_rows_and_appends_the_unknown_once(ids, new):
    table = IdTable.from_ids(ids)
    grown = table.grown(new)
    expected = ids + [name for name in dict.fromkeys(new) if name not in ids]
    assert grown.external(np.arange(len(grown))).tolist() == expected
    assert grown.rows(expected).tolist() == list(range(len(expected)))
    assert grown == IdTable.from_ids(expected)


def test_the_stored_form_worked_by_hand():
    arrays = IdTable.from_ids(["b", "aé", "a"]).arrays()
    # utf-8: b = 62, aé = 61 c3 a9, a = 61; ascending: a (row 2), aé (row 1), b (row 0)
    assert arrays["bytes"].tolist() == [0x62, 0x61, 0xC3, 0xA9, 0x61]
    assert arrays["offsets"].tolist() == [0, 1, 4, 5]
    assert arrays["order"].tolist() == [2, 1, 0]
    arrays = IdTable.from_ids(np.array([30, 10, 20], np.int32)).arrays()
    assert arrays["ids"].tolist() == [30, 10, 20]
    assert arrays["order"].tolist() == [1, 2, 0]


def test_leading_zeros_make_another_id():
    table = IdTable.from_ids(["007", "7"])
    assert table.rows(["007", "7", "07"]).tolist() == [0, 1, -1]
    assert table.rows([7, 8]).tolist() == [1, -1]
    assert (
        IdTable.from_ids([7]).rows(["7", "007", "7 ", "+7", "x", "", "-", "\u0667", "9" * 30]).tolist()
        == [0] + [-1] * 8
    )


def test_zero_bytes_and_prefixes_are_told_apart():
    ids = ["a\0", "a", "a\0\0", "", "ab", "\0"]
    table = IdTable.from_ids(ids)
    assert table.rows(ids).tolist() == list(range(6))
    assert table.rows(["a\0\0\0", "\0\0"]).tolist() == [-1, -1]


def test_a_long_id_among_short_ones_is_found(monkeypatch):
    monkeypatch.setattr("recdistill.ids._DENSE_BYTES", 100)
    ids = ["x" * 5000, "b", "a" * 10, ""]
    table = IdTable.from_ids(ids)
    assert table.rows([*ids, "x" * 4999]).tolist() == [0, 1, 2, 3, -1]
    assert table.arrays()["order"].tolist() == [3, 2, 1, 0]
    assert table.grown(["c"]).rows(["c", ids[0]]).tolist() == [4, 0]


def test_questions_of_many_ids_are_answered_in_chunks(monkeypatch):
    ids = [f"u{i}" for i in range(500)]
    table = IdTable.from_ids(ids)
    whole = table.rows(ids * 3)
    monkeypatch.setattr("recdistill.ids._CHUNK_BYTES", 64)
    assert (table.rows(ids * 3) == whole).all()
    assert whole.tolist() == list(range(500)) * 3


def test_ids_that_share_a_hash_are_told_apart(monkeypatch):
    ids = [f"u{i}" for i in range(40)]
    table = IdTable.from_ids(ids)
    monkeypatch.setattr("recdistill.ids._hashes", lambda _, offsets: np.zeros(len(offsets) - 1, np.uint64))
    assert table.rows([*ids, "u40", ""]).tolist() == [*range(40), -1, -1]


@given(st.lists(texts, unique=True, min_size=1, max_size=40), st.lists(texts, max_size=40))
def test_matching_and_bisecting_agree(ids, strangers):
    table = IdTable.from_ids(ids)
    asked = ids + strangers
    assert table.rows(asked).tolist() == [int(table._bisect(*_packed(np.array([name], object)))[0]) for name in asked]


def test_a_mixture_of_numbers_and_text_is_text():
    table = IdTable.from_ids([1, "x", "01"])
    assert (table.kind, table.rows(["1", 1, "x"]).tolist()) == ("str", [0, 0, 1])


def test_numbers_beyond_int64_are_text():
    big = np.array([2**63, 1], np.uint64)
    assert IdTable.from_ids(big).kind == "str"
    assert IdTable.from_ids([2**63, 1]).rows([2**63]).tolist() == [0]
    assert IdTable.from_ids([1, 2]).rows(big).tolist() == [-1, 0]


def test_rows_of_any_shape_have_external_ids():
    table = IdTable.from_ids(["a", "b"])
    assert table.external(np.array([[0, 1], [1, 1]])).tolist() == [["a", "b"], ["b", "b"]]
    assert IdTable.from_ids([5, 6]).external(np.array([[1], [0]])).tolist() == [[6], [5]]


def test_numpy_strings_are_text():
    table = IdTable.from_ids(np.array(["u1", "u22"]))
    assert table.rows(np.array(["u22", "u1", "u"])).tolist() == [1, 0, -1]


@pytest.mark.parametrize("ids", [["a", "b", "a"], [3, 1, 3], ["é" * 3, "é" * 3]])
def test_an_id_given_twice_is_refused(ids):
    with pytest.raises(DataError, match=r"An id occurs twice in a table of ids; got .*Give each id once"):
        IdTable.from_ids(ids)


@pytest.mark.parametrize("ids", [[1.5], [None], [True], np.array([1.0]), [b"x"], ["a", None]])
def test_an_id_of_another_type_is_refused(ids):
    with pytest.raises(DataError, match=r"An id is neither an integer nor text: .*integer column with missing"):
        IdTable.from_ids(ids)


def test_other_misuse_is_named():
    table = IdTable.from_ids([1, 2])
    with pytest.raises(DataError, match=r"A row has no external id; got -1. Allowed: 0 to 1"):
        table.external([0, -1])
    with pytest.raises(DataError, match=r"got 2"):
        table.external([0, 2])
    with pytest.raises(DataError, match=r"Put a single id into a list"):
        table.rows("12")
    with pytest.raises(DataError, match=r"one dimension"):
        table.rows(np.zeros((2, 2), np.int64))
    with pytest.raises(DataError, match=r"cannot take in text; got 'x'.*Read the log with ids as text"):
        table.grown(["3", "x"])
    with pytest.raises(DataError, match=r"surrogate"):
        IdTable.from_ids(["\ud800"])
    assert table.grown(["3", "1"]).rows([3]).tolist() == [2]
    assert IdTable.from_ids(["a"]).grown([12]).rows(["12"]).tolist() == [1]


def test_stored_arrays_that_do_not_fit_are_refused():
    sound = IdTable.from_ids(["a", "b"]).arrays()
    with pytest.raises(DataError, match=r"kind of an id table must be known; got 'float'"):
        IdTable.from_arrays("float", sound)
    with pytest.raises(DataError, match=r"needs other arrays"):
        IdTable.from_arrays("int", sound)
    with pytest.raises(DataError, match=r"do not fit together"):
        IdTable.from_arrays("str", {**sound, "offsets": sound["offsets"][:-1]})
    with pytest.raises(DataError, match=r"do not fit together"):
        IdTable.from_arrays("str", {**sound, "bytes": sound["bytes"][:-1]})
    with pytest.raises(DataError, match=r"must be one-dimensional int64"):
        IdTable.from_arrays("str", {**sound, "order": sound["order"].astype(np.int32)})
    with pytest.raises(DataError, match=r"do not fit together"):
        IdTable.from_arrays("int", {"ids": np.zeros(2, np.int64), "order": np.zeros(1, np.int64)})


def test_an_empty_table_knows_nobody():
    table = IdTable.from_ids(np.zeros(0, np.int64))
    assert (len(table), table.rows(["a", "1"]).tolist(), table.external([]).tolist()) == (0, [-1, -1], [])
    assert table.grown([4]).rows([4]).tolist() == [0]
    assert repr(IdTable.from_ids(["a", "b", "c", "d"])) == "IdTable(4 str ids: 'a', 'b', 'c', ...)"


def test_keys_of_texts_tell_lengths_bytes_and_places_apart_and_never_change():
    texts = ["", "a", "b", "ab", "ba", "a" * 8, "a" * 9, "a" * 16, "a\0", "é", "user_0000001", "user_0000002"]
    keys = text_keys(texts)
    assert keys.dtype == np.int64
    assert len(set(keys.tolist())) == len(texts)
    np.testing.assert_array_equal(text_keys(texts[::-1]), keys[::-1])
    many = text_keys([f"user_{n:09d}" for n in range(200_000)]).view(np.uint64)
    assert len(np.unique(many)) == 200_000
    assert abs(np.bincount((many >> np.uint64(56)).astype(int), minlength=256) - 781).max() < 200, "every byte is used"
    assert len(text_keys([])) == 0
    # worked by hand from SplitMix64: an empty text is one mixing of the golden ratio
    assert text_keys([""]).view(np.uint64)[0] == 0xE220A8397B1DCDAF
