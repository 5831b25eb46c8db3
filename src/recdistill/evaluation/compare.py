"""How sure a mean is, and whether two systems differ, from values kept per user.

Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13), sign-flip permutation and
paired t test (Smucker et al., CIKM 2007, compare them for retrieval), Holm's correction (Holm, Scand. J. Stat. 1979).

Letters: n users, S seeds, R resamples, m distinct values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

N = TypeVar("N", np.float64, np.complex128)

__all__ = ["Interval", "PairedTest", "bootstrap_interval", "holm", "paired_test", "retention"]

_CHUNK = 1 << 21  # numbers drawn at a time
_EXACT = 13  # differences up to which all 2**n sign patterns are looked at
_CLOSE = 1e-9  # relative; sums of the same numbers in another order are equal


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval and the users behind it."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}], n = {self.n:,}"


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Whether a and b differ, user by user. Both tests are two-sided."""

    difference: Interval
    """Mean of a - b with its bootstrap interval."""
    p_permutation: float
    """Sign-flip permutation; the one to report."""
    p_t: float
    """Student's paired t."""
    t: float
    wins: int
    """Users for whom a is greater."""
    losses: int
    ties: int


def bootstrap_interval(values: ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of per-user values with its percentile bootstrap interval.

    Args:
        values: (n,) one value a user; or (S, n), seeds over the same users: then users and seeds are both drawn.
        level: coverage, in (0, 1).
        resamples: R.
        seed: of the draws; the same values, level and seed give the same interval.

    Raises:
        UsageError: no values, a value that is not finite, or a level outside (0, 1).
    """
    table = _table(values, "values")
    means = _resampled_means(table, resamples, seed)
    low, high = _percentiles(means, level)
    return Interval(float(table.mean()), low, high, table.shape[1])


def retention(
    student: ArrayLike, teacher: ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """How much of the teacher's quality the student keeps, in per cent: 100 x mean(student) / mean(teacher).

    The interval draws users, the same for both; with several seeds it draws seeds too.

    Args:
        student: (n,) values per user, or (S, n) over seeds.
        teacher: the same users; (n,), or (S, n) where seed s trained its own teacher.
        level: coverage, in (0, 1).
        resamples: R.
        seed: of the draws.

    Raises:
        UsageError: the shapes do not match, or the teacher's mean is not above 0.
    """
    top, bottom = _pair(student, teacher, ("student", "teacher"))
    if bottom.mean() <= 0:
        remedy = "Choose a metric on which the teacher is better than nothing"
        raise UsageError(
            problem("Retention needs a teacher whose mean is above 0", float(bottom.mean()), remedy=remedy)
        )
    shape = (max(len(top), len(bottom)), top.shape[1])
    top, bottom = np.broadcast_to(top, shape), np.broadcast_to(bottom, shape)
    means = _resampled_means(top + 1j * bottom, resamples, seed)  # both at once: the same users for both
    defined = means[means.imag > 0]  # a resample in which the teacher gets nothing has no ratio
    low, high = _percentiles(100 * (defined.real / defined.imag), level)
    return Interval(100 * float(top.mean() / bottom.mean()), low, high, shape[1])


def paired_test(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> PairedTest:
    """Whether two systems differ on the same users.

    Args:
        a: (n,) values per user, or (S, n) over seeds, which are averaged user by user first: the test speaks of users.
        b: the same users.
        level: of the difference's interval.
        resamples: random sign patterns; up to 13 users who differ, all patterns are looked at instead.
        seed: of the draws.

    Raises:
        UsageError: the shapes do not match, or a value is not finite.
    """
    first, second = _pair(a, b, ("a", "b"))
    difference = first.mean(axis=0) - second.mean(axis=0)  # (n,)
    t, p_t = _paired_t(difference)
    return PairedTest(
        difference=bootstrap_interval(difference, level=level, seed=seed),
        p_permutation=_sign_flip(difference, resamples, _generator(seed, "sign flips")),
        p_t=p_t,
        t=t,
        wins=int((difference > 0).sum()),
        losses=int((difference < 0).sum()),
        ties=int((difference == 0).sum()),
    )


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction: (m,) p-values in any order -> (m,) adjusted, in the same order.

    Raises:
        UsageError: a p-value outside [0, 1].
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise UsageError(problem("p-values must be a vector of numbers in [0, 1]", p.tolist()))
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]), 1)
    return adjusted


# helpers


def _table(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """(n,) or (S, n) -> (S, n), finite and not empty."""
    table = np.asarray(values, np.float64)
    if table.ndim not in (1, 2) or table.size == 0:
        remedy = "Give one value a user, or a row of them a seed"
        raise UsageError(problem(f"There is nothing to average in {name!r}", table.shape, remedy=remedy))
    if not np.isfinite(table).all():
        raise UsageError(problem(f"A value of {name!r} is not a finite number"))
    return np.atleast_2d(table)


def _pair(a: ArrayLike, b: ArrayLike, names: tuple[str, str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = _table(a, names[0]), _table(b, names[1])
    if first.shape[1] != second.shape[1] or (len(first) != len(second) and 1 not in (len(first), len(second))):
        remedy = "Evaluate both on the same held-out users, with the same seeds"
        what = f"{names[0]!r} and {names[1]!r} must be of the same users and seeds"
        raise UsageError(problem(what, (first.shape, second.shape), remedy=remedy))
    return first, second


def _generator(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(list(f"{seed} {purpose}".encode()))


def _percentiles(means: NDArray[np.float64], level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise UsageError(problem("The level of an interval must be between 0 and 1", level, remedy="Write 0.95"))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled_means(table: NDArray[N], resamples: int, seed: int) -> NDArray[N]:
    """(S, n) -> (R,) means over users, and seeds where there are several, drawn with replacement; O(2**21) memory.

    Values of a ranking metric repeat: drawing how often each distinct value comes is the same distribution and costs
    m, not n, a resample. Where they do not repeat, users are drawn.
    """
    s, n = table.shape
    generator = _generator(seed, "bootstrap")
    distinct, count = np.unique(table[0], return_counts=True)  # (m,)
    cheap = s == 1 and len(distinct) * 8 <= n
    step = max(1, _CHUNK // (len(distinct) if cheap else n))
    parts: list[NDArray[N]] = []
    for start in range(0, resamples, step):
        r = min(step, resamples - start)
        if cheap:
            parts.append(generator.multinomial(n, count / n, size=r) @ distinct / n)
            continue
        users = generator.integers(n, size=(r, n), dtype=np.int32)
        if s == 1:
            parts.append(table[0][users].mean(axis=1))
            continue
        share = np.bincount((users + np.arange(r)[:, None] * n).ravel(), minlength=r * n).reshape(r, n) / n
        seeds = generator.multinomial(s, np.full(s, 1 / s), size=r) / s  # (r, S)
        parts.append((seeds * (share @ table.T)).sum(axis=1))
    return np.concatenate(parts)


def _sign_flip(difference: NDArray[np.float64], resamples: int, generator: np.random.Generator) -> float:
    """Two-sided p of the mean difference when every user's sign could as well be the other."""
    size = np.abs(difference[difference != 0])
    if len(size) == 0:
        return 1.0
    observed = abs(difference.sum()) * (1 - _CLOSE)
    if len(size) <= _EXACT:
        place = np.arange(len(size), dtype=np.int64)
        patterns: NDArray[np.int64] = (np.arange(2 ** len(size), dtype=np.int64)[:, None] >> place) & 1  # (2^n, n)
        return float((np.abs((2 * patterns - 1) @ size) >= observed).mean())
    distinct, count = np.unique(size, return_counts=True)  # the signs of equal sizes add up to a binomial
    cheap = len(distinct) * 4 <= len(size)
    step = max(1, _CHUNK // (len(distinct) if cheap else len(size)))
    reached = 0
    for start in range(0, resamples, step):
        r = min(step, resamples - start)
        if cheap:
            positive = generator.binomial(count, 0.5, size=(r, len(distinct))) @ distinct
        else:
            octets = generator.integers(256, size=(r, -(-len(size) // 8)), dtype=np.uint8)
            positive = np.unpackbits(octets, axis=1, count=len(size)).astype(np.float64) @ size
        reached += int((np.abs(2 * positive - size.sum()) >= observed).sum())
    return (1 + reached) / (1 + resamples)  # never 0: the observed signs are one of the patterns


def _paired_t(difference: NDArray[np.float64]) -> tuple[float, float]:
    """Student's t of the mean and its two-sided p; without spread, p is 1 for none and 0 for a constant one."""
    n = len(difference)
    mean = float(difference.mean())
    spread = float(difference.std(ddof=1)) if n > 1 else 0.0
    if spread <= _CLOSE * abs(mean) or spread == 0:
        certain = mean != 0 and n > 1
        return (math.copysign(math.inf, mean) if certain else 0.0), (0.0 if certain else 1.0)
    t = mean / (spread / math.sqrt(n))
    freedom = n - 1
    return t, _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), x in [0, 1], by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):  # the other side converges faster
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)  # modified Lentz
    total = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            total *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * total
