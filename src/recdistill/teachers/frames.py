"""Parquet, CSV and TSV of a foreign recommender -> a frame; where text breaks is said with its line and a remedy."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from recdistill.errors import DataError, problem
from recdistill.teachers.archives import suffix_of

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

__all__ = ["FRAMES", "read_frame"]

FRAMES = {".parquet": "Parquet", ".csv": "CSV", ".tsv": "TSV"}
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_SHOWN = 60
"""Characters of a line that are quoted."""


def read_frame(path: Path) -> pl.DataFrame:
    """All columns of a file, of the types that they look like.

    Text is separated as the ending says, or by whichever of comma, semicolon, tab and bar the first line has most of.

    Raises:
        DataError: no such file, it is not what its ending says, not UTF-8, or a line has more fields than the first.
    """
    import polars as pl  # noqa: PLC0415 - imported where it is used

    kind = suffix_of(path)
    separator = "" if kind == ".parquet" else _separator(path, _SEPARATORS[kind])
    try:
        if kind == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, separator=separator, infer_schema_length=None)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        what = f"{path} cannot be read as {FRAMES[kind]}"
        if kind != ".parquet":
            _check_text(path, what, separator)
        raise DataError(problem(what, (str(error).splitlines() or [type(error).__name__])[0])) from None


def _separator(path: Path, own: str) -> str:
    """The one of the ending where the first line has it."""
    with path.open("rb") as file:
        first = file.readline().decode(errors="replace")
    return own if own in first else max((own, ",", ";", "\t", "|"), key=first.count)


def _check_text(path: Path, what: str, separator: str) -> None:
    """Say where a text breaks, if that is found."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                remedy = "Save it as UTF-8, for example by: iconv -f LATIN1 -t UTF-8 OLD > NEW"
                raise DataError(problem(f"{what}: line {number} is not UTF-8", line[:_SHOWN], remedy=remedy)) from None
    if path.stat().st_size == 0:
        raise DataError(
            problem(f"{what}: it is empty", remedy="Name the columns in its first line: user_id,item_id,rank")
        )
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        width = len(next(rows, []))
        for row in rows:
            if len(row) > width:
                said = f"{what}: line {rows.line_num} has {len(row)} fields, the first line {width}"
                remedy = f"Give each line as many as the first, and put a value that holds {separator!r} in quotes"
                raise DataError(problem(said, separator.join(row)[:_SHOWN], remedy=remedy))
