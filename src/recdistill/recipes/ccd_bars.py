"""What the table of `recdistill reproduce ccd` must show, and whether it does; what each part of CCD is worth.

A difference of H counts from `NOISE` on. Figures are compared over the seeds that both rows have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    _Both = tuple[NDArray[np.float64], NDArray[np.float64]]

__all__ = ["NOISE", "baselines", "beside", "parts", "shown"]

NOISE = 0.002
"""Differences below it are the noise of the protocol."""
_KEY = "recall@20 with base"
_LA, _RA, _H = 0, 1, 2
_FULL = "full-batch"


def baselines(rows: Mapping[str, Any]) -> list[str]:
    """Rows that CCD's student must be above: every student's but CCD's own and those that train on all data again."""
    return [name for name, row in rows.items() if row["student"] and not name.startswith(("ccd", _FULL))]


def beside(rows: Mapping[str, Any], one: str, other: str) -> _Both | None:
    """(blocks, 3) LA, RA and H after each block that both rows have learned, means over their common seeds."""
    if one not in rows or other not in rows:
        return None
    a, b = rows[one]["seeds"], rows[other]["seeds"]
    common = [seed for seed in a if seed in b]
    size = min((len(each[seed][_KEY]) for each in (a, b) for seed in common), default=0)
    if not size:
        return None
    ours, theirs = (np.mean([each[seed][_KEY][:size] for seed in common], 0) for each in (a, b))
    return ours, theirs


def shown(rows: Mapping[str, Any]) -> list[str]:
    """A table of the claims that the rows which are there decide, and their figures; nothing without CCD's own."""
    if "ccd" not in rows:
        return []
    found = [*_of_student(rows, rows["ccd"]["of"]), *_of_teachers(rows)]
    return ["| must show | measured | does it |", "|---|---|---|", *found] if found else []


def parts(rows: Mapping[str, Any]) -> list[str]:
    """A table of every way of CCD that was run, beside the whole."""
    found: list[str] = []
    for name in rows:
        both = beside(rows, name, "ccd") if name.startswith("ccd: ") else None
        if both is None or len(both[0]) < rows["ccd"]["of"]:
            continue
        (la, ra, h), whole = both[0][-1], both[1][-1]
        less = h - whole[_H]
        verdict = "nothing measurable" if abs(less) < NOISE else "it costs" if less < 0 else "it is better so"
        n = len(rows[name]["seeds"])
        found.append(
            f"| {name.removeprefix('ccd: ')} | {n} | {la - whole[_LA]:+.4f} | {ra - whole[_RA]:+.4f} | {less:+.4f} "
            f"| {verdict} |"
        )
    head = ["| CCD with or without | seeds | LA | RA | H after the last block | beside the whole |", "|" + "---|" * 6]
    return head + found if found else []


def _of_student(rows: Mapping[str, Any], size: int) -> list[str]:
    lines: list[str] = []
    if there := _whole(rows, baselines(rows), size):
        gains = {name: ours[:, _H] - theirs[:, _H] for name, (ours, theirs) in there.items()}
        least = min(gains, key=lambda name: float(gains[name][-1]))
        lines.append(_claim("H above every baseline", gains[least][-1], f"over {least}"))
        gain = np.min(list(gains.values()), 0)[1:]
        lines.append(_claim("a gain after every block", gain.min(), f"at least, after D{1 + int(gain.argmin())}"))
    if full := _whole(rows, [name for name in rows if name.startswith(_FULL)], size):
        best = max(full, key=lambda name: float(full[name][1][-1, _H]))
        ours, theirs = (each[-1] for each in full[best])
        lines.append(_claim(f"LA above {best}", ours[_LA] - theirs[_LA], f"({ours[_LA]:.4f} beside {theirs[_LA]:.4f})"))
        share = ours[_RA] / theirs[_RA]
        verdict = "yes" if share >= 0.95 else "no"
        lines.append(f"| RA within 5 % of {best} | {100 * share:.1f} % of it ({ours[_RA]:.4f}) | {verdict} |")
    return lines


def _whole(rows: Mapping[str, Any], others: list[str], size: int) -> dict[str, _Both]:
    """CCD beside those of the others that are as far."""
    found = ((name, beside(rows, "ccd", name)) for name in others)
    return {name: both for name, both in found if both is not None and len(both[0]) == size}


def _of_teachers(rows: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for claim, other, first, below in (
        ("teachers above those on their own, from D2 on", "teachers on their own", 2, False),
        ("teachers never below the student", "ccd", 0, True),
    ):
        both = beside(rows, "teachers", other)
        if both is not None and len(both[0]) > first:
            gap = (both[0] - both[1])[first:, _H]
            lines.append(_claim(claim, gap.min(), f"at least, after D{first + int(gap.argmin())}", below=below))
    return lines


def _claim(what: str, gap: float, how: str, *, below: bool = False) -> str:
    """A row; a claim of "never below" holds within the noise."""
    holds = gap >= (-NOISE if below else NOISE)
    verdict = "yes" if holds else "no" if gap <= -NOISE or below else "within noise"
    return f"| {what} | {gap:+.4f} {how} | {verdict} |"
