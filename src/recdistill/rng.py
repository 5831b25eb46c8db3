"""Chance as an argument: a draw is a function of (seed, purpose, counters, row).

A counter hash (the finaliser of SplitMix64, Steele et al., OOPSLA 2014) over signed 64-bit integers that wrap. Its
integers are equal in numpy and torch and on every device, because both do the same five operations; so a killed run
that starts its epoch again draws the same numbers, and a slice of rows draws what the whole would have drawn.
Uniform and Gumbel numbers are computed from 23 of those bits in float32.

Arrays in are int64, of numpy or torch; arrays out are of the same library and on the same device.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    A = TypeVar("A", NDArray[np.int64], torch.Tensor)

__all__ = ["bits", "check_seed", "gumbel", "integers", "key", "permutation", "uniform"]

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB
_COLUMN = -2960836687051489901  # 0xD6E8FEB86659FD93, odd


def key(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit key for one purpose at one time: `key(7, "negatives", epoch)`.

    Args:
        seed: any integer.
        purpose: what is drawn; two purposes never share numbers.
        counters: epoch, step, ... whatever the draw is to depend on.
    """
    text = "\x1f".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def check_seed(seed: object) -> int:
    """A seed that a user gave, as an integer.

    Raises:
        UsageError: it is no integer from 0 to 2**63 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise UsageError(problem("The seed must be a whole number from 0 to 2**63 - 1", seed))
    return int(seed)


def _mix(x: Any) -> Any:  # noqa: ANN401 - one body for numpy and torch
    """In place: the numbers are many, and memory that is asked for anew costs more than the arithmetic."""
    x = _fold(x, 30, 0x3FFFFFFFF)
    x *= _MIX1
    x = _fold(x, 27, 0x1FFFFFFFFF)
    x *= _MIX2
    return _fold(x, 31, 0x1FFFFFFFF)


def _fold(x: Any, shift: int, mask: int) -> Any:  # noqa: ANN401
    y = x >> shift
    y &= mask  # makes the signed shift a logical one
    x ^= y
    return x


def bits(key: int, rows: A, k: int) -> A:
    """(n,) rows -> (n, k) int64, all 64 bits random, the sign included."""
    if isinstance(rows, np.ndarray):
        return _bits(key, rows, np.arange(k, dtype=np.int64))
    import torch  # noqa: PLC0415 - this file is read where torch is not installed

    if rows.device.type == "cpu":  # where numpy multiplies int64 several times as fast
        return torch.from_numpy(_bits(key, rows.numpy(), np.arange(k, dtype=np.int64)))
    return _bits(key, rows, torch.arange(k, dtype=torch.int64, device=rows.device))


def _bits(key: int, rows: Any, columns: Any) -> Any:  # noqa: ANN401 - one body for numpy and torch
    """(n,) rows, (k,) columns -> (n, k) int64."""
    with np.errstate(over="ignore"):
        base = _mix(rows * _GOLDEN + key)  # (n,)
        return _mix(base[:, None] + columns[None, :] * _COLUMN)


def integers(key: int, rows: A, k: int, high: int) -> A:
    """(n,) rows -> (n, k) int64 in [0, high), `high` at most 2**31 (bias below high / 2**32)."""
    words: Any = bits(key, rows, k)
    return (((words >> 32) & 0xFFFFFFFF) * high) >> 32


def uniform(key: int, rows: A, k: int) -> Any:  # noqa: ANN401 - float32 of the library of `rows`
    """(n,) rows -> (n, k) float32 in the open interval (0, 1), in steps of 2**-23."""
    words: Any = (bits(key, rows, k) >> 41) & 0x7FFFFF
    if isinstance(words, np.ndarray):
        return (words.astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)
    return (words.float() + 0.5) * 2**-23


def gumbel(key: int, rows: A, k: int) -> Any:  # noqa: ANN401 - float32 of the library of `rows`
    """(n,) rows -> (n, k) float32 draws of Gumbel(0, 1): `-log(-log u)`."""
    u = uniform(key, rows, k)
    if isinstance(u, np.ndarray):
        return -np.log(-np.log(u))
    return u.log_().neg_().log_().neg_()


def permutation(key: int, n: int) -> NDArray[np.int64]:
    """A random order of 0..n-1 (numpy; a stable sort of n hashes)."""
    return np.argsort(bits(key, np.arange(n, dtype=np.int64), 1)[:, 0], kind="stable")
