"""Events as they arrive: what `read` makes of a file, and the id that a source may give each event.

Letters: n events, U users and I items of the batch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from recdistill.data.formats.jsonl import read_jsonl
from recdistill.data.formats.roles import by_column, event_column
from recdistill.data.formats.table import assembled
from recdistill.data.formats.text import first_lines, kind_of
from recdistill.data.sources import read
from recdistill.errors import DataError, problem
from recdistill.ids import text_keys
from recdistill.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import polars as pl
    from numpy.typing import NDArray

    from recdistill.data.formats.table import OnBadRows
    from recdistill.data.interactions import Interactions
    from recdistill.ids import IdTable

__all__ = ["Events", "gathered"]

_NO_TIME = np.int64(np.iinfo(np.int64).min)
_NO_ID = "\0"


@dataclass(frozen=True, eq=False)
class Events:
    """A batch, ids outside still, in the order of its source."""

    users: list[str]
    """U distinct ids."""
    items: list[str]
    """I distinct ids."""
    user: NDArray[np.int32]
    """(n,) places in `users`."""
    item: NDArray[np.int32]
    """(n,) places in `items`."""
    timestamp: NDArray[np.int64] | None
    """(n,) Unix seconds."""
    weight: NDArray[np.float32] | None
    """(n,)"""
    key: NDArray[np.int64]
    """(n,) what an event is known by; equal keys are one event."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def of(cls, log: Interactions, ids: NDArray[Any] | None = None, *, repeats: bool = True) -> Events:
        """The events of a log.

        Args:
            log: as `read` gives it.
            ids: (n,) the event ids, int64 or text; None in place of one, or of all, names events by what they say and
                their place among equals.
            repeats: whether equal events without ids are several events; off for what may be delivered twice.

        Raises:
            DataError: `ids` has another length.
        """
        users, items = _texts(log.users), _texts(log.items)
        if ids is not None and len(ids) != len(log):
            what = f"There are {len(ids):,} event ids for {len(log):,} events"
            raise DataError(problem(what, remedy="Give every event its id, or none"))
        given: list[Any] = [] if ids is None else ids.tolist()
        named = np.array([one is not None for one in given] or np.zeros(len(log)), np.bool_)
        said = keys.combined(
            text_keys(users)[log.user],
            text_keys(items)[log.item],
            np.full(len(log), _NO_TIME) if log.timestamp is None else log.timestamp,
            np.zeros(len(log), np.int64) if log.weight is None else log.weight.view(np.int32).astype(np.int64),
        )[~named]
        key = np.empty(len(log), np.int64)
        key[named] = keys.combined(text_keys([str(one) for one in given if one is not None]))
        key[~named] = keys.combined(said, keys.ordinals(said) if repeats else np.zeros(len(said), np.int64))
        return cls(users, items, log.user, log.item, log.timestamp, log.weight, key, log.notes)


@by_column()
def gathered(
    source: object,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_rows: OnBadRows = "error",
    repeats: bool = True,
    echo: Callable[[str], object] | None = None,
    called: str | None = None,
    numbers: NDArray[np.int64] | None = None,
) -> Events:
    """Read a batch from anything `data.sources.read` takes; a column `event_id` names the events (`roles.EVENT`).

    Of JSON lines each decides for itself: one without an id is known by what it says.

    Args:
        source: a path, a frame or a matrix.
        columns: role -> column; beside the roles of `read`, `event`.
        on_bad_rows: as in `read`.
        repeats: whether equal events without ids are several events.
        echo: told what was inferred.
        called: of JSON lines, how errors call them.
        numbers: of JSON lines without empty ones, their numbers; `called` is said too.

    Raises:
        BadRows, DataError, UsageError: as in `read`; some rows of a table have an id and others none, or two columns
            could name them.
    """
    lines = _lines(source)
    names = _columns(source) if lines is None else list(lines.columns)
    event, said = event_column(names, columns or {}, called or _called(source))

    def log_of(source: object, columns: Mapping[str, str], echo: Callable[[str], object] | None) -> Interactions:
        if called is None or not isinstance(source, Path):
            return read(source, columns=columns, on_bad_rows=on_bad_rows, echo=echo)
        return assembled(read_jsonl(source, columns, called=called, numbers=numbers), on_bad_rows=on_bad_rows)

    log = log_of(source, said, echo)
    if event is None:
        return Events.of(log, repeats=repeats)
    # the event's id is read as if it were the item's: every format, and every check of ids, serves it too
    ids_of = source if lines is None else _filled(lines, event)
    named = log_of(ids_of, {**said, "item": event}, None)
    if len(named) != len(log):
        what = f"{len(log):,} events can be read, and {len(named):,} have an id in the column {event!r}"
        raise DataError(problem(what, remedy="Give every event its id, and take out the rows that cannot be read"))
    ids = [None if one == _NO_ID else one for one in named.items.external(named.item.astype(np.int64)).tolist()]
    return Events.of(log, np.array(ids, object), repeats=repeats)


def _called(source: object) -> str:
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def _columns(source: object) -> list[str]:
    if not isinstance(source, str | Path):
        return list(map(str, cast("Any", getattr(source, "columns", ()))))
    path = Path(source).expanduser()
    if not path.is_file() or path.stat().st_size == 0:
        return []
    kind = kind_of(path)
    if kind in ("parquet", "arrow"):
        import polars as pl  # noqa: PLC0415 - polars only where events are read

        return list(pl.read_parquet_schema(path) if kind == "parquet" else pl.read_ipc_schema(path))
    head = next((line for line in first_lines(path) if line.strip()), "")
    if kind == "jsonl":
        return _keys(head)
    separator = next((one for one in ("\t", ";", "|", ",") if one in head), None)
    return [name.strip().strip('"') for name in head.split(separator)] if separator else []


def _filled(lines: pl.DataFrame, event: str) -> pl.DataFrame:
    """With something in place of the ids that are not there, or empty."""
    if event not in lines.columns:
        return lines
    import polars as pl  # noqa: PLC0415

    ids = lines[event].cast(pl.String, strict=False)
    none = ids.is_null() | (ids.str.strip_chars() == "")
    return lines.with_columns(pl.when(~none).then(ids).otherwise(pl.lit(_NO_ID)).alias(event)) if none.any() else lines


def _lines(source: object) -> pl.DataFrame | None:
    """JSON lines as a table of all their names; None of anything else, and of broken ones, which `read` tells."""
    path = Path(source).expanduser() if isinstance(source, str | Path) else None
    if path is None or not path.is_file() or path.stat().st_size == 0 or kind_of(path) != "jsonl":
        return None
    import polars as pl  # noqa: PLC0415

    try:
        return pl.read_ndjson(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError):
        return None


def _keys(line: str) -> list[str]:
    try:
        found = json.loads(line)
    except ValueError:
        return []
    return list(cast("dict[str, Any]", found)) if isinstance(found, dict) else []


def _texts(table: IdTable) -> list[str]:
    return [str(one) for one in table.external(np.arange(len(table))).tolist()]
