"""The figures of `recdistill reproduce ccd`: H after every block of a scene's main rows."""

from __future__ import annotations

from typing import Any

from recdistill.report import charts
from recdistill.report.picture import picture

__all__ = ["figures"]

_SHOWN = {
    "teachers": "teachers",
    "full-batch": "full-batch",
    "ccd": "CCD",
    "fine-tune: within a margin": "fine-tune, margin",
    "fine-tune: decay of touched rows": "fine-tune, touched",
    "replay alone": "replay alone",
    "lwc-kd with piw": "LWC-KD, PIW",
    "spmf": "SPMF",
}
"""Row -> its name in a figure; each keeps its colour, whichever others are there."""


def figures(found: dict[str, Any]) -> dict[str, str]:
    """Scene -> its figure as SVG; of scenes with at least two of these rows.

    Args:
        found: as `ccd.collect` gives it.
    """
    out: dict[str, str] = {}
    for name, scene in found["scenes"].items():
        curves = {
            row: [h for *_, h in scene["rows"][row]["mean"]["recall@20 with base"]]
            for row in _SHOWN
            if row in scene["rows"]
        }
        if len(curves) < 2:
            continue
        series = [
            charts.Line(_SHOWN[row], range(len(curve)), curve, style)
            for style, row in enumerate(_SHOWN)
            if (curve := curves.get(row))
        ]
        title = f"{scene['title']}: H after each block"
        drawn = charts.lines(series, title=title, x_label="block", y_label="H of recall@20, base block included")
        out[name] = picture(drawn)
    return out
