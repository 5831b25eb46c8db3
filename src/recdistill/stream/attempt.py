"""A training that may fail: a stream goes on with what it has, and says why.

What fails puts out no array, and `failed`, why, among what was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import TrainingError, problem
from recdistill.ledger.objects import Personal
from recdistill.stream.protocol import Output

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NOTHING", "attempted", "failed"]

NOTHING = "there is nothing to learn from"


def attempted(make: Callable[[], Output], *, first: bool) -> Output:
    """What a training puts out.

    Args:
        make: trains.
        first: whether the stream has nothing to go on with in its place.

    Raises:
        TrainingError: the first one failed, or put out what is no number.
    """
    try:
        return _finite(make())
    except TrainingError as error:
        if first:
            raise
        return failed(str(error))


def failed(why: str) -> Output:
    """Of a training that failed."""
    return Output({}, Personal(), {"failed": why})


def _finite(out: Output) -> Output:
    wrong = sorted(n for n, a in out.arrays.items() if a.dtype.kind == "f" and not np.isfinite(a).all())
    if wrong:
        remedy = "Lower the learning rate in stream.toml"
        raise TrainingError(problem(f"{', '.join(wrong)} hold NaN or infinity", remedy=remedy))
    return out
