"""Tables that grow: ids of a stream only ever come to the end, so that old rows keep their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from recdistill.query import Side

__all__ = ["SIDES", "grow"]

SIDES: dict[str, dict[str, Side]] = {
    "mf": {"user": "user", "item": "item"},
    "lightgcn": {"user": "user", "item": "item"},
    "vae": {"encoder": "item", "decoder": "item", "decoder_bias": "item"},
}
"""Model -> parameter -> whose rows its first axis has; a parameter that is not here does not grow."""


def grow(
    old: NDArray[np.float32], fresh: NDArray[np.float32], side: Side | None, rows: Mapping[Side, int]
) -> NDArray[np.float32]:
    """`old` with the rows it lacks taken from `fresh`.

    Args:
        old: (R, ...) a parameter.
        fresh: (R', ...) the same parameter of a new model of the wanted size.
        side: whose rows they are; None = of nobody, and `old` stays.
        rows: how many rows each side must have.

    Returns:
        (R', ...); `old` itself where nothing is added.

    Raises:
        UsageError: there are more rows already.
    """
    if side is None or len(old) == rows[side]:
        return old
    if len(old) > rows[side]:
        remedy = "Rows of a stream are never taken away; forget a person by emptying the row"
        raise UsageError(problem(f"A table of {len(old)} {side}s cannot shrink", rows[side], remedy=remedy))
    return np.concatenate([old, fresh[len(old) :]])
