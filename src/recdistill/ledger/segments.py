"""Parquet files of events: rows of numbers, no ids, in order of their numbers.

Letters: n events.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recdistill.bundle.folder import sync
from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray

__all__ = ["Rows", "read", "read_pairs", "write"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Events inside: rows of users and items, by ascending number."""

    number: NDArray[np.int64]
    """(n,) place in the whole stream; forgotten events leave gaps."""
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    timestamp: NDArray[np.int64] | None
    """(n,) Unix seconds."""
    weight: NDArray[np.float32] | None
    key: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.number)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Rows:
        """The events at `index`, ascending."""
        return Rows(
            self.number[index],
            self.user[index],
            self.item[index],
            None if self.timestamp is None else self.timestamp[index],
            None if self.weight is None else self.weight[index],
            self.key[index],
        )

    def within(self, first: int, last: int) -> Rows:
        """The events numbered `first` up to, not including, `last`."""
        low, high = np.searchsorted(self.number, [first, last]).tolist()
        return self.take(slice(low, high))

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """One after the other; a column that any part lacks is lacking."""
        times = [part.timestamp for part in parts if part.timestamp is not None]
        weights = [part.weight for part in parts if part.weight is not None]
        return cls(
            np.concatenate([np.zeros(0, np.int64), *(part.number for part in parts)]),
            np.concatenate([np.zeros(0, np.int32), *(part.user for part in parts)]),
            np.concatenate([np.zeros(0, np.int32), *(part.item for part in parts)]),
            np.concatenate(times) if times and len(times) == len(parts) else None,
            np.concatenate(weights) if weights and len(weights) == len(parts) else None,
            np.concatenate([np.zeros(0, np.int64), *(part.key for part in parts)]),
        )


def write(folder: Path, rows: Rows) -> tuple[str, int]:
    """Write a segment, which appears whole or not at all; its name ends with the hash of its bytes.

    Returns:
        The file's name and size.
    """
    import polars as pl  # noqa: PLC0415 - polars only where events are read or written

    columns: dict[str, NDArray[np.generic]] = {
        "number": rows.number,
        "user": rows.user,
        "item": rows.item,
        "key": rows.key,
    }
    if rows.timestamp is not None:
        columns["timestamp"] = rows.timestamp
    if rows.weight is not None:
        columns["weight"] = rows.weight
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".segment.{os.getpid()}"
    pl.DataFrame(columns).write_parquet(beside, compression="zstd")
    with beside.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    first = int(rows.number[0]) if len(rows) else 0
    name = f"{first:012d}-{digest[:16]}.parquet"
    beside.replace(folder / name)
    sync(folder)
    return name, size


def read(path: Path) -> Rows:
    """The events of a segment.

    Raises:
        DataError: it is gone, or damaged.
    """
    frame = _frame(path, None)

    def column(name: str) -> NDArray[np.generic]:
        return frame[name].to_numpy()

    return Rows(
        column("number").astype(np.int64, copy=False),
        column("user").astype(np.int32, copy=False),
        column("item").astype(np.int32, copy=False),
        column("timestamp").astype(np.int64, copy=False) if "timestamp" in frame.columns else None,
        column("weight").astype(np.float32, copy=False) if "weight" in frame.columns else None,
        column("key").astype(np.int64, copy=False),
    )


def read_pairs(path: Path, last: int | None = None) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(n,) rows of users and (n,) of items, nothing else: of the events numbered below `last`, or of all.

    Raises:
        DataError: as in `read`.
    """
    frame = _frame(path, ["user", "item"] if last is None else ["user", "item", "number"])
    n = len(frame) if last is None else int(frame["number"].search_sorted(last))
    user, item = (frame[name][:n].to_numpy().astype(np.int32, copy=False) for name in ("user", "item"))
    return user, item


def _frame(path: Path, columns: list[str] | None) -> pl.DataFrame:
    import polars as pl  # noqa: PLC0415 - polars only where events are read or written

    try:
        return pl.read_parquet(path, columns=columns)
    except (OSError, pl.exceptions.PolarsError) as error:
        why = "is gone" if isinstance(error, FileNotFoundError) else f"cannot be read ({str(error).splitlines()[0]})"
        what = f"The segment of events {path} {why}"
        raise DataError(problem(what, remedy="Restore the stream's folder from a copy")) from None
