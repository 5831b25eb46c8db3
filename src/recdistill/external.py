"""Ids as they come from outside, made one of two types: int64, or text. numpy only.

Letters: m ids.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from recdistill.errors import DataError, problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    ExternalIds = Sequence[str] | Sequence[int] | Sequence[str | int] | NDArray[Any]
    """What is accepted as ids from outside: a sequence, or a one-dimensional array, of str or int."""

__all__ = ["CANONICAL", "as_ids", "integers"]

CANONICAL = re.compile(r"0|-?[1-9][0-9]{0,18}")
"""An integer as `str` writes it: no leading zeros, no plus, no blanks."""

_INT64 = np.iinfo(np.int64)


def as_ids(values: ExternalIds) -> NDArray[Any]:
    """Whatever came in -> (m,) int64, or (m,) object array of str.

    Raises:
        DataError: not a sequence, not of one dimension, or something that is neither an integer nor text.
    """
    if isinstance(values, str | bytes):
        raise DataError(problem("Ids come as a sequence", values, remedy="Put a single id into a list"))
    array = values if isinstance(values, np.ndarray) else _array(values)
    if array.ndim != 1:
        raise DataError(problem("Ids come as one dimension", array.shape))
    if array.dtype.kind in "iu":
        if array.dtype == np.uint64 and array.size and array.max() > np.uint64(_INT64.max):
            return np.array([str(i) for i in array.tolist()], dtype=object)
        return array.astype(np.int64, copy=False)
    if array.dtype.kind in "UT":
        return array.astype(object)
    if array.dtype.kind != "O" and array.size:
        remedy = "Give ids as integers or text; a float id is often an integer column with missing values"
        raise DataError(problem(f"An id is neither an integer nor text: {array.flat[0].item()!r}", remedy=remedy))
    return _objects(cast("list[object]", array.tolist()))


def integers(ids: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(m,) strings -> (m,) int64 and whether each is an integer as `str` writes it and fits."""
    known = np.zeros(len(ids), np.bool_)
    numbers = np.zeros(len(ids), np.int64)
    for at, text in enumerate(cast("list[str]", ids.tolist())):
        if CANONICAL.fullmatch(text) and _INT64.min <= int(text) <= _INT64.max:
            known[at], numbers[at] = True, int(text)
    return numbers, known


def _array(values: Sequence[Any]) -> NDArray[Any]:
    """A sequence as an object array: numpy must not turn a mixture into strings, or ints into floats."""
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


def _objects(items: list[object]) -> NDArray[Any]:
    kinds = set(map(type, items))
    if kinds == {str}:
        return _array(cast("list[str]", items))
    wrong: list[type] = [
        kind for kind in kinds if not issubclass(kind, str | int | np.integer) or issubclass(kind, bool)
    ]
    if wrong:
        value = next(i for i in items if type(i) in wrong)
        remedy = "Give ids as integers or text; a float id is often an integer column with missing values"
        raise DataError(problem(f"An id is neither an integer nor text: {value!r}", remedy=remedy))
    numbers = cast("list[Any]", items)
    if not any(issubclass(kind, str) for kind in kinds) and all(_INT64.min <= i <= _INT64.max for i in numbers):
        return np.array([int(i) for i in numbers], np.int64)
    return _array([str(i) for i in items])
