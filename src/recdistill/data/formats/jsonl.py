"""One JSON object a line: the fast reading by polars, and a careful one that names the line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from recdistill.data.formats.frames import from_frame, opened_lists
from recdistill.data.formats.roles import ROLES, recognised
from recdistill.data.formats.table import Fault, Table
from recdistill.data.formats.text import content, first_lines, lines_of
from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from recdistill.data.formats.roles import Role

__all__ = ["read_jsonl"]

_SAMPLE = 100
_IDS: tuple[Role, ...] = ("user", "item")
_ODD = r"^(true|false|[\[{].*)$|\x00"
"""What polars makes of an id that is none where others are text, and of half a character."""
_HALF = re.compile("[\ud800-\udfff]")  # half of a character is no text


def read_jsonl(
    path: Path,
    columns: Mapping[str, str] | None,
    *,
    called: str | None = None,
    numbers: NDArray[np.int64] | None = None,
) -> Table:
    """The objects of a file; ids keep their JSON type, a mixture of numbers and text becomes text.

    Args:
        path: the file.
        columns: role -> column, as the user said.
        called: how errors call the file; by its name when None.
        numbers: how errors count the lines of a file without empty ones; from 1 when None.
    """
    import polars as pl  # noqa: PLC0415 - polars only where a log is read

    name = called or path.name
    sample = [line for line in first_lines(path) if line.strip()][:_SAMPLE]
    if re.match(r"\s*\[\s*(\{|$)", sample[0]):
        remedy = "Write one object a line, without brackets and commas around them"
        raise DataError(problem(f"{name} is one JSON array", sample[0][:40], remedy=remedy))
    try:
        frame = pl.read_ndjson(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError):
        return _careful(path, columns, sample, name, numbers)
    names = recognised(frame.columns, columns, name)
    used = frame.select(list(names.values()))
    ids = [one.explode() if isinstance(one.dtype, pl.List) else one for one in (used[names[role]] for role in _IDS)]
    odd = any(one.dtype == pl.String and one.str.contains(_ODD).any() for one in ids)
    # polars turns 12 into "12" where a column mixes the two, and a fault into null: the careful reading tells
    if odd or frame.height == 0 or any(column.null_count() for column in used):
        return _careful(path, columns, sample, name, numbers)
    table = from_frame(frame, columns, name)
    if numbers is None:
        return replace(table, unit="line", lines=partial(_line_of, path, table))
    rows = table.lines if isinstance(table.lines, np.ndarray) else np.arange(len(numbers))
    return replace(table, unit="line", lines=numbers[rows])


def _careful(
    path: Path, columns: Mapping[str, str] | None, sample: list[str], name: str, numbers: NDArray[np.int64] | None
) -> Table:
    import polars as pl  # noqa: PLC0415

    first: dict[str, None] = {}
    objects = [found for line in sample if (found := _object(line)) is not None]
    if not objects:
        place = first_lines(path).index(sample[0])
        line = place + 1 if numbers is None else numbers[place]
        what = f"{name}, line {line}: {sample[0].strip()[:80]!r} is no JSON object"
        raise DataError(problem(what, remedy='Write one object a line: {"user": "u1", "item": "i1"}'))
    for found in objects:
        first.update(dict.fromkeys(found))
    names = recognised(list(first), columns, name)
    listed = all(isinstance(found.get(names["item"]), list) for found in objects)
    values: dict[Role, list[Any]] = {role: [] for role in names}
    lines: list[int] = []
    faults: list[Fault] = []
    for place, line in enumerate(content(path).split("\n")):
        if not line.strip():
            continue
        number = place + 1 if numbers is None else int(numbers[place])
        found = _object(line)
        odd = ("", line.strip(), "is no JSON object") if found is None else _odd(found, names, listed=listed)
        if found is None or odd is not None:
            faults.append(Fault(-1, number, *(odd or ())))
            continue
        lines.append(number)
        for role, column in names.items():
            values[role].append(found.get(column))
    notes = (f"Columns: {', '.join(f'{column!r} is the {role}' for role, column in names.items())}",)
    frame = pl.DataFrame([_column(role, values[role]) for role in ROLES if role in names])
    table = Table(frame, names, name, unit="line", lines=np.array(lines, np.int64), faults=tuple(faults), notes=notes)
    return opened_lists(table) if isinstance(frame.schema["item"], pl.List) else table


def _line_of(path: Path, table: Table, row: int) -> int:
    """The line of the file that a row comes from; the table counts objects, and lines of blanks hold none."""
    return next(islice((n for n, line in enumerate(lines_of(path, "\n"), 1) if line.strip()), table.line(row), None))


def _odd(found: dict[str, Any], names: Mapping[Role, str], *, listed: bool) -> tuple[str, str, str] | None:
    """Column, value and fault of an id that is none; None where both are. `listed`: items may come as lists."""
    for role in _IDS:
        value = found.get(names[role])
        each = cast("list[Any]", value) if listed and role == "item" and isinstance(value, list) else [value]
        if any(isinstance(one, bool | list | dict) or (isinstance(one, str) and _HALF.search(one)) for one in each):
            return names[role], json.dumps(value), "is no id: give a whole number or text"
    return None


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _column(role: Role, items: list[Any]) -> Any:  # noqa: ANN401 - a polars series
    """Values of one type; anything else as text, so that the check names it."""
    import polars as pl  # noqa: PLC0415

    if role == "item" and any(isinstance(v, list) for v in items):
        lists = [v if isinstance(v, list) else [v] for v in items]
        flat = _column(role, [one for each in lists for one in each])
        rest = iter(flat.to_list())
        return pl.Series(role, [[next(rest) for _ in each] for each in lists], pl.List(flat.dtype))
    kinds = {type(v) for v in items if v is not None}
    if kinds and kinds <= {int} and all(v is None or abs(v) < 2**63 for v in items):
        return pl.Series(role, items, pl.Int64)
    if role in ("weight", "timestamp") and kinds <= {int, float}:
        return pl.Series(role, items, pl.Float64)
    text = [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in items]
    return pl.Series(role, text, pl.String)
