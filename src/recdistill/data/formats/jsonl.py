"""One JSON object a line: the fast reading by polars, and a careful one that names the line."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from recdistill.data.formats.frames import from_frame
from recdistill.data.formats.roles import ROLES, recognised
from recdistill.data.formats.table import Fault, Table
from recdistill.data.formats.text import content, first_lines
from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from recdistill.data.formats.roles import Role

__all__ = ["read_jsonl"]

_SAMPLE = 100


def read_jsonl(path: Path, columns: Mapping[str, str] | None) -> Table:
    """The objects of a file; ids keep their JSON type, a mixture of numbers and text becomes text."""
    import polars as pl  # noqa: PLC0415 - polars only where a log is read

    sample = [line for line in first_lines(path) if line.strip()][:_SAMPLE]
    if re.match(r"\s*\[\s*(\{|$)", sample[0]):
        remedy = "Write one object a line, without brackets and commas around them"
        raise DataError(problem(f"{path.name} is one JSON array", sample[0][:40], remedy=remedy))
    try:
        frame = pl.read_ndjson(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError):
        return _careful(path, columns, sample)
    names = recognised(frame.columns, columns, path.name)
    used = frame.select(list(names.values()))
    # polars turns 12 into "12" where a column mixes the two, and a fault into null: the careful reading tells
    if frame.height == 0 or any(used[name].null_count() for name in used.columns):
        return _careful(path, columns, sample)
    return from_frame(frame, columns, path.name)


def _careful(path: Path, columns: Mapping[str, str] | None, sample: list[str]) -> Table:
    import polars as pl  # noqa: PLC0415

    first: dict[str, None] = {}
    objects = [found for line in sample if (found := _object(line)) is not None]
    if not objects:
        number = first_lines(path).index(sample[0]) + 1
        what = f"{path.name}, line {number}: {sample[0].strip()[:80]!r} is no JSON object"
        raise DataError(problem(what, remedy='Write one object a line: {"user": "u1", "item": "i1"}'))
    for found in objects:
        first.update(dict.fromkeys(found))
    names = recognised(list(first), columns, path.name)
    values: dict[Role, list[Any]] = {role: [] for role in names}
    lines: list[int] = []
    faults: list[Fault] = []
    for number, line in enumerate(content(path).split("\n"), 1):
        if not line.strip():
            continue
        found = _object(line)
        if found is None:
            faults.append(Fault(-1, number, "", line.strip(), "is no JSON object"))
            continue
        lines.append(number)
        for role, name in names.items():
            values[role].append(found.get(name))
    frame = pl.DataFrame([_column(role, values[role]) for role in ROLES if role in names])
    notes = (f"Columns: {', '.join(f'{name!r} is the {role}' for role, name in names.items())}",)
    return Table(
        frame, names, path.name, unit="line", lines=np.array(lines, np.int64), faults=tuple(faults), notes=notes
    )


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _column(role: Role, items: list[Any]) -> Any:  # noqa: ANN401 - a polars series
    """Values of one type; anything else as text, so that the check names it."""
    import polars as pl  # noqa: PLC0415

    kinds = {type(v) for v in items if v is not None}
    if kinds and kinds <= {int} and all(v is None or abs(v) < 2**63 for v in items):
        return pl.Series(role, items, pl.Int64)
    if role in ("weight", "timestamp") and kinds <= {int, float}:
        return pl.Series(role, items, pl.Float64)
    text = [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in items]
    return pl.Series(role, text, pl.String)
