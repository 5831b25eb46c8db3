"""Columns of any type -> `Interactions`: ids numbered, times in seconds, weights finite, bad rows named.

Letters: n rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from recdistill.data.formats.roles import naming
from recdistill.data.formats.times import Unit, seconds
from recdistill.data.interactions import SPLITS, Interactions
from recdistill.errors import BadRows, DataError, nearest, problem
from recdistill.external import CANONICAL
from recdistill.ids import IdTable

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl
    from numpy.typing import NDArray

    from recdistill.data.formats.roles import Role

__all__ = ["Fault", "OnBadRows", "Table", "assembled", "refused", "skipped"]

OnBadRows = Literal["error", "skip"]

_SHOWN = 10
_INT64_END = 2**63
_FEW = 20  # one in so many: fewer other ids among whole numbers look like a mistake
_SPLIT_NAMES = {
    **{name: code for code, name in enumerate(SPLITS)},
    "training": 0,
    "val": 1,
    "validation": 1,
    "dev": 1,
    "testing": 2,
}


@dataclass(frozen=True)
class Fault:
    """One row that cannot be read."""

    row: int
    """Place among the rows of the table, or -1 when it never became one."""
    line: int
    column: str
    value: object
    why: str

    def text(self, unit: str) -> str:
        """The fault in one clause."""
        column = f", column {self.column!r}" if self.column else ""
        value = "" if self.value is None else f" {str(self.value)[:80]!r}"
        return f"{unit} {self.line}{column}:{value} {self.why}"


@dataclass(frozen=True)
class Table:
    """A log as its source gives it."""

    frame: pl.DataFrame
    """n rows; columns named by role, of any type."""
    names: dict[Role, str]
    """Role -> the name of its column in the source."""
    source: str
    """How errors call it."""
    text: bool = False
    """Whether ids came as text whatever they are, so that ids which are all integers become integers."""
    unit: Literal["line", "row"] = "row"
    lines: NDArray[np.int64] | Callable[[int], int] | None = None
    """Where each row stands in the source; rows count from 0 when None."""
    faults: tuple[Fault, ...] = ()
    """Rows that were left out of the frame because they are no rows at all."""
    notes: tuple[str, ...] = ()
    dense: tuple[int, int] | None = None
    """(U, I) where ids are rows 0..U-1, 0..I-1 and the ones without interactions count too."""

    def line(self, row: int) -> int:
        """Where the row stands in the source."""
        if self.lines is None:
            return row
        return self.lines(row) if callable(self.lines) else int(self.lines[row])


@dataclass
class _Checked:
    """The rows that failed, found column by column."""

    table: Table
    bad: NDArray[np.bool_] = field(init=False)
    faults: list[Fault] = field(init=False)

    def __post_init__(self) -> None:
        self.bad = np.zeros(self.table.frame.height, np.bool_)
        self.faults = list(self.table.faults)

    def mark(self, role: Role, where: NDArray[np.bool_], why: str) -> None:
        """`where` (n,): rows whose value of this role cannot be used."""
        fresh = np.flatnonzero(where & ~self.bad)
        self.bad |= where
        column = self.table.frame[role]
        for row in fresh[: _SHOWN + 1].tolist():  # more are counted, not shown
            value = None if role in ("user", "item") else column[row]
            self.faults.append(Fault(row, self.table.line(row), self.table.names[role], value, why))

    @property
    def count(self) -> int:
        return int(self.bad.sum()) + len(self.table.faults)


def assembled(table: Table, *, on_bad_rows: OnBadRows = "error", time_unit: Unit | None = None) -> Interactions:
    """The log of a table.

    Args:
        table: what a format gave.
        on_bad_rows: "error" stops at bad rows; "skip" leaves them out and says so in the notes.
        time_unit: of numeric times; recognised by size when None.

    Raises:
        BadRows: rows that cannot be read, with place, column, value and remedy.
        DataError: no rows, ids that are neither integers nor text, times whose unit cannot be told.
    """
    if table.frame.height == 0 and not table.faults:
        raise DataError(problem(f"{table.source} holds no interactions", remedy="Check that it is the right file"))
    checked = _Checked(table)
    for role in ("user", "item"):
        checked.mark(role, _missing(table.frame[role]), "is missing")
    weight = _weights(checked)
    times = _times(checked, time_unit)
    part = _splits(checked)
    notes = list(table.notes)
    good = ~checked.bad
    if checked.count:
        if on_bad_rows == "error":
            raise _with_lines(refused(table, checked.faults, checked.count), checked)
        notes.append(skipped(table, checked.faults, checked.count))
        if not good.any():
            remedy = "Check separator, header and columns"
            raise BadRows(problem(f"{table.source}: every row is bad; {notes[-1]}", remedy=remedy))
    keep = None if good.all() else np.flatnonzero(good)
    if weight is not None and (low := int((weight[good] <= 0).sum())):
        notes.append(
            f"{low:,} weights are 0 or less and count as interactions like all others; at_least(...), or "
            "data.min_rating, keeps those that are meant"
        )
    users, user = _numbered(table, "user", keep, notes)
    items, item = _numbered(table, "item", keep, notes)
    timestamp = None
    if times is not None:
        values, unit, note = times
        values = values if keep is None else values[keep]
        timestamp, order = seconds(values, unit)
        notes.append(f"Column {table.names['timestamp']!r}: {note}")
        if order is not None:
            notes.append("Put in order of time, which is finer than the seconds kept")
            keep = order if keep is None else keep[order]
            user, item = user[order], item[order]
    return Interactions(
        users=users,
        items=items,
        user=user,
        item=item,
        timestamp=timestamp,
        weight=weight if weight is None or keep is None else weight[keep],
        split=part if part is None or keep is None else part[keep],
        notes=tuple(notes),
    )


def refused(table: Table, faults: list[Fault], count: int) -> BadRows:
    """The error for bad rows: the first in full."""
    first = min(faults, key=lambda f: f.line)
    more = f" ({count - 1:,} more bad row{'s' if count > 2 else ''})" if count > 1 else ""
    remedy = "Mend the source, or leave such rows out with on_bad_rows='skip' (--on-bad-rows skip)"
    return BadRows(problem(f"{table.source}, {first.text(table.unit)}{more}", remedy=remedy))


def _with_lines(error: BadRows, checked: _Checked) -> BadRows:
    """The error, with what somebody needs who goes on without those rows."""
    table = checked.table
    if table.unit == "line" and isinstance(table.lines, np.ndarray):
        error.lines = tuple(sorted({*table.lines[checked.bad].tolist(), *(fault.line for fault in table.faults)}))
    error.told = skipped(table, checked.faults, checked.count)
    return error


def skipped(table: Table, faults: list[Fault], count: int) -> str:
    """The note for bad rows: a count and the first ten."""
    first = sorted(faults, key=lambda f: f.line)[:_SHOWN]
    shown = "; ".join(f.text(table.unit) for f in first)
    return f"Skipped {count:,} bad row{'s' if count > 1 else ''}: {shown}{'; ...' if count > len(first) else ''}"


def _missing(column: pl.Series) -> NDArray[np.bool_]:
    """(n,) whether the id is null or empty text."""
    import polars as pl  # noqa: PLC0415 - polars only where a log is read

    missing = column.is_null()
    if column.dtype == pl.String:
        missing = missing | (column.str.strip_chars() == "").fill_null(value=False)
    elif isinstance(column.dtype, pl.Categorical | pl.Enum):
        empty = [c for c in column.unique().drop_nulls().cast(pl.String).to_list() if not c.strip()]
        if empty:
            missing = missing | column.cast(pl.String).is_in(empty).fill_null(value=False)
    elif column.dtype.is_float():
        missing = missing | column.is_nan().fill_null(value=False)
    return missing.to_numpy()


def _weights(checked: _Checked) -> NDArray[np.float32] | None:
    import polars as pl  # noqa: PLC0415

    if "weight" not in checked.table.frame.columns:
        return None
    column = checked.table.frame["weight"]
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        column = column.str.strip_chars()
        numbers = column.cast(pl.Float64, strict=False)
    elif column.dtype.is_numeric() or column.dtype == pl.Boolean:
        numbers = column.cast(pl.Float64) if column.dtype.is_decimal() else column
    else:
        name = checked.table.names["weight"]
        what = f"{checked.table.source}: the column {name!r} holds no numbers"
        remedy = f"Map another column: {naming({'weight': None})}"
        raise DataError(problem(what, str(column.dtype), remedy=remedy))
    with np.errstate(over="ignore"):
        values = numbers.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    checked.mark("weight", ~np.isfinite(values), "is not a finite number")
    return values


def _times(checked: _Checked, time_unit: Unit | None) -> tuple[NDArray[np.int64], Unit, str] | None:
    from recdistill.data.formats.times import recognised  # noqa: PLC0415

    if "timestamp" not in checked.table.frame.columns:
        return None
    where = f"{checked.table.source}, column {checked.table.names['timestamp']!r}"
    column = checked.table.frame["timestamp"]
    checked.mark("timestamp", column.is_null().to_numpy(), "is missing")
    found = recognised(column, time_unit, where, checked.bad)
    checked.mark("timestamp", found.bad, found.why)
    return found.values, found.unit, found.note


def _splits(checked: _Checked) -> NDArray[np.int8] | None:
    import polars as pl  # noqa: PLC0415

    if "split" not in checked.table.frame.columns:
        return None
    column = checked.table.frame["split"]
    distinct = column.unique().drop_nulls()
    names = {value: str(value).strip().casefold() for value in distinct.cast(pl.String).to_list()}
    numeric = {"0": 0, "1": 1, "2": 2} if column.dtype.is_integer() else {}
    codes = {value: {**_SPLIT_NAMES, **numeric}.get(name, -1) for value, name in names.items()}
    unknown = sorted(value for value, code in codes.items() if code < 0)
    part = column.cast(pl.String).replace_strict(codes, default=-1, return_dtype=pl.Int8).fill_null(-1).to_numpy()
    if unknown and len(unknown) == len(codes):
        what = f"{checked.table.source}: the column {checked.table.names['split']!r} holds no names of a split"
        remedy = "Name the parts train, valid and test"
        raise DataError(problem(what, unknown[:3], allowed=SPLITS, near=nearest(unknown[0], SPLITS), remedy=remedy))
    checked.mark("split", part < 0, "is not one of train, valid, test")
    return part


def _numbered(
    table: Table, role: Literal["user", "item"], keep: NDArray[np.int64] | None, notes: list[str]
) -> tuple[IdTable, NDArray[np.int32]]:
    """The ids that occur, ascending (integers by value, text by its bytes), and each row's place: (n,)."""
    import polars as pl  # noqa: PLC0415

    column = table.frame[role]
    if keep is not None:
        column = column.gather(keep)
    if column.dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        if not (whole.cast(pl.Float64) == column).all():
            remedy = "Give ids as integers or text"
            value = float(column.filter(whole.cast(pl.Float64) != column)[0])
            raise DataError(problem(f"{table.source}: the {role} ids are fractions", value, remedy=remedy))
        notes.append(f"Column {table.names[role]!r}: whole numbers stored as fractions, read as integers")
        column = whole
    if column.dtype.is_integer():
        low, high = (cast("int", each) for each in (column.min(), column.max()))
        if not -_INT64_END <= low <= high < _INT64_END:  # of unsigned and of 128-bit integers
            return _of_text(table, role, column.cast(pl.String), notes)
        size = None if table.dense is None else table.dense[role == "item"]
        return _of_integers(column.cast(pl.Int64).to_numpy(), size)
    if column.dtype == pl.String or isinstance(column.dtype, pl.Categorical | pl.Enum):
        return _of_text(table, role, column, notes)
    what = f"{table.source}: the column {table.names[role]!r} cannot hold {role} ids"
    raise DataError(problem(what, str(column.dtype), allowed="integers or text"))


def _of_integers(values: NDArray[np.int64], size: int | None) -> tuple[IdTable, NDArray[np.int32]]:
    if size is not None:
        return IdTable.from_ids(np.arange(size)), values.astype(np.int32)
    low, high = int(values.min()), int(values.max())
    if high - low < 4 * len(values) + 1024:  # a table of the range is cheaper than a sort
        occurs = np.zeros(high - low + 1, np.bool_)
        occurs[values - low] = True
        place = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
        return IdTable.from_ids(np.flatnonzero(occurs) + low), place[values - low]
    distinct, inverse = np.unique(values, return_inverse=True)
    return IdTable.from_ids(distinct), inverse.astype(np.int32)


def _of_text(
    table: Table, role: Literal["user", "item"], column: pl.Series, notes: list[str]
) -> tuple[IdTable, NDArray[np.int32]]:
    import polars as pl  # noqa: PLC0415

    if column.dtype == pl.String:
        column = column.cast(pl.Categorical(pl.Categories.random()))
    distinct = column.unique().drop_nulls()
    codes = distinct.to_physical().to_numpy()  # unsigned; not dense and in no order
    names = np.array(distinct.cast(pl.String).to_list(), dtype=object)
    ids: NDArray[Any] = names
    if table.text:
        ids = np.array([name.strip() for name in names.tolist()], dtype=object)
        if (ids != names).any():
            notes.append(f"Column {table.names[role]!r}: blanks around ids were taken off")
        whole = [bool(CANONICAL.fullmatch(s)) and abs(int(s)) < _INT64_END for s in ids.tolist()]
        if all(whole):
            ids = np.array([int(s) for s in ids.tolist()], np.int64)
        elif _FEW * sum(whole) > len(whole) * (_FEW - 1):
            other = ids[whole.index(False)]
            few = len(whole) - sum(whole)
            notes.append(
                f"Column {table.names[role]!r}: {few:,} of {len(whole):,} ids are no whole numbers, such as {other!r}, "
                "so all stay text"
            )
    ranked, inverse = np.unique(ids, return_inverse=True)  # by code point, which is the order of utf-8 bytes too
    place = np.zeros(int(codes.max()) + 1, np.int32)
    place[codes] = inverse
    return IdTable.from_ids(ranked), place[column.to_physical().to_numpy()]
