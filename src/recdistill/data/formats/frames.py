"""Logs in memory: pandas, polars and Arrow frames, mappings of columns, sparse matrices.

Letters: n rows, U users, I items.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from recdistill.data.csr import Csr
from recdistill.data.formats.roles import ROLES, canonical, recognised
from recdistill.data.formats.table import Table
from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from recdistill.data.formats.roles import Role

__all__ = ["framed", "from_csr", "from_frame", "opened_lists"]

_ABSENT = ("NAType", "NaTType")


def from_frame(frame: pl.DataFrame, columns: Mapping[str, str] | None, source: str, *, text: bool = False) -> Table:
    """A frame whose columns are recognised by name."""
    names = recognised(frame.columns, columns, source)
    notes = [f"Columns: {', '.join(f'{name!r} is the {role}' for role, name in names.items())}"]
    others = [name for name in frame.columns if name not in names.values()]
    if others:
        notes.append(f"Columns not used: {', '.join(map(repr, others))}")
    import polars as pl  # noqa: PLC0415 - polars only where a log is read

    chosen = frame.select([frame[name].alias(role) for role, name in names.items()])
    table = Table(chosen, names, source, text=text, notes=tuple(notes))
    return opened_lists(table) if isinstance(chosen.schema["item"], pl.List | pl.Array) else table


def opened_lists(table: Table) -> Table:
    """A table whose item column holds lists (or blank-separated text), one row an item.

    Weights and times of the row are not those of its items, and are left out.
    """
    import polars as pl  # noqa: PLC0415

    rows = np.arange(table.frame.height)
    if table.lines is None:
        lines = rows
    elif callable(table.lines):
        lines = np.fromiter(map(table.lines, rows.tolist()), np.int64, len(rows))
    else:
        lines = table.lines
    frame = table.frame.with_columns(pl.Series("line", lines, pl.Int64))
    if frame.schema["item"] == pl.String:
        frame = frame.with_columns(pl.col("item").str.strip_chars().str.split(" "))
    elif isinstance(frame.schema["item"], pl.Array):
        frame = frame.with_columns(pl.col("item").arr.to_list())
    notes = (*table.notes, f"Column {table.names['item']!r} holds lists of items: one interaction an item")
    dropped = [role for role in ("weight", "timestamp") if role in table.names]
    if dropped:
        notes = (*notes, f"Left out, as they belong to whole lists: {', '.join(dropped)}")
    frame = frame.drop(dropped).filter(pl.col("item").list.len() > 0).explode("item")
    names: dict[Role, str] = {role: name for role, name in table.names.items() if role not in dropped}
    return replace(table, frame=frame.drop("line"), names=names, lines=frame["line"].to_numpy(), notes=notes)


def framed(source: object) -> pl.DataFrame | None:
    """A pandas, polars or Arrow frame, or a mapping of columns, as a polars frame; None when it is none of them."""
    import polars as pl  # noqa: PLC0415 - polars only where a log is read

    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    module = type(source).__module__.split(".")[0]
    if module == "pandas":
        return _from_pandas(source)
    if isinstance(source, dict):
        mapping = cast("dict[object, object]", source)
        series = [_series(str(name), values) for name, values in mapping.items()]
        if len({len(each) for each in series}) > 1:
            lengths = {each.name: len(each) for each in series}
            remedy = "Give each column one value for each interaction"
            raise DataError(problem("The columns of the mapping are of unequal lengths", lengths, remedy=remedy))
        return pl.DataFrame(series)
    if module == "pyarrow":
        try:
            found: Any = pl.from_arrow(source)  # pyright: ignore[reportArgumentType]
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise DataError(problem(f"The Arrow data cannot be read ({error})", type(source).__name__)) from None
        if isinstance(found, pl.DataFrame):
            return found
    return None


def from_csr(source: object) -> Table | None:
    """Our `Csr` or a scipy sparse matrix, users x items; every row and column counts, empty ones too."""
    import polars as pl  # noqa: PLC0415

    weight = None
    if isinstance(source, Csr):
        row = np.repeat(np.arange(source.n_rows), source.degrees)
        column, shape = source.indices, (source.n_rows, source.n_columns)
    elif type(source).__module__.startswith("scipy.sparse"):
        matrix: Any = source
        coordinates = matrix.tocsr().tocoo()  # by user
        row, column, shape = coordinates.row, coordinates.col, coordinates.shape
        weight = coordinates.data
        if weight.dtype.kind == "c":
            remedy = "Take its real part, or its absolute values"
            raise DataError(problem("The matrix holds complex numbers, which are no weights", remedy=remedy))
    else:
        return None
    frame = pl.DataFrame({"user": row.astype(np.int64), "item": column.astype(np.int64)})
    if weight is not None and len(weight) and (weight != weight[0]).any():
        frame = frame.with_columns(pl.Series("weight", weight.astype(np.float64)))
    note = f"A matrix of {shape[0]:,} users x {shape[1]:,} items; ids are its row and column numbers"
    names: dict[Role, str] = {role: role for role in ROLES if role in frame.columns}
    return Table(frame, names, "the matrix", notes=(note,), dense=shape)


def _from_pandas(source: Any) -> pl.DataFrame:  # noqa: ANN401 - pandas is accepted, never imported
    """Column by column, so that pyarrow is not needed."""
    import polars as pl  # noqa: PLC0415

    if source.columns.nlevels > 1 or not source.columns.is_unique:
        remedy = "Give each column one name of its own"
        raise DataError(
            problem("The columns of the pandas frame need plain names", list(source.columns), remedy=remedy)
        )
    index = [name for name in source.index.names if name is not None and canonical(str(name)) not in ("", "index")]
    if index:
        source = source.reset_index()
    return pl.DataFrame([_series(str(name), source[name]) for name in source.columns])


def _series(name: str, values: Any) -> pl.Series:  # noqa: ANN401 - a column of whatever came
    import polars as pl  # noqa: PLC0415

    if isinstance(values, pl.Series):
        return values.alias(name)
    dtype: Any = getattr(values, "dtype", None)
    if _is_array(values) and values.dtype.kind != "O":
        return pl.Series(name, values)
    if dtype is not None and str(dtype) == "category":
        codes = np.asarray(values.cat.codes)
        categories = _series(name, values.cat.categories.to_series())
        return categories.gather(pl.Series(codes.astype(np.int64)).replace(-1, None)).alias(name)
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return pl.Series(name, values.to_numpy())
    items = [None if _absent(v) else v for v in (values.tolist() if dtype is not None else list(values))]
    kinds = {type(v) for v in items if v is not None}
    if len(kinds) > 1 and kinds <= {str, int, np.int64}:
        items = [None if v is None else str(v) for v in items]
    try:
        return pl.Series(name, items)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        del error  # polars would hint at its own arguments
        named = sorted(kind.__name__ for kind in kinds)
        remedy = "Give each column one type, for example by .astype(str)"
        raise DataError(problem(f"The column {name!r} mixes types: {', '.join(named)}", remedy=remedy)) from None


def _is_array(values: Any) -> bool:  # noqa: ANN401
    return isinstance(values, np.ndarray)


def _absent(value: object) -> bool:
    """None, NaN, pandas' NA and NaT."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in _ABSENT
