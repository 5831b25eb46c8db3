"""`read`: an interaction log from a file, a folder, a frame or a matrix.

The forms themselves are under `formats/`; here is only which one it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from recdistill.data.formats.columnar import read_columnar
from recdistill.data.formats.delimited import read_delimited, read_lists
from recdistill.data.formats.frames import framed, from_csr, from_frame
from recdistill.data.formats.jsonl import read_jsonl
from recdistill.data.formats.layout import looked_at
from recdistill.data.formats.table import OnBadRows, Table, assembled
from recdistill.data.formats.text import first_lines, kind_of
from recdistill.data.interactions import SPLITS, Interactions
from recdistill.errors import DataError, UsageError, nearest, problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from recdistill.data.formats.roles import Role
    from recdistill.data.formats.times import Unit

__all__ = ["read"]

_WHOLE = ("interactions", "u", "ratings")  # stems of the one file of a folder, in order of preference
_PARTS = {"train": 0, "valid": 1, "val": 1, "validation": 1, "dev": 1, "test": 2}


@dataclass(frozen=True)
class _How:
    """What the user said of a text file."""

    columns: Mapping[str, str] | None
    separator: str | None
    header: bool | None
    lists: bool | None


def read(
    source: object,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_rows: OnBadRows = "error",
    time_unit: Unit | None = None,
    separator: str | None = None,
    header: bool | None = None,
    lists: bool | None = None,
    echo: Callable[[str], object] | None = print,
) -> Interactions:
    """Read an interaction log.

    Files: CSV, TSV and other separated text, JSON lines (all plain, .gz or .zst), Parquet, Arrow; MovieLens `u.data`,
    `ratings.dat` and `ratings.csv`; RecBole `.inter`; one line per user (`u i1 i2 ...`). Folders: one that holds
    `interactions.*`, `u.data` or `ratings.*`, or files of a given split (`train.*`, `valid.*`, `test.*`). In memory:
    pandas, polars and Arrow frames, mappings of columns, scipy sparse matrices and `Csr`, users x items.

    Ids of text files become integers where every id of the column is an integer without leading zeros, and stay text
    otherwise ("007"); elsewhere they keep their type. Rows of users and items ascend by id. What was inferred stands
    in `notes` of the log, and is echoed once.

    Args:
        source: a path, a frame or a matrix.
        columns: role (`user`, `item`, `weight`, `timestamp`, `split`) -> column; the rest is recognised by name.
            Columns of a file without a header are called "1", "2", ....
        on_bad_rows: "error" stops at rows that cannot be read; "skip" leaves them out, the notes counting them.
        time_unit: of numeric times: "s", "ms", "us" or "ns"; told from their size when None.
        separator: of columns; found when None.
        header: whether the first line names the columns; found when None.
        lists: whether each line is a user followed by items; found when None.
        echo: what to call with the notes; None for silence.

    Returns:
        The log: int32 rows, times in seconds, weights in float32.

    Raises:
        BadRows: rows that cannot be read; the message has file, line, column, value and remedy.
        DataError: no such file, an empty one, or one that can be read in two ways; the message has the remedy.
        UsageError: an argument outside what is allowed.
    """
    if on_bad_rows not in ("error", "skip"):
        raise UsageError(problem("on_bad_rows must say what to do with them", on_bad_rows, allowed=["error", "skip"]))
    if time_unit not in (None, "s", "ms", "us", "ns"):
        raise UsageError(problem("Unknown unit of time", time_unit, allowed=["s", "ms", "us", "ns"]))
    if columns is not None and not isinstance(columns, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        allowed = "role -> column: {'user': 'member', 'item': 'sku'}"
        raise UsageError(problem("columns is a mapping", type(columns).__name__, allowed=allowed))
    if isinstance(source, Interactions):
        remedy = "Use it as it is"
        raise UsageError(problem("This is an interaction log already", remedy=remedy))
    table = _table(source, _How(columns, separator, header, lists))
    log = assembled(table, on_bad_rows=on_bad_rows, time_unit=time_unit)
    log = replace(log, notes=(f"Read {table.source}: {log.describe()}", *log.notes))
    if echo is not None:
        echo("\n  ".join(log.notes))
    return log


def _table(source: object, how: _How) -> Table:
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if path.is_dir():
            return _of_folder(path, how)
        if not path.is_file():
            raise DataError(problem(f"There is no file {str(path)!r}", near=_neighbour(path)))
        return _of_file(path, how)
    said = {"separator": how.separator, "header": how.header, "lists": how.lists}
    for name, value in said.items():
        if value is not None:
            raise UsageError(problem(f"{name} is said of text files only", value, remedy="Leave it out"))
    table = from_csr(source)
    if table is not None:
        return table
    frame = framed(source)
    if frame is None:
        allowed = "a path; a pandas, polars or Arrow frame; a mapping of columns; a sparse matrix of users x items"
        what = "This cannot be read as an interaction log"
        raise DataError(problem(what, type(source).__name__, allowed=allowed))
    return from_frame(frame, how.columns, "the frame")


def _of_file(path: Path, how: _How) -> Table:
    kind = kind_of(path)
    if path.stat().st_size == 0:
        raise DataError(problem(f"{path.name} is empty", remedy="Check that it is the right file"))
    if kind in ("parquet", "arrow"):
        return from_frame(read_columnar(path, kind), how.columns, path.name)
    if kind == "jsonl":
        return read_jsonl(path, how.columns)
    lines = first_lines(path)
    layout = looked_at(path, lines, columns=how.columns, separator=how.separator, header=how.header, lists=how.lists)
    if layout.lists:
        return read_lists(path, layout.notes)
    return read_delimited(path, layout, how.columns, lines)


def _of_folder(folder: Path, how: _How) -> Table:
    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    readable = [f for f in files if _is_readable(f)]
    for stem in _WHOLE:
        fitting = [f for f in readable if _stem(f) == stem]
        if len(fitting) > 1:
            what = f"The folder {folder.name!r} holds more than one log: {', '.join(f.name for f in fitting)}"
            raise DataError(problem(what, remedy="Give the path of the file that is meant"))
        if fitting:
            return _of_file(fitting[0], how)
    parts = {f: _PARTS[part] for f in readable if (part := _stem(f).rsplit(".", 1)[-1]) in _PARTS}
    if parts:
        return _of_parts(folder, parts, how)
    named = [f for f in readable if f.name.endswith(".inter")] or readable
    if len(named) == 1:
        return _of_file(named[0], how)
    what = f"The folder {folder.name!r} holds no log that is recognised"
    allowed = "interactions.*, ratings.*, u.data, *.inter, or train.* and test.*"
    raise DataError(problem(what, [f.name for f in files], allowed=allowed, remedy="Give the path of the file"))


def _of_parts(folder: Path, parts: dict[Path, int], how: _How) -> Table:
    """Files of a given split, as one table with a split column."""
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    counts = [list(parts.values()).count(code) for code in range(len(SPLITS))]
    if counts[0] != 1 or max(counts) > 1:
        what = f"The folder {folder.name!r} must hold one file for each part of its split"
        raise DataError(problem(what, [f.name for f in parts], remedy="Give the path of one file"))
    ordered = sorted(parts, key=lambda f: parts[f])
    tables = [_of_file(f, how) for f in ordered]
    if any("split" in t.names for t in tables):
        remedy = "Give the path of one file"
        raise DataError(problem(f"The files of {folder.name!r} have a split column of their own", remedy=remedy))
    if len({tuple(t.frame.columns) for t in tables}) > 1:
        columns = {t.source: t.frame.columns for t in tables}
        raise DataError(problem(f"The files of {folder.name!r} hold different columns", columns))
    frames: list[pl.DataFrame] = []
    for f, t in zip(ordered, tables, strict=True):
        same = [pl.col(c).cast(pl.String) for c, d in t.frame.schema.items() if isinstance(d, pl.Categorical)]
        frames.append(t.frame.with_columns(*same, pl.lit(SPLITS[parts[f]]).alias("split")))
    ends = np.cumsum([f.height for f in frames])

    def line(row: int) -> int:
        part = int(np.searchsorted(ends, row, side="right"))
        return tables[part].line(row - (int(ends[part - 1]) if part else 0))

    names: dict[Role, str] = {**tables[0].names, "split": "file"}
    notes = tuple(dict.fromkeys(note for t in tables for note in t.notes))
    return Table(
        pl.concat(frames, how="vertical_relaxed"),
        names,
        f"{folder.name} ({', '.join(f.name for f in ordered)})",
        text=tables[0].text,
        unit=tables[0].unit,
        lines=line,
        faults=tuple(fault for t in tables for fault in t.faults),
        notes=notes,
    )


def _is_readable(path: Path) -> bool:
    try:
        return bool(kind_of(path))
    except DataError:
        return False


def _stem(path: Path) -> str:
    """The name without its endings: "train" of train.txt.gz, "ml.train" of ml.train.inter."""
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    return name.rsplit(".", 1)[0]


def _neighbour(path: Path) -> str | None:
    if not path.parent.is_dir():
        return None
    return nearest(path.name, [f.name for f in path.parent.iterdir()])
