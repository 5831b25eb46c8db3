"""`read`: an interaction log from a file, a folder, a frame or a matrix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from recdistill.data.formats.frames import framed, from_csr, from_frame
from recdistill.data.formats.table import OnBadRows, Table, assembled
from recdistill.errors import DataError, UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recdistill.data.formats.times import Unit
    from recdistill.data.interactions import Interactions

__all__ = ["read"]


def read(
    source: object,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_rows: OnBadRows = "error",
    time_unit: Unit | None = None,
    echo: Callable[[str], object] | None = print,
) -> Interactions:
    """Read an interaction log."""
    if on_bad_rows not in ("error", "skip"):
        raise UsageError(problem("on_bad_rows must say what to do with them", on_bad_rows, allowed=["error", "skip"]))
    table = _table(source, columns)
    log = assembled(table, on_bad_rows=on_bad_rows, time_unit=time_unit)
    log = replace(log, notes=(f"Read {table.source}: {log.describe()}", *log.notes))
    if echo is not None:
        echo("\n  ".join(log.notes))
    return log


def _table(source: object, columns: Mapping[str, str] | None) -> Table:
    import polars as pl  # noqa: PLC0415

    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            path = path / "interactions.parquet"
        if not path.exists():
            raise DataError(problem(f"There is no file {str(path)!r}"))
        return from_frame(pl.read_parquet(path), columns, path.name)
    table = from_csr(source)
    if table is not None:
        return table
    frame = framed(source)
    if frame is None:
        raise DataError(problem("This cannot be read as an interaction log", type(source).__name__))
    return from_frame(frame, columns, "the frame")
