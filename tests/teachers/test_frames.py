"""CSV and TSV of a teacher: any separator, and what is wrong named by its line or row, with a remedy."""

from __future__ import annotations

import polars as pl
import pytest

from recdistill.errors import DataError
from recdistill.ids import IdTable
from recdistill.teachers.stored import stored

TABLES = {"users": IdTable.from_ids(["a", "b", "c"]), "items": IdTable.from_ids(["w", "x", "y", "z"])}

BAD_TEXT = {
    "a line with more fields": (
        "user_id,item_id\na,w\na,x,y\n",
        r"bad\.csv cannot be read as CSV: line 3 has 3 fields, the first line 2; got 'a,x,y'. Give each line as many",
    ),
    "a line with fewer": (
        "user_id,item_id\na,w\nb\n",
        r"1 rows have no id in column 'item_id'; the first is row 1 \(from 0\). Write it, or leave such rows out",
    ),
    "another encoding": (
        "user_id,item_id\na,w\né,w\n".encode("latin1"),
        r"cannot be read as CSV: line 3 is not UTF-8; got b'\\xe9,w\\n'. Save it as UTF-8, for example by: iconv",
    ),
    "nothing": (
        "",
        r"bad\.csv cannot be read as CSV: it is empty. Name the columns in its first line: user_id,item_id",
    ),
    "columns alone": ("user_id,item_id\n", "has no rows. Write one row for each user and item"),
    "no names": (
        "a,w\nb,x\n",
        r"no column is recognised as the user; got \['a', 'w'\].*Name the columns so in the first",
    ),
    "a score of text": (
        "user_id,item_id,score\na,w,0.5\na,x,high\nb,x,low\n",
        r"2 of 3 scores in column 'score' are no numbers; the first is in row 1 \(from 0\); got 'high'. Write numbers",
    ),
    "a decimal comma": (
        "user_id;item_id;score\na;w;0,5\n",
        "no numbers; .*row 0 .*; got '0,5'. Write numbers with a point",
    ),
    "a score that is none": (
        "user_id,item_id,score\na,w,0.5\na,x,nan\n",
        r"1 of 2 scores are not finite; the first is in row 1 \(from 0\); got nan. Leave such rows out",
    ),
    "ranks of text": (
        "user_id,item_id,rank\na,w,1\na,x,second\n",
        r"'rank' must be integers; the first that is none is in row 1 \(from 0\); got 'second'. Write 0, 1, 2",
    ),
    "ranks from 5": (
        "user_id,item_id,rank\na,x,6\na,w,5\n",
        r"from 0 or from 1; the least in column 'rank', in row 1 \(from 0\); got 5. Take 5 from each, or drop",
    ),
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_text_that_cannot_be_used_is_named_by_its_line_or_row_with_a_remedy(tmp_path, name):
    text, reason = BAD_TEXT[name]
    (tmp_path / "bad.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=reason):
        stored(lists=tmp_path / "bad.csv", **TABLES)


@pytest.mark.parametrize(("kind", "separator"), [("csv", ";"), ("csv", "\t"), ("tsv", ","), ("csv", "|")])
def test_another_separator_than_the_endings_is_recognised(tmp_path, kind, separator):
    frame = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["y", "w", "w"], "score": [3.0, 1.0, 2.0]})
    frame.write_csv(tmp_path / "s.csv")
    frame.write_csv(tmp_path / f"other.{kind}", separator=separator)
    one, other = (stored(scores=tmp_path / name, **TABLES) for name in ("s.csv", f"other.{kind}"))
    assert one.fingerprint == other.fingerprint
