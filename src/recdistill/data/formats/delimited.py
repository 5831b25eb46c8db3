"""Text with columns: the fast reading by polars, and a careful one that says what is wrong and where.

The fast one reads ids straight into categories, numbers into numbers. What it cannot read, or leaves empty, sends the
whole file to the careful one: Python's csv, row by row, which knows lines. Files without faults never see it.
"""

from __future__ import annotations

import csv
import gzip
import mmap
from typing import TYPE_CHECKING

import numpy as np

from recdistill.data.formats.frames import opened_lists
from recdistill.data.formats.roles import recognised
from recdistill.data.formats.table import Fault, Table
from recdistill.data.formats.text import content, is_packed, lines_of
from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import polars as pl

    from recdistill.data.formats.layout import Layout
    from recdistill.data.formats.roles import Role

__all__ = ["read_delimited", "read_lists"]

_UNIT_SEPARATOR = "\x1f"  # stands in for "::", which polars does not take
_SAMPLE = 200
_CHUNK = 200_000


def read_delimited(path: Path, layout: Layout, columns: Mapping[str, str] | None, sample: list[str]) -> Table:
    """The columns of a text file.

    Args:
        path: the file.
        layout: what it looks like.
        columns: what the user said of them.
        sample: its first lines.
    """
    names = recognised(layout.names, columns or dict(layout.mapping), path.name)
    notes = [*layout.notes, f"Columns: {', '.join(f'{name!r} is the {role}' for role, name in names.items())}"]
    others = [name for name in layout.names if name not in names.values()]
    if others:
        notes.append(f"Columns not used: {', '.join(map(repr, others))}")
    table = _fast(path, layout, names, sample, tuple(notes)) or _careful(path, layout, names, tuple(notes))
    return opened_lists(table) if names["item"] in layout.sequences else table


def read_lists(path: Path, notes: tuple[str, ...] = ()) -> Table:
    """One line per user: the user, then items, separated by blanks or tabs (LightGCN, KDs)."""
    import polars as pl  # noqa: PLC0415 - polars only where a log is read

    text = pl.Series("line", content(path).split("\n"))
    words = text.str.replace_all(r"\s+", " ").str.strip_chars().str.split(" ")
    frame = pl.DataFrame({"words": words, "line": np.arange(1, len(text) + 1)})
    frame = frame.filter(frame["words"].list.first() != "")
    empty = int((frame["words"].list.len() == 1).sum())
    if empty:
        notes = (*notes, f"{path.name}: {empty:,} users have no items")
    frame = frame.select(
        pl.col("words").list.first().alias("user"), pl.col("words").list.slice(1).alias("item"), pl.col("line")
    )
    frame = frame.filter(pl.col("item").list.len() > 0).explode("item")
    if not frame.height:
        raise DataError(problem(f"{path.name} names users, but no items", remedy="Check that it is the right file"))
    names: dict[Role, str] = {"user": "user", "item": "item"}
    lines = frame["line"].to_numpy()
    return Table(frame.select("user", "item"), names, path.name, text=True, unit="line", lines=lines, notes=notes)


def _fast(
    path: Path, layout: Layout, names: dict[Role, str], sample: list[str], notes: tuple[str, ...]
) -> Table | None:
    """The table, or None when anything about the file needs a closer look."""
    import polars as pl  # noqa: PLC0415

    schema: dict[str, pl.DataType] = {name: pl.String() for name in layout.names}
    ids: tuple[Role, ...] = ("user", "item", "split")
    for role in ids if not layout.quoted or _without_quotes(path) else ():
        if role in names and names[role] not in layout.sequences:
            schema[names[role]] = pl.Categorical(pl.Categories.random())
    if "weight" in names:
        schema[names["weight"]] = pl.Float32()
    if "timestamp" in names and _whole(layout, names["timestamp"], sample):
        schema[names["timestamp"]] = pl.Int64()
    source: Path | bytes = path
    separator = layout.separator
    if len(separator) > 1:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        source, separator = raw.replace(separator.encode(), _UNIT_SEPARATOR.encode()), _UNIT_SEPARATOR
    try:
        frame = pl.read_csv(
            source,
            has_header=False,
            skip_lines=_first(sample) + layout.header,
            separator=separator,
            quote_char='"' if layout.quoted else None,
            schema=schema,
            low_memory=True,
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return None
    frame = frame.select([pl.col(name).alias(role) for role, name in names.items()])
    if not frame.height or any(frame[role].null_count() for role in names):
        return None
    if "weight" in names and not bool(frame["weight"].is_finite().all()):
        return None
    if frame.schema.get("timestamp") == pl.Int64 and frame["timestamp"].min() < 0:  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]
        return None

    def line(row: int) -> int:
        for at, (number, _) in enumerate(_records(path, layout)):
            if at == row + layout.header:
                return number
        return row

    return Table(frame, names, path.name, text=True, unit="line", lines=line, notes=notes)


def _careful(path: Path, layout: Layout, names: dict[Role, str], notes: tuple[str, ...]) -> Table:
    """The rows of the right width as text, with their lines; the others as faults."""
    import polars as pl  # noqa: PLC0415

    place: dict[Role, int] = {role: layout.names.index(name) for role, name in names.items()}
    values: dict[Role, list[str]] = {role: [] for role in names}
    chunks: list[pl.DataFrame] = []  # a Python string takes five times the room of polars'
    lines: list[int] = []
    faults: list[Fault] = []
    width, needed = len(layout.names), max(place.values()) + 1
    records = _records(path, layout)
    if layout.header:
        next(records, None)
    for number, fields in records:
        if isinstance(fields, str):
            faults.append(Fault(-1, number, "", None, fields))
        elif not needed <= len(fields) <= width:  # polars, too, fills up columns missing at the end
            plural = "s" if len(fields) != 1 else ""
            why = f"has {len(fields)} field{plural} where {width} are meant"
            faults.append(Fault(-1, number, "", layout.separator.join(fields), why))
        else:
            lines.append(number)
            for role, at in place.items():
                values[role].append(fields[at])
            if len(lines) % _CHUNK == 0:
                chunks.append(pl.DataFrame(values, schema=dict.fromkeys(names, pl.String)))
                values = {role: [] for role in names}
    chunks.append(pl.DataFrame(values, schema=dict.fromkeys(names, pl.String)))
    return Table(
        pl.concat(chunks),
        names,
        path.name,
        text=True,
        unit="line",
        lines=np.array(lines, np.int64),
        faults=tuple(faults),
        notes=notes,
    )


def _records(path: Path, layout: Layout) -> Iterator[tuple[int, list[str] | str]]:
    """The line each record begins at, and its fields, or what is wrong with it; blank lines are passed over."""
    if not layout.quoted:
        for number, line in enumerate(lines_of(path, None), 1):
            if line.strip():
                yield number, line.rstrip("\n").split(layout.separator)
        return
    reader = csv.reader(lines_of(path, ""), delimiter=layout.separator, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                what = f"{path.name}, line {start}: a quote is opened and never closed"
                raise DataError(problem(what, remedy="Close the quote, or double it inside quotes")) from None
            yield start, f"cannot be cut into columns ({error})"
            continue
        if len(fields) > 1 or any(field.strip() for field in fields):
            yield start, fields


def _without_quotes(path: Path) -> bool:
    """Whether the file holds no `"` at all; only then may ids be read as categories.

    As a category, polars 2.1 reads `"a"b` as "a" without a word, where text is refused.
    """
    if is_packed(path) or path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(b'"') < 0


def _first(sample: list[str]) -> int:
    """How many blank lines stand at the top."""
    return next(at for at, line in enumerate(sample) if line.strip())


def _whole(layout: Layout, name: str, sample: list[str]) -> bool:
    """Whether the sample of a column holds whole numbers only."""
    import polars as pl  # noqa: PLC0415

    at = layout.names.index(name)
    rows = [line for line in sample if line.strip()][layout.header :][:_SAMPLE]
    text = "\n".join(rows).replace(layout.separator, _UNIT_SEPARATOR).encode()
    try:
        read = pl.read_csv(
            text,
            has_header=False,
            separator=_UNIT_SEPARATOR,
            quote_char='"' if layout.quoted else None,
            schema={name: pl.String() for name in layout.names},
            truncate_ragged_lines=True,
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False
    column = read.to_series(at).drop_nulls().str.strip_chars()
    return column.cast(pl.Int64, strict=False).null_count() == 0
