"""Lists of everybody, streamed into one Parquet file. The one file of this room that uses polars."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import polars as pl

    from recdistill.serve.recommendations import Recommendations

__all__ = ["COLUMNS", "write_lists"]

COLUMNS = ("user_id", "item_id", "rank", "score")


def write_lists(out: Path, empty: Recommendations, parts: Iterable[Recommendations]) -> int:
    """Write parts one after the other; each is made when the one before has been handed over.

    Args:
        out: the file; it appears, or is replaced, when all is written.
        empty: recommendations without rows, for the column types.
        parts: what is written.

    Returns:
        How many rows were written.
    """
    import polars as pl  # noqa: PLC0415 - the base install has none
    from polars.io.plugins import register_io_source  # noqa: PLC0415

    def types(part: Recommendations) -> dict[str, Any]:
        text = {True: pl.String, False: pl.Int64}
        return {
            "user_id": text[part.user_id.dtype == object],
            "item_id": text[part.item_id.dtype == object],
            "rank": pl.Int32,
            "score": pl.Float32,
        }

    schema = types(empty)
    rows = 0
    failed: list[Exception] = []

    def frames(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del with_columns, predicate, n_rows, batch_size  # a sink asks for everything
        nonlocal rows
        try:
            for part in parts:
                rows += part.n_rows
                columns = {name: getattr(part, name) for name in COLUMNS}
                yield pl.DataFrame(
                    {n: c.tolist() if c.dtype == object else c for n, c in columns.items()}, schema=schema
                )
        except Exception as error:
            failed.append(error)  # polars would report it as its own
            raise

    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{secrets.token_hex(8)}.partial")
    try:
        register_io_source(frames, schema=schema).sink_parquet(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(out)
    except pl.exceptions.PolarsError:
        if failed:
            raise failed[0] from None
        raise
    finally:
        partial.unlink(missing_ok=True)
    return rows
