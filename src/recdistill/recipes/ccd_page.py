"""The page of `recdistill reproduce ccd`: tables, curves, and what is public of the paper's figures beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from recdistill.recipes.ccd_bars import NOISE, baselines, parts, shown
from recdistill.recipes.ccd_published import CCD_FLOOR, CCD_GAINS

__all__ = ["markdown"]

_NEEDED = (
    "fine-tune",
    "fine-tune: decay of touched rows",
    "fine-tune: within a margin",
    "spmf",
    "lwc-kd",
    "lwc-kd with piw",
    "replay alone",
)
"""Continual baselines without which a gain says that they are missing."""


def markdown(found: dict[str, Any]) -> str:
    """The tables as a page."""
    lines = [
        "# CCD, reproduced",
        "",
        f"{found['paper']}. {found['protocol'][:1].upper()}{found['protocol'][1:]}. LA: each block right after it was "
        "learned; RA: every block by the last model; H: their harmonic mean. Each is given with the base block and "
        "without it, because the paper does not say. ±: 95 % over users, of one trained model. "
        "New and old users: recall@20 of each on the block that was just learned, mean over blocks. "
        "Dormant users: on the last block, of those who were in the first increment and in none between. "
        f"Differences below {NOISE:.3f} are noise. This page and `ccd.json` are "
        f"printed by `{found['command']}`.",
        "",
    ]
    for name, scene in found["scenes"].items():
        lines += [f"## {scene['title']}", ""]
        if not scene["rows"]:
            lines += [f"Not run yet (`--tables {name}`): missing.", ""]
            continue
        lines += [*_table(scene["rows"]), "", *_curves(scene), ""]
        for table in (_both(scene["rows"]), shown(scene["rows"]), parts(scene["rows"])):
            lines += [*table, ""] if table else []
    return "\n".join([*lines, *_calibration(found["scenes"]), ""])


def _calibration(scenes: dict[str, Any]) -> list[str]:
    """Figures of independent code, and our rows beside them."""
    lines = [
        "## Calibration",
        "",
        "Independent code, one seed, same protocol; H with and without the base block. It is of batches of 2,048, and "
        "does not say when training stopped, on which fine-tuning depends: Adam's coupled decay shrinks the users who "
        'are silent in a block at every step (beside it: "decay of touched rows"). "larger batches" are of 8,192, '
        "with a patience of 10 validations in place of 2.",
        "",
        "| data, model | H | H without base | our row | seeds | H | H without base | difference |",
        "|" + "---|" * 8,
    ]
    for floor in CCD_FLOOR:
        row = scenes.get(floor.scene, {"rows": {}})["rows"].get(floor.row)
        ours = [floor.row] if floor.row else ["no such row"]
        if row is not None and row["blocks"] == row["of"]:
            h, unbased = (row["mean"][f"recall@20 {which} base"][-1][2] for which in ("with", "without"))
            ours += [str(len(row["seeds"])), f"{h:.4f}", f"{unbased:.4f}", f"{h - floor.h:+.4f}"]
        elif floor.row:
            ours[0] += ": missing"
        cells = [floor.what, f"{floor.h:.4f}", f"{floor.without:.4f}", *ours]
        lines.append("| " + " | ".join(cells + [""] * (8 - len(cells))) + " |")
    return lines


def _table(rows: dict[str, Any]) -> list[str]:
    lines = [
        "| row | seeds | LA | RA | H (spread over seeds) | LA, RA, H without base | NDCG@20 H | new users "
        "| old users | dormant users |",
        "|" + "---|" * 10,
    ]
    for name, row in rows.items():
        la, ra, h = row["mean"]["recall@20 with base"][-1]
        unbased = row["mean"]["recall@20 without base"][-1:]
        without = ", ".join(f"{value:.4f}" for value in (unbased[0] if unbased else ()))
        ndcg = row["mean"]["ndcg@20 with base"][-1][2]
        groups = [_over_seeds(row, key) for key in ("new", "old", "dormant")]
        spread = row["spread of H"]["recall@20 with base"]
        unfinished = "" if row["blocks"] == row["of"] else f" (unfinished: after D{row['blocks'] - 1})"
        of_users = [f"{x:.4f} ± {1.96 * e:.4f}" for x, e in zip((la, ra), row["errors"], strict=True)]
        where = "" if row["devices"] == ["cpu"] else f" ({' and '.join(row['devices'])})"
        cells = [name + unfinished + where, str(len(row["seeds"])), *of_users, f"**{h:.4f}** ({spread:.4f})", without]
        lines.append("| " + " | ".join([*cells, f"{ndcg:.4f}", *groups]) + " |")
    return lines


def _over_seeds(row: dict[str, Any], key: str) -> str:
    values = [v for one in row["seeds"].values() for v in np.ravel(one[key]).tolist() if v is not None]
    return f"{np.mean(values):.4f}" if values else ""


def _both(rows: dict[str, Any]) -> list[str]:
    """LA and RA after every block."""
    size = max(row["of"] for row in rows.values())
    lines = ["| LA, RA after | " + " | ".join(f"D{k}" for k in range(size)) + " |", "|" + "---|" * (size + 1)]
    for name, row in rows.items():
        curve = [f"{la:.4f}, {ra:.4f}" for la, ra, _ in row["mean"]["recall@20 with base"]]
        lines.append(f"| {name} | " + " | ".join(curve + [""] * (size - len(curve))) + " |")
    return lines


def _curves(scene: dict[str, Any]) -> list[str]:
    """H after every block, and CCD's gain over the best continual baseline beside the published one."""
    rows = scene["rows"]
    size = max(row["of"] for row in rows.values())
    lines = ["| H after | " + " | ".join(f"D{k}" for k in range(size)) + " |", "|" + "---|" * (size + 1)]
    for name, row in rows.items():
        curve = [f"{h:.4f}" for *_, h in row["mean"]["recall@20 with base"]]
        lines.append(f"| {name} | " + " | ".join(curve + [""] * (size - len(curve))) + " |")
    notes: list[str] = []
    others = tuple(name for name in baselines(rows) if name not in _NEEDED)
    for who, ours, rivals, extra in (
        ("student", "ccd", _NEEDED, others),
        ("teacher", "teachers", ("teachers on their own",), ()),
    ):
        gains, missing = _gains(rows, ours, (*rivals, *extra), size)
        if not any(gains):
            continue
        absent = ", ".join(f"{name} (from D{missing[name]} on)" for name in rivals if name in missing)
        partly = "*" if absent else ""
        unbased, _ = _gains(rows, ours, (*rivals, *extra), size, base=False)
        lines.append(f"| gain of the {who}{partly} | " + " | ".join(gains) + " |")
        lines.append(f"| the same without base{partly} | " + " | ".join(unbased) + " |")
        published = CCD_GAINS.get(scene["published"], {}).get(who)
        if published is not None:
            lines.append(f"| published gain of the {who} | | " + " | ".join(f"{g:+.4f}" for g in published) + " |")
        if absent:
            notes += ["", f"\\* The {who}'s gain is over the best of the baselines that are there. Missing: {absent}."]
    return lines + notes


def _gains(
    rows: dict[str, Any], ours: str, rivals: tuple[str, ...], size: int, *, base: bool = True
) -> tuple[list[str], dict[str, int]]:
    """H of a row over the best of its rivals after each block, and since when which of these are missing."""
    key, first = (("recall@20 with base", 0), ("recall@20 without base", 1))[not base]
    curves = {
        name: dict(enumerate((h for *_, h in rows[name]["mean"][key]), first))
        for name in (ours, *rivals)
        if name in rows
    }
    gains: list[str] = []
    missing: dict[str, int] = {}
    for k in range(size):
        there = [curves[name][k] for name in rivals if k in curves.get(name, ())]
        known = k > 0 and k in curves.get(ours, ()) and there  # before the first increment there is nothing to gain
        gains.append(f"{curves[ours][k] - max(there):+.4f}" if known else "")
        for name in rivals if known else ():
            if k not in curves.get(name, ()):
                missing.setdefault(name, k)
    return gains, missing
