"""Times of a log, in any unit -> Unix seconds, UTC.

Letters: n rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from recdistill.data.formats.roles import naming
from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

__all__ = ["Times", "Unit", "recognised", "seconds"]

Unit = Literal["s", "ms", "us", "ns"]

_PER_SECOND: dict[Unit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WORDS: dict[Unit, str] = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_YEAR_2000, _YEAR_5138 = 946_684_800, 10**11  # in seconds; milliseconds pass the second in 1973
_ISO = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%+",  # with an offset
)


@dataclass(frozen=True)
class Times:
    """What was made of a column of times."""

    values: NDArray[np.int64]
    """(n,) in `unit` since 1970, UTC; 0 where bad."""
    unit: Unit
    bad: NDArray[np.bool_]
    """(n,)"""
    why: str
    """What is wrong with the bad ones."""
    note: str
    """What was inferred."""


def recognised(column: pl.Series, unit: Unit | None, where: str, ignore: NDArray[np.bool_]) -> Times:
    """Numbers, numbers as text, ISO 8601 text, dates and datetimes.

    Args:
        column: (n,) of any type.
        unit: of numbers; told from their size when None.
        where: how errors call the column.
        ignore: (n,) rows that are bad already and do not vote on the unit.

    Raises:
        DataError: a type that is no time, or numbers that seem to mix units.
    """
    import polars as pl  # noqa: PLC0415 - polars only where a log is read

    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return _datetimes(column)
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        numbers = text.cast(pl.Int64, strict=False)
        if numbers.null_count() > len(text) // 2:  # fractions, or "nan"
            numbers = text.cast(pl.Float64, strict=False)
        if numbers.null_count() > len(text) // 2:
            return _iso(text, where)
        if numbers.null_count() and numbers.dtype == pl.Int64:
            numbers = numbers.cast(pl.Float64).fill_null(text.cast(pl.Float64, strict=False))
        return _numbers(numbers, unit, where, ignore)
    if column.dtype.is_numeric():
        return _numbers(column, unit, where, ignore)
    remedy = f"Map another column: {naming({'timestamp': None})}"
    raise DataError(problem(f"{where} holds no times", str(column.dtype), remedy=remedy))


def seconds(values: NDArray[np.int64], unit: Unit) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """(n,) times -> (n,) whole seconds, rounded down, and the order (n,) to put the rows in, or None.

    Rounding loses the order of two events of one second; where the log's own order does not say the same, the rows are
    put in order of time.
    """
    if unit == "s":
        return values, None
    whole = values // _PER_SECOND[unit]
    if (values[1:] >= values[:-1]).all() or (whole * _PER_SECOND[unit] == values).all():
        return whole, None
    order = np.argsort(values, kind="stable")
    return whole[order], order


def _numbers(column: pl.Series, unit: Unit | None, where: str, ignore: NDArray[np.bool_]) -> Times:
    import polars as pl  # noqa: PLC0415

    fractions = column.dtype.is_float()
    raw = column.cast(pl.Float64).fill_null(float("nan")).to_numpy() if fractions else None
    if raw is not None:
        bad = ~np.isfinite(raw) | (np.abs(raw) >= 2.0**63)
        values = np.where(bad, 0, raw)
    else:
        bad = column.is_null().to_numpy()
        values = column.fill_null(0).cast(pl.Int64, strict=False).fill_null(-1).to_numpy()
    bad = bad | (values < 0)
    good = values[~(bad | ignore)]
    unit, note = (unit, f"times in {_WORDS[unit]}, as said") if unit else _unit_of(good, where)
    if raw is not None and (good != np.floor(good)).any() and unit == "s":
        unit, values, note = "us", np.round(np.where(bad, 0, values) * 1e6), f"{note} with fractions"
    return Times(np.where(bad, 0, values).astype(np.int64), unit, bad, "is not a time, 0 or later", note)


def _unit_of(values: NDArray[np.int64] | NDArray[np.float64], where: str) -> tuple[Unit, str]:
    high = float(values.max(initial=0))
    units: tuple[Unit, ...] = ("s", "ms", "us")
    fitting: list[Unit] = [u for u in units if high < _YEAR_5138 * _PER_SECOND[u]]
    unit: Unit = fitting[0] if fitting else "ns"
    positive = values[values > 0]
    low = float(positive.min(initial=high))
    finer = _PER_SECOND[unit] / 1000  # of the next coarser unit
    if unit != "s" and _YEAR_2000 * finer <= low < _YEAR_5138 / 10 * finer:
        remedy = "Bring them to one unit, or say which it is: time_unit='ms'"
        what = f"{where} seems to mix times in different units: from {low:.0f} to {high:.0f}"
        raise DataError(problem(what, allowed="s, ms, us, ns, by size", remedy=remedy))
    if high < _YEAR_2000 / 10 and unit == "s":
        return unit, "numbers too small for times; taken as an order, in seconds"
    return unit, f"times in {_WORDS[unit]} since 1970"


def _datetimes(column: pl.Series) -> Times:
    import polars as pl  # noqa: PLC0415

    bad = column.is_null().to_numpy()
    unit: Unit = "s"
    zone = None
    if isinstance(column.dtype, pl.Datetime):
        unit, zone = column.dtype.time_unit, column.dtype.time_zone
    epoch = column.dt.epoch(unit).cast(pl.Int64).fill_null(0).to_numpy()
    note = "dates" if column.dtype == pl.Date else "datetimes" + (f" in {zone}" if zone else ", taken as UTC")
    return Times(epoch, unit, bad, "is not a time", note)


def _iso(text: pl.Series, where: str) -> Times:
    import polars as pl  # noqa: PLC0415

    left = text
    found = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(text))
    for form in _ISO:
        parsed = left.str.to_datetime(form, time_unit="us", time_zone="UTC" if form == "%+" else None, strict=False)
        found = found.fill_null(parsed.dt.epoch("us"))
        if found.null_count() == text.null_count():
            break
    if found.null_count() == len(text) and len(text) > text.null_count():
        value = text.drop_nulls()[0]
        remedy = "Write times as ISO 8601 (2024-05-31 or 2024-05-31T12:00:00Z) or as Unix seconds"
        raise DataError(problem(f"{where} is neither a number nor an ISO time", value, remedy=remedy))
    bad = found.is_null().to_numpy()
    return Times(
        found.fill_null(0).to_numpy(), "us", bad, "is not an ISO time", "ISO times, taken as UTC unless they say more"
    )
