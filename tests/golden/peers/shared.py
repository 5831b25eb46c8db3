"""What the makers share: the case, and how a result is written. numpy alone, so that it runs beside any peer."""

from __future__ import annotations

import json
import platform
from pathlib import Path

HERE = Path(__file__).parent


def case() -> dict:
    """The case as `make_case.py` wrote it."""
    return json.loads((HERE / "case.json").read_text())


def rows(table: list[list[int]], scores: list[list[int]] | None = None) -> list[tuple]:
    """(user, item, rank from 1, score) for each pair, in the order of the lists."""
    return [
        (u, i, place, len(items) - place if scores is None else scores[u][i])
        for u, items in enumerate(table)
        for place, i in enumerate(items, 1)
    ]


def write(peer: str, version: str, values: dict[str, float], **more: object) -> None:
    """Freeze what a peer said.

    Args:
        peer: its name among our conventions.
        version: its version or commit.
        values: "ndcg@3" -> what it printed, under our name of the metric.
        more: what else the tests need: the lists it ranked, functions it was called by.
    """
    content = {"peer": peer, "version": version, "python": platform.python_version(), **more}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
    figures = ",\n".join(f"  {json.dumps(name)}: {float(value)!r}" for name, value in values.items())
    text = ",\n".join([*lines, f' "values": {{\n{figures}\n }}'])
    (HERE / f"{peer}.json").write_text(f"{{\n{text}\n}}\n")
    print(peer, version, values)
