"""Ids from the command line, lists into files."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from recdistill.errors import UsageError, nearest, problem

if TYPE_CHECKING:
    from typing import TextIO

    from recdistill.serve.recommendations import Recommendations

__all__ = ["ids", "write"]

_FORMATS = (".parquet", ".csv", ".jsonl")


def ids(text: str, option: str) -> list[str]:
    """External ids: "u7,u9", or "@file" with one a line.

    Raises:
        UsageError: no ids, or no such file.
    """
    if text.startswith("@"):
        file = Path(text[1:])
        if not file.is_file():
            raise UsageError(problem(f"{option} names a file that is not there", text[1:], remedy="Give ids, or @file"))
        found = file.read_text(encoding="utf-8").splitlines()
    else:
        found = text.split(",")
    found = [one.strip() for one in found if one.strip()]
    if not found:
        raise UsageError(problem(f"{option} holds no ids", text, remedy="For example u7,u9"))
    return found


def write(found: Recommendations, out: Path) -> None:
    """Lists into a Parquet, CSV or JSONL file, which appears whole or not at all.

    Raises:
        UsageError: another kind of file.
    """
    if out.suffix not in _FORMATS:
        near = nearest(out.suffix, _FORMATS)
        raise UsageError(problem("Unknown kind of file for lists", out.name, near=near, allowed=_FORMATS))
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    if out.suffix == ".parquet":
        found.to_polars().write_parquet(beside)
    else:
        with beside.open("w", encoding="utf-8", newline="") as file:
            (_csv if out.suffix == ".csv" else _jsonl)(found, file)
    beside.replace(out)


def _csv(found: Recommendations, file: TextIO) -> None:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["user_id", "item_id", "rank", "score", "source"])
    for user, items in found:
        source = found.source_of(user)
        for rank, item in enumerate(items, 1):
            rows.writerow([user, item.id, rank, "" if item.score is None else f"{item.score:.7g}", source])


def _jsonl(found: Recommendations, file: TextIO) -> None:
    for user, items in found:
        listed = [{"id": item.id, "score": item.score} for item in items]
        line = {"user_id": user, "source": found.source_of(user), "items": listed}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
