"""A bundle's tables in float16 or int8; and the weights of its encoder in int8.

Letters: U users, I items, d dims.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.bundle.encoder import Encoder
from recdistill.errors import BundleError, UsageError, problem
from recdistill.evaluation.tables import quantised
from recdistill.export.agreement import sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.bundle import Bundle
    from recdistill.bundle.encoder import EncoderPart

__all__ = ["compacted"]

_TABLES = ("user", "item", "input")
_HISTORIES = 256


def compacted(opened: Bundle, precision: str) -> tuple[dict[str, NDArray[Any]], EncoderPart | None, list[str]]:
    """The arrays of a smaller bundle, its encoder, and what is worth knowing.

    Args:
        opened: of kind "vectors", in float32.
        precision: "float16", or "int8": symmetric, a scale a row.

    Raises:
        UsageError: its tables are compact already.
        BundleError: a number does not fit float16.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, table in opened.arrays.items():
        if name not in _TABLES:
            arrays[name] = table
        elif table.dtype.name not in ("float32", "float64"):
            remedy = "Export the bundle that it was made from"
            raise UsageError(problem(f"The table {name!r} is compact already", table.dtype.name, remedy=remedy))
        elif precision == "int8":
            arrays[name], arrays[f"{name}.scale"] = quantised(table)
        else:
            greatest = float(np.abs(table).max(initial=0))
            if greatest > np.finfo(np.float16).max:
                what = f"The table {name!r} holds a number beyond float16"
                raise BundleError(problem(what, greatest, allowed="up to 65504", remedy="Export int8"))
            arrays[name] = table.astype(np.float16)
    part = opened.encoder
    if part is None:
        return arrays, None, []
    small, notes = part, list[str]()
    if precision == "int8" and part.entry.precision == "float32":
        from recdistill.export import quantise  # noqa: PLC0415 - needs onnx, which bundles without encoders do not

        try:
            small = quantise.quantised(part)
        except UsageError as error:
            notes.append(f"The encoder stays in float32: {error}")
    table, scale = arrays[part.entry.table], arrays.get(f"{part.entry.table}.scale")
    small = replace(small, table=table, scale=scale)
    rows = sample(np.flatnonzero(part.histories.lengths > 0), _HISTORIES, 0)
    one = Encoder(part.graph, part.entry, part.table, scale=part.scale).encode(part.histories, rows)
    other = Encoder(small.graph, small.entry, small.table, scale=small.scale).encode(part.histories, rows)
    cosine = (one * other).sum(1) / np.maximum(np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1), 1e-30)
    least = float(cosine.min(initial=1))
    notes.append(
        f"The encoder's vectors of {len(rows):,} histories: cosine {float(cosine.mean()):.4f}, least {least:.4f}"
    )
    if not least >= 0.9:
        what = f"The {precision} encoder gives other vectors: cosine {least:.4f}"
        raise BundleError(problem(what, allowed="at least 0.9", remedy="Nothing was written; export float16"))
    measured = {
        **part.entry.measured,
        "export": {"precision": precision, "cosine": float(cosine.mean()), "least": least},
    }
    entry = small.entry.model_copy(update={"measured": measured})
    return arrays, replace(small, entry=entry), notes
