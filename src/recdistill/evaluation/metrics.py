"""Ranking metrics, one value per user, with every convention said out loud (docs/metrics.md).

Users are those with at least one target. With hits h_1 .. h_K of a user's list and n targets:

    recall      sum h / n
    recall_min  sum h / min(n, K)                                   (LensKit's recall)
    precision   sum h / K
    hr          1 if any h
    mrr         1 / r of the first hit within K, else 0
    map         sum_r h_r (hits up to r / r) / min(n, K)
    ndcg        sum_r h_r / log2(r + 1)  /  sum_{r <= min(n, K)} 1 / log2(r + 1)

Letters: Q users, K list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import UnknownName, UsageError, problem
from recdistill.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Formula = Callable[[NDArray[np.float64], NDArray[np.int64], int], NDArray[np.float64]]
    """hits (Q, K) as 0.0 or 1.0, targets (Q,) >= 1, K -> (Q,) values in [0, 1]."""

__all__ = ["METRICS", "Metric", "from_rank", "parse", "per_user"]

METRICS: Registry[Formula] = Registry("metric")
"""Name -> formula over lists of hits."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric at a cut-off; `str` gives "ndcg@10"."""

    name: str
    k: int

    def __str__(self) -> str:
        return f"{self.name}@{self.k}"


def parse(text: str) -> Metric:
    """`"ndcg@10"` -> `Metric("ndcg", 10)`; case does not matter.

    Raises:
        UnknownName: no such metric; the message offers the nearest.
        UsageError: the cut-off is missing, not a number, or less than 1.
    """
    found = re.fullmatch(r"\s*([A-Za-z_]+)\s*(?:@\s*(\d+))?\s*", text)
    if found is None or (found[1].lower() in METRICS and not int(found[2] or 0)):
        example = f"{found[1].lower() if found else 'ndcg'}@10"
        raise UsageError(problem("A metric is a name and a cut-off of at least 1", text, remedy=f"Write {example!r}"))
    name = found[1].lower()
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return Metric(name, int(found[2]))


def per_user(metric: Metric, hits: NDArray[np.bool_], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """The metric of every user.

    Args:
        metric: what to compute; its cut-off may be smaller or greater than the lists are long.
        hits: (Q, R) whether the item at each place, best first, is a target; a place past the end is False.
        targets: (Q,) how many targets each user has, at least 1.

    Returns:
        (Q,) float64 in [0, 1].

    Raises:
        UsageError: shapes differ; a user has no target, or fewer than hits.
    """
    if hits.ndim != 2 or targets.shape != hits.shape[:1]:
        raise UsageError(problem("Metrics need hits (Q, R) and targets (Q,)", (hits.shape, targets.shape)))
    if len(targets) and targets.min() < 1:
        at = int(targets.argmin())
        remedy = "Leave users without targets out: a metric is not defined for them"
        raise UsageError(problem(f"User {at} of this batch has no target", int(targets[at]), remedy=remedy))
    if (hits.sum(axis=1) > targets).any():
        at = int((hits.sum(axis=1) - targets).argmax())
        remedy = "A list must not name an item twice"
        raise UsageError(problem(f"User {at} of this batch has more hits than targets", remedy=remedy))
    return METRICS[metric.name](hits[:, : metric.k].astype(np.float64), targets.astype(np.int64), metric.k)


def from_rank(metric: Metric, rank: NDArray[np.float64]) -> NDArray[np.float64]:
    """The metric of users with one target each, from where it stands.

    Args:
        metric: what to compute.
        rank: (Q,) ranks from 1; fractional for ties (mid-rank), infinity or NaN for a user who was not served. A hit is
            a rank of at most K; the discount is taken at the fractional rank: NDCG 1 / log2(rank + 1), MRR 1 / rank.

    Returns:
        (Q,) float64 in [0, 1]; equal to `per_user` at whole ranks.
    """
    hit = rank <= metric.k
    at = np.where(hit, rank, 1.0)
    value: NDArray[np.float64]
    match metric.name:
        case "ndcg":
            value = 1 / np.log2(at + 1)
        case "mrr" | "map":
            value = 1 / at
        case "precision":
            value = np.full(len(at), 1 / metric.k)
        case "recall" | "recall_min" | "hr":
            value = np.ones(len(at))
        case _:
            raise UsageError(problem("This metric has no formula for a single rank", metric.name))
    return np.where(hit, value, 0.0)


# formulas: hits (Q, r) of 0.0 and 1.0 with r <= K, targets (Q,), K


def _recall(hits: NDArray[np.float64], targets: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    return hits.sum(axis=1) / targets


def _recall_min(hits: NDArray[np.float64], targets: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    return hits.sum(axis=1) / np.minimum(targets, k)


def _precision(hits: NDArray[np.float64], targets: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    return hits.sum(axis=1) / k


def _hr(hits: NDArray[np.float64], targets: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    return (hits.sum(axis=1) > 0).astype(np.float64)


def _mrr(hits: NDArray[np.float64], targets: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    if hits.shape[1] == 0:
        return np.zeros(len(hits))
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)


def _map(hits: NDArray[np.float64], targets: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    place = np.arange(1, hits.shape[1] + 1, dtype=np.float64)
    return (hits * np.cumsum(hits, axis=1) / place).sum(axis=1) / np.minimum(targets, k)


def _ndcg(hits: NDArray[np.float64], targets: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    gain = 1 / np.log2(np.arange(2, k + 2))  # (K,)
    ideal = np.cumsum(gain)[np.minimum(targets, k) - 1]  # (Q,)
    return (hits * gain[: hits.shape[1]]).sum(axis=1) / ideal


for _name, _formula in {
    "hr": _hr,
    "map": _map,
    "mrr": _mrr,
    "ndcg": _ndcg,
    "precision": _precision,
    "recall": _recall,
    "recall_min": _recall_min,
}.items():
    METRICS.add(_name, _formula)
