"""What a reviewer found: sources that broke, or passed without a word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse

from recdistill.data.sources import read
from recdistill.errors import DataError, UsageError
from recdistill.teachers.reading import read_pairs, read_tables


@pytest.fixture
def of(tmp_path):
    def write(name: str, text: str | bytes, **options):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read(path, echo=None, **options)

    return write


def noted(log, words: str) -> list[str]:
    return [note for note in log.notes if words in note]


def test_json_integers_beyond_64_bits_are_text_as_in_csv(of):
    log = of("a.jsonl", '{"user": 12345678901234567890123, "item": 1}\n{"user": 5, "item": 2}\n')
    assert log.users.kind == "str"
    assert log.users.external([0, 1]).tolist() == ["12345678901234567890123", "5"]


def test_a_parquet_file_damaged_inside_is_named(tmp_path):
    path = tmp_path / "c.parquet"
    ids = [f"u{i}" for i in range(1000)]
    pl.DataFrame({"user_id": ids, "item_id": ids}).write_parquet(path)
    raw = bytearray(path.read_bytes())
    raw[100:200] = b"\xff" * 100
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"c\.parquet is no parquet file that can be read"):
        read(path, echo=None)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_pairs(path)


def test_columns_of_unequal_lengths_and_a_list_of_columns_are_refused():
    with pytest.raises(DataError, match=r"columns of the mapping are of unequal lengths; got \{'user': 2, 'item': 1\}"):
        read({"user": ["a", "b"], "item": ["x"]}, echo=None)
    with pytest.raises(UsageError, match="columns is a mapping; got 'list'"):
        read({"user": ["a"], "item": ["x"]}, columns=["user"], echo=None)


def test_a_pandas_column_of_several_types_names_them():
    with pytest.raises(
        DataError, match=r"The column 'user_id' mixes types: float, int, str\. Give each column one type"
    ):
        read(pd.DataFrame({"user_id": [1, "a", 2.5], "item_id": [1, 2, 3]}), echo=None)


def test_complex_numbers_are_no_weights():
    with pytest.raises(DataError, match="The matrix holds complex numbers"):
        read(scipy.sparse.csr_matrix(np.array([[1j, 2.0]])), echo=None)


def test_text_that_calls_itself_zstd_is_refused(of):
    with pytest.raises(DataError, match=r"a\.csv\.zst is not a whole zstd file"):
        of("a.csv.zst", "user,item\n1,2\n")


def test_times_of_which_the_first_is_no_number_are_skipped_one_by_one(of):
    log = of("a.csv", "user,item,timestamp\n1,2,nan\n4,5,inf\n1,3,1600000000\n", on_bad_rows="skip")
    assert log.timestamp.tolist() == [1_600_000_000]


def test_weights_of_zero_or_less_are_said(of):
    log = of("a.csv", "user,item,rating\n1,2,-1\n1,3,0\n2,2,5\n")
    assert noted(log, "2 weights are 0 or less and count as interactions")
    assert not noted(of("b.csv", "user,item,rating\n1,2,1\n1,3,2\n"), "0 or less")


def test_one_text_among_whole_numbers_is_said(of):
    lines = "".join(f"{n},{n % 3}\n" for n in range(40))
    log = of("a.csv", f"user,item\n{lines}x7,1\n")
    assert noted(log, "1 of 41 ids are no whole numbers, such as 'x7', so all stay text")
    assert not noted(of("b.csv", "user,item\na,1\n2,1\n"), "no whole numbers")


def test_density_counts_a_pair_once():
    log = read({"user": ["a", "a", "b"], "item": [1, 1, 2]}, echo=None)
    assert "density 50.000%; 1 repeats" in log.describe()


def test_vectors_without_dimension_and_of_integers_say_what_to_do(tmp_path):
    ids = {"users": np.arange(2), "items": np.arange(2)}
    np.savez(tmp_path / "none.npz", **ids, user_vectors=np.ones((2, 0)), item_vectors=np.ones((2, 0)))
    with pytest.raises(DataError, match="the vectors have no dimension"):
        read_tables(tmp_path / "none.npz")
    whole = np.ones((2, 3), np.int64)
    np.savez(tmp_path / "int.npz", **ids, user_vectors=whole, item_vectors=whole)
    with pytest.raises(DataError, match=r"Write them as float32: vectors\.astype\('float32'\)"):
        read_tables(tmp_path / "int.npz")
