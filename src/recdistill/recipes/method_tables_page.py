"""The figures of `recdistill reproduce methods`, and their page.

Letters: S seeds, m users with a target.
"""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from recdistill.evaluation.compare import holm
from recdistill.recipes.standings import TEACHER, rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.recipes.standings import Row

__all__ = ["METRICS", "Found", "markdown", "pack", "summary", "unpack"]

METRICS = ("recall@10", "ndcg@10")
_MAIN = "ndcg@10"


class Found(TypedDict):
    """The finished cells of a table."""

    title: str
    rows: dict[str, dict[int, dict[str, Any]]]
    """Row -> seed -> cell."""


def pack(values: NDArray[np.float64]) -> str:
    """(m,) values in [0, 1] as text: float16, deflated, base64."""
    return base64.b64encode(zlib.compress(values.astype("<f2").tobytes(), 9)).decode()


def unpack(text: str) -> NDArray[np.float64]:
    """What `pack` packed, to three digits."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f2").astype(np.float64)


def summary(found: dict[str, Found]) -> dict[str, Any]:
    """Means, intervals, tests and costs of every table; what is not there is left out of it."""
    return {
        "command": "recdistill reproduce methods",
        "where": _where(found),
        "tables": {
            name: {"title": of["title"], "rows": {row: _row(of, row) for row in of["rows"]}, "tests": _tests(of)}
            for name, of in found.items()
        },
    }


def _where(found: dict[str, Found]) -> dict[str, int]:
    """Machine -> how many cells ran there; early cells kept their device, or nothing."""
    cells = [cell for of in found.values() for done in of["rows"].values() for cell in done.values()]
    return dict(sorted(Counter(map(_machine, cells)).items()))


def _machine(cell: dict[str, Any]) -> str:
    here = cell.get("environment")
    if here is None:
        return f"{cell['device']}, machine not kept" if "device" in cell else "device and machine not kept"
    return f"{cell['device']}, {here['cpu']}, {here['cpus']} processors, torch {here['torch']}"


def _row(of: Found, name: str) -> dict[str, Any]:
    done = of["rows"][name]
    if not done:
        return {"seeds": []}
    return {
        "seeds": sorted(done),
        "means": {
            protocol: {
                metric: float(np.mean([each["test"][protocol][metric] for each in done.values()])) for metric in METRICS
            }
            for protocol in next(iter(done.values()))["test"]
        },
        "seconds": float(np.mean([each["seconds"] for each in done.values()])),
        "epochs": float(np.mean([each["epochs"] for each in done.values()])),
        "parameters": next(iter(done.values()))["parameters"],
        "settings": next(iter(done.values()))["settings"],
    }


def _tests(of: Found) -> dict[str, dict[str, Any]]:
    """Protocol -> row -> interval, per cent of the teacher, and the test against the plain student.

    Every row is compared over the seeds that it, the teacher and the plain student have.
    """
    rows = {name: done for name, done in of["rows"].items() if done}
    both = set(rows.get(TEACHER, {})) & set(rows.get("plain", {}))
    out: dict[str, dict[str, Any]] = {}
    for protocol in next(iter(rows["plain"].values()))["test"] if both else ():
        out[protocol] = {}
        for name, done in rows.items():
            shared = sorted(both & set(done))
            if shared:
                beside = {each: rows[each] for each in (TEACHER, "plain", name)}
                values = {each: _values(of_row, shared, protocol) for each, of_row in beside.items()}
                against = {} if name in (TEACHER, "plain") else {name: "plain"}
                out[protocol][name] = {"seeds": shared, **_figures(rows_of(values, against, best="")[name])}
        tested = [name for name, each in out[protocol].items() if each["p"] is not None]
        for name, p in zip(tested, holm([out[protocol][name]["p"] for name in tested]).tolist(), strict=True):
            out[protocol][name]["p"] = p
    return out


def _values(done: dict[int, dict[str, Any]], seeds: list[int], protocol: str) -> NDArray[np.float64]:
    """(S, m)."""
    return np.stack([unpack(done[seed]["users"][protocol][_MAIN]) for seed in seeds])


def _figures(row: Row) -> dict[str, Any]:
    return {
        "users": row.mean.n,
        "interval": [row.mean.low, row.mean.high],
        "kept": None if row.kept is None else [row.kept.mean, row.kept.low, row.kept.high],
        "difference": None if row.baseline is None else row.baseline.difference.mean,
        "p": None if row.baseline is None else row.baseline.p,
    }


def markdown(found: dict[str, Any]) -> str:
    """The tables as a page."""
    lines = [
        "# Methods on real data",
        "",
        "A teacher of 200 dims by matrix factorisation, students of 20 and 40. Every method, the plain student among "
        "them, had eight trials at 1/10, judged on validation data with seed 1, on CiteULike and again on Last.fm; the "
        "winner is used for every seed and for 1/5, CiteULike's for Foursquare and Last.fm's for Gowalla, which have "
        "the plain student and the best four methods alone. The teacher of Last.fm had eight trials too, whose winner "
        "is also Gowalla's; that of CiteULike and Foursquare is as DE-RRD's authors train it. The row `hetcomp` is not "
        "HetComp as published: one teacher, an MF at its last checkpoint, is neither heterogeneous nor a trajectory, "
        "and nothing goes from easy to hard. Intervals: 95 % bootstrap over users and seeds. Tests are of users, seeds "
        "averaged, against the plain student, by sign flips, corrected for the rows of a table (Holm). Last.fm has no "
        "validation part: a tenth of its training interactions, drawn with seed 0, is taken for it. Times were taken "
        f"while other work ran{_ran(found['where'])}. What is not finished is missing. This page and `methods.json` "
        f"are printed by `{found['command']}`.",
        "",
    ]
    for table in found["tables"].values():
        lines += _page(table)
    return "\n".join(lines)


def _ran(where: dict[str, int]) -> str:
    return "; on: " + "; ".join(f"{each} ({n} cells)" for each, n in where.items()) if where else ""


def _page(table: dict[str, Any]) -> list[str]:
    lines, rows = [f"## {table['title']}", ""], table["rows"]
    done = {name: row for name, row in rows.items() if row["seeds"]}
    if not done:
        return [*lines, "Not run yet: missing.", ""]
    plain = rows.get("plain", {}).get("seconds")
    for protocol in next(iter(done.values()))["means"]:
        tests = table["tests"].get(protocol, {})
        users = next((f", {each['users']:,} users" for each in tests.values()), "")
        lines += [
            f"NDCG@10 and Recall@10, {protocol}{users}:",
            "",
            "| row | seeds | NDCG@10 (95 %) | Recall@10 | of the teacher's NDCG@10 (95 %) | over plain | p | training "
            "| x plain |",
            "|" + "---|" * 9,
        ]
        for name, row in rows.items():
            lines.append(_line(name, row, protocol, tests.get(name, {}), plain))
        lines.append("")
    return lines


def _line(name: str, row: dict[str, Any], protocol: str, test: dict[str, Any], plain: float | None) -> str:
    if not row["seeds"]:
        return f"| {name} | missing |" + " |" * 7
    means, interval, kept = row["means"][protocol], test.get("interval"), test.get("kept")
    cells = [
        name,
        str(len(row["seeds"])),
        f"{means['ndcg@10']:.4f}" + (f" ({interval[0]:.4f}-{interval[1]:.4f})" if interval else ""),
        f"{means['recall@10']:.4f}",
        f"{kept[0]:.1f} % ({kept[1]:.1f}-{kept[2]:.1f})" if kept else "",
        f"{test['difference']:+.4f}" if test.get("difference") is not None else "",
        f"{test['p']:.4f}" if test.get("p") is not None else "",
        f"{row['seconds']:,.0f} s",
        f"{row['seconds'] / plain:.1f}" if plain and name != TEACHER else "",
    ]
    return "| " + " | ".join(cells) + " |"
