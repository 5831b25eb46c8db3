"""Parquet and Arrow files as frames; whatever is wrong with a file, it is the file that is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

__all__ = ["read_columnar"]


def read_columnar(path: Path, kind: str) -> pl.DataFrame:
    """A "parquet" or an "arrow" file.

    Raises:
        DataError: it cannot be read.
    """
    import polars as pl  # noqa: PLC0415 - polars only where a file is read

    try:
        return pl.read_parquet(path) if kind == "parquet" else pl.read_ipc(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"{path.name} is no {kind} file that can be read ({said})"
        raise DataError(problem(what, remedy="Write or fetch it again")) from None
