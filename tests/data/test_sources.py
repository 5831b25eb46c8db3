"""Reading logs: every form gives the same log, and every fault has a place and a remedy."""

from __future__ import annotations

import gzip
import io
import json
import re
import shlex
import string

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recdistill.data.csr import Csr
from recdistill.data.formats import delimited, jsonl
from recdistill.data.formats.roles import naming
from recdistill.data.sources import read
from recdistill.errors import BadRows, DataError, RecdistillError, UsageError
from recdistill.settings import overlay

T = 1_600_000_000  # 2020-09-13T12:26:40Z


def rows_of(log):
    """The log in external ids, with what else it has."""
    columns = [log.users.external(log.user).tolist(), log.items.external(log.item).tolist()]
    columns += [c.tolist() for c in (log.weight, log.timestamp, log.split) if c is not None]
    return list(zip(*columns, strict=True))


@pytest.fixture
def of(tmp_path):
    """`of(text, name)`: the log of a file with that text."""

    def make(text, name="log.csv", **options):
        path = tmp_path / name
        raw = text if isinstance(text, bytes) else text.encode()
        if name.endswith(".gz"):
            raw = gzip.compress(raw)
        path.write_bytes(raw)
        return read(path, **{"echo": None, **options})

    return make


PLAIN = "user_id,item_id,rating,timestamp\nu1,i1,4.5,1600000000\nu2,i1,3,1600000001\nu1,i2,1,1600000002\n"
EXPECTED = [("u1", "i1", 4.5, T), ("u2", "i1", 3.0, T + 1), ("u1", "i2", 1.0, T + 2)]

# --- forms ----------------------------------------------------------------------------------------------------------


def test_csv_plain_and_packed(of, tmp_path):
    assert rows_of(of(PLAIN)) == EXPECTED
    assert rows_of(of(PLAIN, "log.csv.gz")) == EXPECTED
    path = tmp_path / "log.csv.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(PLAIN.encode())
    assert path.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    assert rows_of(read(path, echo=None)) == EXPECTED


@pytest.mark.parametrize("separator", ["\t", ";", "|", "::", " "])
def test_other_separators_are_found(of, separator):
    assert rows_of(of(PLAIN.replace(",", separator), "log.txt")) == EXPECTED


def test_byte_order_mark_and_windows_and_old_mac_line_ends(of):
    assert rows_of(of(b"\xef\xbb\xbf" + PLAIN.encode())) == EXPECTED
    assert rows_of(of(PLAIN.replace("\n", "\r\n"))) == EXPECTED
    assert rows_of(of(PLAIN.replace("\n", "\r"))) == EXPECTED
    assert rows_of(of(PLAIN.rstrip("\n"))) == EXPECTED
    headless = b"\xef\xbb\xbf" + PLAIN.split("\n", 1)[1].encode()
    assert rows_of(of(headless)) == EXPECTED


def test_blank_lines_are_passed_over(of):
    assert rows_of(of("\n\n" + PLAIN.replace("\n", "\n\n") + "\n \n")) == EXPECTED


def test_quotes_with_separators_and_line_ends_inside(of):
    log = of('user_id,title,item_id\n"a,1","x\ny",i1\n"b ""q""","z",i2\n')
    assert rows_of(log) == [("a,1", "i1"), ('b "q"', "i2")]
    assert "Columns not used: 'title'" in log.notes


def test_columns_are_known_whatever_their_case(of):
    for head in (
        "userId,movieId,RATING,TS",
        "UID,iid,score,Date",
        "visitorid,ASIN,value,time",
        "USER,ITEM,label,Datetime",
    ):
        assert rows_of(of(PLAIN.replace("user_id,item_id,rating,timestamp", head))) == EXPECTED


def test_a_mapping_wins(of):
    text = "user,item,a,b\nx,p,q,r\ny,s,t,w\n"
    assert rows_of(of(text, columns={"user": "a", "item": "B"})) == [("q", "r"), ("t", "w")]
    assert rows_of(of(text, columns={"item": "a"})) == [("x", "q"), ("y", "t")]


def test_movielens_layouts(of):
    assert rows_of(of("196\t242\t3\t881250949\n186\t302\t3\t891717742\n", "u.data")) == [
        (196, 242, 3.0, 881250949),
        (186, 302, 3.0, 891717742),
    ]
    assert rows_of(of("1::1193::5::978300760\n1::661::3::978302109\n", "ratings.dat")) == [
        (1, 1193, 5.0, 978300760),
        (1, 661, 3.0, 978302109),
    ]
    text = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,1029,3.0,1260759179\n"
    assert rows_of(of(text, "ratings.csv")) == [(1, 31, 2.5, 1260759144), (1, 1029, 3.0, 1260759179)]


def test_recbole_files(of):
    text = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\tB00\t4\t881250949\n1\tB01\t2\t881250950.5\n"
    assert rows_of(of(text, "ml.inter")) == [(1, "B00", 4.0, 881250949), (1, "B01", 2.0, 881250950)]
    text = "session_id:token\titem_id_list:token_seq\n5\t10 20 30\n6\t10\n"
    assert rows_of(of(text, "s.inter")) == [(5, 10), (5, 20), (5, 30), (6, 10)]
    text = 'user_id:token\titem_id:token\nu"1\ti1\n'
    assert rows_of(of(text, "q.inter")) == [('u"1', "i1")]
    both = "user_id:token\titem_id_list:token_seq\titem_id:token\n1\t10 20\t30\n"
    with pytest.raises(DataError, match=r"2 columns could hold the item: .*Say which: columns=\{'item': 'item_id_list"):
        of(both, "both.inter")
    assert rows_of(of(both, "both.inter", columns={"item": "item_id:token"})) == [(1, 30)]


def test_one_line_per_user(of):
    log = of("0 5 6 7\n1 5\n2 \n3 9 5\n", "train.txt")
    assert rows_of(log) == [(0, 5), (0, 6), (0, 7), (1, 5), (3, 9), (3, 5)]
    assert "train.txt: 1 users have no items" in log.notes
    assert rows_of(of("0\t5\t6\n1\t5\t9\n", "l.txt", lists=True)) == [(0, 5), (0, 6), (1, 5), (1, 9)]
    with pytest.raises(DataError, match=r"every line has 3 words, which could be columns or a user's list.*lists=True"):
        of("0 5 6\n1 5 9\n", "train.txt")


def test_json_lines(of):
    text = "\n".join(json.dumps({"user": u, "item": i, "rating": r, "ts": t, "x": [1]}) for u, i, r, t in EXPECTED)
    assert rows_of(of(text, "log.jsonl")) == EXPECTED
    assert rows_of(of(text, "log.jsonl.gz")) == EXPECTED
    assert rows_of(of('{"user": "007", "item": 7}\n{"user": "8", "item": 9}\n', "l.jsonl")) == [("007", 7), ("8", 9)]
    assert rows_of(of('{"user": "a", "item": ["x", "y"]}\n', "l.jsonl")) == [("a", "x"), ("a", "y")]
    mixed = of('{"user": "a", "item": 12}\n{"user": 3, "item": 13}\n', "l.jsonl")
    assert rows_of(mixed) == [("a", 12), ("3", 13)]
    with pytest.raises(DataError, match=r"is one JSON array.*one object a line"):
        of('[{"user": 1}]', "log.json")


def frames():
    columns = dict(
        zip(("user_id", "item_id", "rating", "timestamp"), map(list, zip(*EXPECTED, strict=True)), strict=True)
    )
    return {
        "pandas": pd.DataFrame(columns),
        "pandas categories": pd.DataFrame(columns).astype({"user_id": "category", "item_id": "string"}),
        "pandas index": pd.DataFrame(columns).set_index("user_id"),
        "polars": pl.DataFrame(columns),
        "polars lazy": pl.LazyFrame(columns),
        "arrow": pa.table(columns),
        "mapping": columns,
        "mapping of arrays": {k: np.array(v) for k, v in columns.items()},
    }


@pytest.mark.parametrize("kind", list(frames()))
def test_frames(kind):
    assert rows_of(read(frames()[kind], echo=None)) == EXPECTED


def test_a_pandas_frame_is_left_as_it_was():
    frame = frames()["pandas"]
    before = frame.copy()
    read(frame, echo=None)
    pd.testing.assert_frame_equal(frame, before)


def test_parquet_and_arrow_files(tmp_path):
    frame = frames()["polars"]
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ipc(tmp_path / "a.arrow")
    assert rows_of(read(tmp_path / "a.parquet", echo=None)) == EXPECTED
    assert rows_of(read(str(tmp_path / "a.arrow"), echo=None)) == EXPECTED
    frame.with_columns(pl.Series("user_id", ["007", "8", "9"])).write_parquet(tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet", echo=None).users.external([0]).tolist() == ["007"]
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"c.parquet is no parquet file that can be read"):
        read(tmp_path / "c.parquet")


def test_matrices_keep_empty_users_and_items():
    matrix = scipy.sparse.coo_array(([2.0, 3.0], ([0, 2], [3, 1])), shape=(4, 5))
    log = read(matrix, echo=None)
    assert rows_of(log) == [(0, 3, 2.0), (2, 1, 3.0)]
    assert (log.n_users, log.n_items) == (4, 5)
    log = read(Csr.from_pairs([0, 2], [3, 1], 4, 5), echo=None)
    assert (rows_of(log), log.n_users, log.n_items) == ([(0, 3), (2, 1)], 4, 5)


def test_folders(tmp_path):
    def fresh(name, **files):
        folder = tmp_path / name
        folder.mkdir()
        for file, text in files.items():
            (folder / file.replace("__", ".")).write_text(text)
        return folder

    assert rows_of(read(fresh("a", ratings__csv=PLAIN, README__md="x"), echo=None)) == EXPECTED
    light = fresh("b", train__txt="0 1 2\n1 2\n", test__txt="0 3\n1\n")
    log = read(light, echo=None)
    assert rows_of(log) == [(0, 1, 0), (0, 2, 0), (1, 2, 0), (0, 3, 2)]
    head = "user_id:token\titem_id:token\n"
    bole = fresh("c", c__train__inter=head + "a\tx\n", c__valid__inter=head + "a\ty\n", c__test__inter=head + "b\tz\n")
    assert rows_of(read(bole, echo=None)) == [("a", "x", 0), ("a", "y", 1), ("b", "z", 2)]
    assert rows_of(read(fresh("d", d__inter=head + "a\tx\n", d__item="x"), echo=None)) == [("a", "x")]
    with pytest.raises(DataError, match=r"The folder 'e' holds more than one log: ratings.csv, ratings.dat"):
        read(fresh("e", ratings__csv=PLAIN, ratings__dat=PLAIN))
    with pytest.raises(
        DataError, match=r"The folder 'f' holds no log that is recognised; got .*README.md.*Give the path"
    ):
        read(fresh("f", README__md="x"))
    bad = fresh("g", train__csv="user,item,rating\na,x,1\na,y,2\n", test__csv="user,item,rating\na,z,1\na,w,oops\n")
    with pytest.raises(BadRows, match=r"g \(train.csv, test.csv\), line 3, column 'rating': 'oops' is not a finite"):
        read(bad)


# --- ids ------------------------------------------------------------------------------------------------------------


def test_whole_columns_of_integers_become_integers_and_others_stay_text(of):
    log = of("user,item\n12,007\n-3,8\n", echo=None)
    assert (log.users.kind, log.items.kind) == ("int", "str")
    assert rows_of(log) == [(12, "007"), (-3, "8")]
    assert rows_of(of("user,item\n1,1.0\n2,2\n")) == [(1, "1.0"), (2, "2")]
    assert of("user,item\n9223372036854775808,1\n5,2\n").users.kind == "str"


def test_rows_ascend_by_id(of):
    log = of("user,item\n10,b\n9,a\n10,a\n")
    assert log.users.external([0, 1]).tolist() == [9, 10]
    assert (log.user.tolist(), log.item.tolist()) == ([1, 0, 1], [1, 0, 0])
    far = of("user,item\n10000000000,b\n-9,a\n")
    assert far.users.external([0, 1]).tolist() == [-9, 10**10]


def test_blanks_around_ids_go(of):
    log = of("user, item\n u1, i1\nu1 ,i1\n")
    assert rows_of(log) == [("u1", "i1"), ("u1", "i1")]
    assert "Column 'user': blanks around ids were taken off" in log.notes


def test_names_of_no_value_are_ids(of):
    assert rows_of(of("user,item\nNA,null\nNaN,None\n")) == [("NA", "null"), ("NaN", "None")]


def test_whole_numbers_stored_as_fractions_are_integers():
    log = read(pd.DataFrame({"user": [1.0, 2.0], "item": [3, 4]}), echo=None)
    assert rows_of(log) == [(1, 3), (2, 4)]
    with pytest.raises(DataError, match=r"the user ids are fractions; got 1.5"):
        read(pd.DataFrame({"user": [1.5, 2.0], "item": [3, 4]}))
    with pytest.raises(BadRows, match=r"the frame, row 1, column 'user': is missing"):
        read(pd.DataFrame({"user": [1.0, None], "item": [3, 4]}))


# --- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (f"{T}", "times in seconds since 1970"),
        (f"{T}000", "times in milliseconds since 1970"),
        (f"{T}000000", "times in microseconds since 1970"),
        (f"{T}000000000", "times in nanoseconds since 1970"),
        (f"{T}.75", "times in seconds since 1970 with fractions"),
        ("2020-09-13T12:26:40Z", "ISO times, taken as UTC unless they say more"),
        ("2020-09-13 12:26:40", "ISO times, taken as UTC unless they say more"),
        ("2020-09-13T12:26:40.123456", "ISO times, taken as UTC unless they say more"),
        ("2020-09-13T14:26:40+02:00", "ISO times, taken as UTC unless they say more"),
    ],
)
def test_units_of_time_are_recognised(of, text, note):
    log = of(f"user,item,ts\na,b,{text}\n")
    assert log.timestamp.tolist() == [T]
    assert f"Column 'ts': {note}" in log.notes


def test_dates_and_datetimes():
    days = pl.Series("date", ["2020-09-13"]).str.to_date()
    assert read({"user": [1], "item": [2], "date": days}, echo=None).timestamp.tolist() == [T - T % 86400]
    for frame in (
        pd.DataFrame({"user": [1], "item": [2], "time": pd.to_datetime([T], unit="s")}),
        pd.DataFrame({"user": [1], "item": [2], "time": pd.to_datetime([T], unit="s", utc=True)}),
        pl.DataFrame(
            {"user": [1], "item": [2], "time": pl.Series([T * 1000]).cast(pl.Datetime("ms", "Europe/Berlin"))}
        ),
    ):
        assert read(frame, echo=None).timestamp.tolist() == [T]


def test_a_unit_that_is_said_is_taken(of):
    log = of("user,item,ts\na,b,5000\n", time_unit="ms")
    assert log.timestamp.tolist() == [5]
    assert "Column 'ts': times in milliseconds, as said" in log.notes
    assert "taken as an order" in of("user,item,ts\na,b,5000\n").notes[-1]


def test_an_order_finer_than_a_second_is_not_lost(of):
    log = of(f"user,item,ts\na,x,{T}900\na,y,{T}100\na,z,{T - 1}000\n")
    assert [row[1] for row in rows_of(log)] == ["z", "y", "x"]
    assert log.timestamp.tolist() == [T - 1, T, T]
    assert "Put in order of time, which is finer than the seconds kept" in log.notes


def test_mixed_units_are_refused(of):
    with pytest.raises(DataError, match=r"log.csv, column 'ts' seems to mix times in different units.*time_unit='ms'"):
        of(f"user,item,ts\na,x,{T}\na,y,{T}000\n")


def test_dates_that_can_be_read_two_ways_are_refused(of):
    with pytest.raises(
        DataError, match=r"column 'date' is neither a number nor an ISO time; got '03/04/2020'.*ISO 8601"
    ):
        of("user,item,date\na,x,03/04/2020\n")


# --- faults ---------------------------------------------------------------------------------------------------------

HEAD = "user,item,rating,ts\n"
GOOD = f"a,x,1,{T}\nb,y,2,{T}\n"
REMEDY = r"Mend the source, or leave such rows out with on_bad_rows='skip' \(--on-bad-rows skip\)\."


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (f",x,1,{T}", "column 'user': is missing"),
        (f"a,,1,{T}", "column 'item': is missing"),
        (f'a,"",1,{T}', "column 'item': is missing"),
        (f"a,  ,1,{T}", "column 'item': is missing"),
        (f"a,x,abc,{T}", "column 'rating': 'abc' is not a finite number"),
        (f"a,x,,{T}", "column 'rating':( '')? is not a finite number"),
        (f"a,x,NaN,{T}", "column 'rating': 'NaN' is not a finite number"),
        (f"a,x,-inf,{T}", "column 'rating': '-inf' is not a finite number"),
        (f"a,x,1e99,{T}", "column 'rating': '1e99' is not a finite number"),
        ("a,x,1,-5", "column 'ts': '-5' is not a time, 0 or later"),
        ("a,x,1,soon", "column 'ts': 'soon' is not a time, 0 or later"),
        ("a,x,1,", "column 'ts':( '')? is not a time, 0 or later"),
        (f"a,x,1,{T},9", f": 'a,x,1,{T},9' has 5 fields where 4 are meant"),
        ("a,x,1", "has 3 fields where 4 are meant"),
        (f'a,"x"y,1,{T}', "cannot be cut into columns"),
    ],
)
def test_a_bad_row_is_named_or_left_out(of, row, fault):
    text = f"{HEAD}{GOOD}{row}\n{GOOD}"
    with pytest.raises(BadRows, match=f"^log.csv, line 4.*{fault}.*{REMEDY}$"):
        of(text)
    log = of(text, on_bad_rows="skip")
    assert rows_of(log) == [("a", "x", 1.0, T), ("b", "y", 2.0, T)] * 2
    assert any(note.startswith("Skipped 1 bad row: line 4") for note in log.notes)


def test_columns_missing_at_the_end_matter_only_where_they_are_used(of):
    text = "user,item,rating,title\na,x,1,t\nb,y,2\n"
    assert rows_of(of(text)) == [("a", "x", 1.0), ("b", "y", 2.0)]
    with pytest.raises(BadRows, match=r"line 4, column 'rating': 'q' is not a finite number. Mend"):
        of(text + "c,z,q,t\n")  # the careful reading thinks the same of line 3


def test_bad_rows_are_counted_and_the_first_ten_shown(of):
    text = HEAD + GOOD + f"a,x,oops,{T}\n" * 30 + "a,x\n"
    with pytest.raises(BadRows, match=r"line 4, column 'rating': 'oops' is not a finite number \(30 more bad rows\)"):
        of(text)
    log = of(text, on_bad_rows="skip")
    note = next(n for n in log.notes if n.startswith("Skipped"))
    assert note.startswith("Skipped 31 bad rows: line 4")
    assert (note.count("line "), note[-5:]) == (10, "; ...")


def test_lines_are_right_behind_quoted_line_ends(of):
    with pytest.raises(BadRows, match=r"line 5, column 'rating': 'x'"):
        of('user,item,rating\n"a\nb",c,1\n\nd,e,x\n')
    with pytest.raises(BadRows, match=r"line 5, column 'date': 'later' is not an ISO time"):
        of('user,item,date\n"a\nb",c,2020-01-01\n\nd,e,later\nd,e,2020-01-01\nd,e,2020-01-01\n')


def test_a_log_of_bad_rows_alone_is_an_error_even_when_skipping(of):
    with pytest.raises(BadRows, match=r"every row is bad; Skipped 2 bad rows"):
        of("user,item,rating\na,b,x\na,b,y\n", on_bad_rows="skip")


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.jsonl", "train.txt"])
@pytest.mark.parametrize("text", ["", "\n", " \n\n", "\ufeff"])
def test_an_empty_file(of, name, text):
    with pytest.raises(DataError, match=f"{name} is empty. Check that it is the right file"):
        of(text, name)


def test_a_header_alone(of):
    with pytest.raises(DataError, match=r"log.csv holds no interactions"):
        of("user_id,item_id\n")
    with pytest.raises(DataError, match=r"holds no interactions"):
        read(pl.DataFrame({"user": [], "item": []}))


def test_one_row(of):
    assert rows_of(of("user,item\na,b\n")) == [("a", "b")]
    assert rows_of(of("user,item\na,b")) == [("a", "b")]
    assert rows_of(of("1,2\n")) == [(1, 2)]


def test_a_quote_never_closed(of):
    body = "".join(f"a,x{i},1,{T}\n" for i in range(2000))
    with pytest.raises(DataError, match=r"log.csv, line 4: a quote is opened and never closed. Close the quote"):
        of(f'{HEAD}{GOOD}a,"x,1,{T}\n{body}')


def test_bytes_that_are_no_utf8(of):
    text = PLAIN.encode() + "u3,café,1,1600000003\n".encode("latin-1")
    with pytest.raises(DataError, match=r"log.csv, line 5: byte 0xe9 is not UTF-8. Convert the file .*iconv"):
        of(text)
    late = PLAIN.encode() + b"u3,i3,1,1600000003\n" * 20_000 + b"u3,caf\xe9,1,1600000003\n"
    with pytest.raises(DataError, match=r"log.csv, line 20005: byte 0xe9 is not UTF-8"):
        of(late)
    with pytest.raises(DataError, match=r"UTF-16, not UTF-8"):
        of(PLAIN.encode("utf-16"))
    with pytest.raises(DataError, match=r"holds a zero byte"):
        of(b"\x00\x01\x02user,item\n")


def test_a_broken_archive(tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(PLAIN.encode() * 100)[:-20])
    with pytest.raises(DataError, match=r"log.csv.gz is not a whole gzip file"):
        read(path)
    (tmp_path / "log.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd broken")
    with pytest.raises(DataError, match=r"log.csv.zst cannot be unpacked"):
        read(tmp_path / "log.csv.zst")


def test_files_that_are_not_there_or_no_log(tmp_path):
    (tmp_path / "ratings.csv").write_text(PLAIN)
    (tmp_path / "log.zip").write_text("x")
    (tmp_path / "log.pkl").write_text("x")
    (tmp_path / "log.parquet.gz").write_text("x")
    with pytest.raises(DataError, match=r"There is no file .*rating.csv'. Did you mean 'ratings.csv'?"):
        read(tmp_path / "rating.csv")
    with pytest.raises(DataError, match=r"packed in a way that is not read; got '.zip'. Unpack it"):
        read(tmp_path / "log.zip")
    with pytest.raises(DataError, match=r"no kind of file that holds a log; got '.pkl'. Allowed: .csv, .tsv"):
        read(tmp_path / "log.pkl")
    with pytest.raises(DataError, match=r"is packed twice"):
        read(tmp_path / "log.parquet.gz")
    with pytest.raises(DataError, match=r"cannot be read as an interaction log; got 'int'. Allowed: a path; a pandas"):
        read(5)


def test_bad_json_lines(of):
    text = '{"user": 1, "item": 2}\n{"user": 1,\n\n{"user": 2, "item": 3}\n[1]\n'
    with pytest.raises(BadRows, match=r"log.jsonl, line 2: .* is no JSON object \(1 more bad row\)"):
        of(text, "log.jsonl")
    assert rows_of(of(text, "log.jsonl", on_bad_rows="skip")) == [(1, 2), (2, 3)]
    with pytest.raises(BadRows, match=r"line 2, column 'item': is missing"):
        of('{"user": 1, "item": 2}\n{"user": 1}\n', "log.jsonl")
    text = '{"user": 1, "item": 2, "rating": 1}\n{"user": 1, "item": 2, "rating": "x"}\n'
    with pytest.raises(BadRows, match=r"(line 2|row 1), column 'rating': 'x' is not a finite number"):
        of(text, "log.jsonl")


def test_what_is_no_id_in_json_is_refused_though_other_ids_are_text(of):
    for value in ("true", '["x"]', '{"a": 1}'):
        text = f'{{"user": "a", "item": "x"}}\n\n{{"user": {value}, "item": "x"}}\n'
        with pytest.raises(
            BadRows, match=r"log.jsonl, line 3, column 'user': .* is no id: give a whole number or text"
        ):
            of(text, "log.jsonl")
        assert rows_of(of(text, "log.jsonl", on_bad_rows="skip")) == [("a", "x")]
    text = '{"user": "true", "item": "[x"}\n{"user": "a", "item": "{}"}\n'
    assert rows_of(of(text, "log.jsonl")) == [("true", "[x"), ("a", "{}")], "as text they are ids"


def test_lists_of_items_in_json_are_opened_beside_a_bad_line_too(of):
    text = '{"user": "a", "item": ["x", "y"]}\n{"user": "b", "item": [["z"]]}\n{"user": "c", "item": [3]}\n'
    assert rows_of(of(text, "log.jsonl", on_bad_rows="skip")) == [("a", "x"), ("a", "y"), ("c", "3")]


def test_a_fault_in_json_names_its_line_and_a_time_that_is_not_there_is_missing(of):
    good = '{"user": "a", "item": "x", "ts": 5}\n\n'
    with pytest.raises(BadRows, match=r"log.jsonl, line 3, column 'ts': '-5' is not a time, 0 or later"):
        of(good + '{"user": "a", "item": "x", "ts": -5}\n', "log.jsonl")
    with pytest.raises(BadRows, match=r"log.jsonl, line 3, column 'ts': is missing"):
        of(good + '{"user": "a", "item": "x"}\n', "log.jsonl")


@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
@pytest.mark.parametrize("text", ["\n[1, 2]\n[3, 4]\n", '\n["user", "item"]\n[1, 2]\n', '\n"a"\n3\n'])
def test_json_lines_of_which_none_is_an_object_name_the_first(of, text, on_bad_rows):
    first = re.escape(text.split("\n")[1])
    with pytest.raises(DataError, match=rf"log.jsonl, line 2: '{first}' is no JSON object. Write one object a line"):
        of(text, "log.jsonl", on_bad_rows=on_bad_rows)


def test_frames_with_faults():
    with pytest.raises(BadRows, match=r"the frame, row 1, column 'item': is missing"):
        read({"user": ["a", "b"], "item": ["x", None]})
    log = read({"user": ["a", "b"], "item": ["x", None]}, on_bad_rows="skip", echo=None)
    assert rows_of(log) == [("a", "x")]
    with pytest.raises(DataError, match=r"the column 'rating' holds no numbers"):
        read({"user": ["a"], "item": ["x"], "rating": [[1]]})


def test_a_split_column(of):
    text = "user,item,split\na,x,train\na,y,Validation\na,z,TEST\n"
    assert rows_of(of(text)) == [("a", "x", 0), ("a", "y", 1), ("a", "z", 2)]
    with pytest.raises(BadRows, match=r"line 3, column 'split': 'later' is not one of train, valid, test"):
        of("user,item,split\na,x,train\na,y,later\n")
    with pytest.raises(
        DataError, match=r"the column 'split' holds no names of a split; got .*Allowed: train, valid, test"
    ):
        of("user,item,split\na,x,one\na,y,two\n")


# --- ambiguity ------------------------------------------------------------------------------------------------------


def test_two_columns_that_could_be_the_user(of):
    with pytest.raises(
        DataError,
        match=r"2 columns could hold the user: 'user_id', 'session_id'. Say which: "
        r"columns=\{'user': 'user_id'\} \(--set data.columns.user=user_id\)",
    ):
        of("user_id,session_id,item\na,b,c\n")
    assert rows_of(of("user_id,session_id,item\na,b,c\n", columns={"user": "session_id"})) == [("b", "c")]


def test_no_column_that_could_be_the_item(of):
    with pytest.raises(
        DataError,
        match=r"no column is recognised as the item; got .*'itm'.*Did you mean 'itm'\?.*"
        r"columns=\{'item': ...\} \(--set data.columns.item=NAME\)",
    ):
        of("user,itm\na,b\n")


@pytest.mark.parametrize(
    ("column", "word"),
    [
        ("sku", "data.columns.item=sku"),
        ("1", "'data.columns.item=\"1\"'"),
        ("the id", "'data.columns.item=\"the id\"'"),
    ],
)
def test_the_option_that_names_a_column_can_be_typed_as_it_stands(column, word):
    said = naming({"item": column})
    assert said == f"columns={{'item': {column!r}}} (--set {word})"
    assert overlay({}, [shlex.split(word)[0]]) == {"data": {"columns": {"item": column}}}


def test_a_mapping_that_does_not_fit(of):
    with pytest.raises(UsageError, match=r"Unknown role in the mapping of columns; got 'usr'. Did you mean 'user'?"):
        of(PLAIN, columns={"usr": "user_id"})
    with pytest.raises(
        UsageError, match=r"has no column 'usr_id', which was named as the user. Did you mean 'user_id'?"
    ):
        of(PLAIN, columns={"user": "usr_id"})
    with pytest.raises(UsageError, match=r"One column cannot have two roles; got 'user_id'"):
        of(PLAIN, columns={"user": "user_id", "item": "user_id"})


def test_two_separators_that_fit(of):
    text = "a1,b1;c1\na2,b2;c2\n"
    with pytest.raises(DataError, match=r"the separator could be comma, semicolon.*Say which: separator=','"):
        of(text)
    assert rows_of(of(text, separator=";")) == [("a1,b1", "c1"), ("a2,b2", "c2")]


def test_a_first_line_that_could_be_a_header(of):
    with pytest.raises(
        DataError, match=r"first line could be a header or an interaction; got 'anna,matrix'.*header=True"
    ):
        of("anna,matrix\nbert,alien\n")
    assert rows_of(of("anna,matrix\nbert,alien\n", header=False)) == [("anna", "matrix"), ("bert", "alien")]


def test_columns_without_names(of):
    assert rows_of(of("u1,i1\nu2,i2\n")) == [("u1", "i1"), ("u2", "i2")]
    assert rows_of(of(f"1,2,{T}\n1,3,{T}\n")) == [(1, 2, T), (1, 3, T)]
    assert rows_of(of("1,2,3\n1,3,4\n")) == [(1, 2, 3.0), (1, 3, 4.0)]
    with pytest.raises(DataError, match=r"has no header, and its 5 columns could be anything.*columns=\{'user': '1'"):
        of("1,2,3,4,5\n1,2,3,4,5\n")
    log = of("1,2,3,4,5\n1,2,3,4,5\n", columns={"user": "5", "item": "4"})
    assert rows_of(log) == [(5, 4)] * 2


def test_arguments_out_of_range(of):
    with pytest.raises(
        UsageError, match=r"on_bad_rows must say what to do with them; got 'warn'. Allowed: error, skip"
    ):
        of(PLAIN, on_bad_rows="warn")
    with pytest.raises(UsageError, match=r"Unknown unit of time; got 'sec'"):
        of(PLAIN, time_unit="sec")
    with pytest.raises(UsageError, match=r"separator is said of text files only; got ','"):
        read({"user": [1], "item": [2]}, separator=",")
    with pytest.raises(UsageError, match=r"is an interaction log already"):
        read(of(PLAIN))


def test_what_was_inferred_is_echoed_once(of):
    said = []
    log = of(PLAIN, echo=said.append)
    assert said == ["\n  ".join(log.notes)]
    assert log.notes == (
        "Read log.csv: 3 interactions, 2 users, 2 items; density 75.000%; 2020-09-13 to 2020-09-13; weights 1 to 4.5",
        "Separator comma, header",
        "Columns: 'user_id' is the user, 'item_id' is the item, 'rating' is the weight, 'timestamp' is the timestamp",
        "Column 'timestamp': times in seconds since 1970",
    )


# --- properties -----------------------------------------------------------------------------------------------------

words = st.text(string.ascii_letters + string.digits + " ,;\"\t|é'", min_size=1, max_size=6).filter(
    lambda s: s.strip() == s and s
)
entries = st.lists(
    st.tuples(words, words, st.floats(-8, 8, width=32), st.integers(10**9, 2 * 10**9)), min_size=1, max_size=12
)
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@quick
@given(entries)
def test_a_log_reads_the_same_from_every_form(tmp_path, rows):
    names = ["user_id", "item_id", "rating", "timestamp"]
    frame = pl.DataFrame(
        rows, schema=dict(zip(names, (pl.String, pl.String, pl.Float32, pl.Int64), strict=True)), orient="row"
    )
    frame.write_csv(tmp_path / "a.csv", float_precision=9)
    frame.write_csv(tmp_path / "a.tsv", separator="\t", quote_style="always", float_precision=9)
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    typed = read(frame, echo=None)
    assert [row[:2] for row in rows_of(typed)] == [row[:2] for row in rows]
    for name in ("a.parquet", "a.jsonl"):
        assert rows_of(read(tmp_path / name, echo=None)) == rows_of(typed)
    for name in ("a.csv", "a.tsv"):
        log = read(tmp_path / name, echo=None)  # of text, whole columns of integers are integers
        assert [(str(u), str(i), t) for u, i, _, t in rows_of(log)] == [(u, i, t) for u, i, _, t in rows_of(typed)]
        assert np.allclose(log.weight, typed.weight, rtol=1e-6, atol=1e-7)


@quick
@given(entries)
def test_the_careful_reading_agrees_with_the_fast_one(tmp_path, rows):
    frame = pl.DataFrame(rows, schema=["user", "item", "rating", "ts"], orient="row")
    frame.write_csv(tmp_path / "a.csv")
    fast = read(tmp_path / "a.csv", echo=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_fast", lambda *_: None)
        patch.setattr(delimited, "_CHUNK", 3)
        careful = read(tmp_path / "a.csv", echo=None)
    assert rows_of(fast) == rows_of(careful)
    assert fast.users == careful.users


soup = st.one_of(
    st.binary(max_size=80),
    st.text(string.printable, max_size=120).map(str.encode),
    st.lists(
        st.lists(st.sampled_from(["1", "a", "", '"', "nan", "user", "2020-01-01", "-7", "\r", "é"]), max_size=4),
        max_size=6,
    ).map(lambda rows: "\n".join(",".join(row) for row in rows).encode()),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    soup, st.sampled_from(["a.csv", "a.tsv", "u.data", "a.inter", "train.txt", "a.jsonl", "a.csv.gz"]), st.booleans()
)
@example(b"user,item\n1,2\n", "a.csv", True)
def test_whatever_the_file_the_answer_is_a_log_or_a_clear_error(tmp_path, raw, name, skip):
    path = tmp_path / name
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    try:
        log = read(path, on_bad_rows="skip" if skip else "error", echo=None)
    except RecdistillError as error:
        assert name in str(error)  # noqa: PT017 - either is right
    else:
        assert len(log) > 0
        assert len(np.unique(log.user)) == log.n_users
        assert len(np.unique(log.item)) == log.n_items


@quick
@given(
    st.lists(
        st.sampled_from(['{"user": 1, "item": 2}', '{"user": "a", "item": null}', "{", "", "[]", '{"x": 1}']),
        min_size=1,
    )
)
def test_whatever_the_json_the_answer_is_a_log_or_a_clear_error(tmp_path, lines):
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    try:
        log = read(tmp_path / "a.jsonl", on_bad_rows="skip", echo=None)
    except RecdistillError:
        assert lines.count('{"user": 1, "item": 2}') == 0
    else:
        assert [(str(u), i) for u, i in rows_of(log)] == [("1", 2)] * lines.count('{"user": 1, "item": 2}')


def test_the_careful_reading_of_json_agrees_with_the_fast_one(tmp_path, monkeypatch):
    lines = [json.dumps({"user": u, "item": i, "rating": r, "ts": t}) for u, i, r, t in EXPECTED]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(jsonl.json, "loads", json.loads)
    fast = read(tmp_path / "a.jsonl", echo=None)
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{"]))
    careful = read(tmp_path / "a.jsonl", on_bad_rows="skip", echo=None)
    assert rows_of(fast) == rows_of(careful)


def test_nothing_is_printed_when_silence_is_asked(of, capsys):
    of(PLAIN)
    assert capsys.readouterr() == ("", "")
    of(PLAIN, echo=print)
    assert io.StringIO(capsys.readouterr().out).readline().startswith("Read log.csv: 3 interactions")
