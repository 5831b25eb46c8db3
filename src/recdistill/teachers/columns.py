"""Columns of a foreign recommender's file, by role, and their values, checked: the first bad row is named.

Rows are counted from 0, without the line that names the columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.data.formats.roles import canonical
from recdistill.errors import DataError, nearest, problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray

__all__ = ["columns_of", "finite", "ids_of", "ranks_of", "scores_of"]


def columns_of(
    path: Path, names: Sequence[str], wanted: Mapping[str, Sequence[str]], needed: Sequence[str]
) -> dict[str, str]:
    """Role -> the column that is called by one of its names.

    Raises:
        DataError: a needed role has none.
    """
    found: dict[str, str] = {}
    for role, aliases in wanted.items():
        by_alias = {canonical(alias): place for place, alias in reversed(list(enumerate(aliases)))}
        fitting = sorted((by_alias[canonical(name)], name) for name in names if canonical(name) in by_alias)
        if fitting:
            found[role] = fitting[0][1]
        elif role in needed:
            left = [name for name in names if name not in found.values()]
            near = next((n for alias in aliases if (n := nearest(alias, left))), None)
            what = f"{path}: no column is recognised as the {role}"
            remedy = "Name the columns so in the first line"
            raise DataError(problem(what, list(names), allowed=", ".join(aliases), near=near, remedy=remedy))
    return found


def ids_of(path: Path, name: str, column: pl.Series) -> pl.Series:
    """A column of ids, integers or text.

    Raises:
        DataError: of another type, or an id is missing.
    """
    import polars as pl  # noqa: PLC0415

    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if not (column.dtype.is_integer() or column.dtype == pl.String):
        raise DataError(
            problem(
                f"{path}: the ids in column {name!r} are of type {column.dtype}",
                allowed="integers or text",
                remedy="Write them as they stand in the interaction log; a float id is often an integer with gaps",
            )
        )
    if column.null_count():
        what = f"{path}: {column.null_count():,} rows have no id in column {name!r}"
        first = _first(column.is_null())
        raise DataError(
            problem(f"{what}; the first is row {first} (from 0)", remedy="Write it, or leave such rows out")
        )
    return column


def scores_of(path: Path, name: str, column: pl.Series) -> NDArray[np.float32]:
    """A column of scores, numbers or text that reads as numbers.

    Raises:
        DataError: one is no finite number.
    """
    import polars as pl  # noqa: PLC0415

    given = column
    if column.dtype == pl.String:
        column = column.str.strip_chars().cast(pl.Float64, strict=False)
        wrong = column.is_null() & given.is_not_null()
        if wrong.any():
            what = f"{path}: {wrong.sum():,} of {len(column):,} scores in column {name!r} are no numbers"
            remedy = "Write numbers with a point, such as 0.5, or leave such rows out"
            first = _first(wrong)
            raise DataError(problem(f"{what}; the first is in row {first} (from 0)", given[first], remedy=remedy))
    elif not column.dtype.is_numeric():
        what = f"{path}: the scores in column {name!r} must be numbers"
        raise DataError(problem(what, str(column.dtype), remedy="Write one number a row"))
    return finite(path, column.cast(pl.Float64).to_numpy())


def finite(path: Path, values: NDArray[Any]) -> NDArray[np.float32]:
    """(n,) scores that are finite numbers.

    Raises:
        DataError: one is not.
    """
    if values.dtype.kind not in "iuf":
        remedy = "Write them as floats: scores.astype('float32')"
        raise DataError(problem(f"{path}: scores must be numbers, not {values.dtype}", values[0], remedy=remedy))
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        what = f"{path}: {len(wrong):,} of {len(values):,} scores are not finite"
        remedy = "Leave such rows out: an item that is not listed is below all that are"
        said = f"{what}; the first is in row {wrong[0]} (from 0)"
        raise DataError(problem(said, float(values[wrong[0]]), remedy=remedy))
    return values.astype(np.float32)


def ranks_of(path: Path, name: str, column: pl.Series, user: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranks from 0, after checking that each user's are 0, 1, 2, ... or 1, 2, 3, ...

    Raises:
        DataError: one is missing or no integer, they begin elsewhere, or a list skips or repeats one.
    """
    import polars as pl  # noqa: PLC0415

    way_out = f"or drop the column {name!r}: then the scores decide, or the order of the rows"
    if not column.dtype.is_integer() or column.null_count():
        integers = column.cast(pl.String).cast(pl.Int64, strict=False)  # "1.0" is none
        first = _first(integers.is_null())
        said = (
            f"{path}: the ranks in column {name!r} must be integers; the first that is none is in row {first} (from 0)"
        )
        found = "nothing" if column[first] is None else column[first]
        raise DataError(problem(said, found, remedy=f"Write 0, 1, 2, ... in each user's list, {way_out}"))
    rank = column.to_numpy().astype(np.int64)
    first = int(rank.min())
    if first not in (0, 1):
        said = f"{path}: ranks count from 0 or from 1; the least in column {name!r}, in row {rank.argmin()} (from 0)"
        raise DataError(problem(said, first, remedy=f"Take {first} from each, {way_out}"))
    order = np.lexsort((rank, user))
    line, ranked = user[order], rank[order]
    new = np.ones(len(line), np.bool_)
    new[1:] = line[1:] != line[:-1]
    expected = np.where(new, first, np.concatenate([[0], ranked[:-1] + 1]))
    wrong = np.flatnonzero(ranked != expected)
    if len(wrong):
        at = int(wrong[0])
        if new[at]:
            what = f"begins at rank {ranked[at]}, others at {first}"
        else:
            verb = "repeats" if ranked[at] < expected[at] else "skips"
            what = f"{verb} a rank: {ranked[at]} follows {ranked[at - 1]}"
        remedy = f"Number each user's list {first}, {first + 1}, {first + 2}, ..., {way_out}"
        raise DataError(problem(f"{path}: the list in which row {order[at]} (from 0) stands {what}", remedy=remedy))
    return rank - first


def _first(wrong: pl.Series) -> int:
    """The row of the first true one."""
    return int(np.flatnonzero(wrong.to_numpy())[0])
