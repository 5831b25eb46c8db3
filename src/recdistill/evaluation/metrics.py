"""Ranking metrics, one value per user, with every convention said out loud (docs/metrics.md).

Users are those with at least one target. With hits h_1 .. h_K of a user's list and n targets:

    recall      sum h / n
    recall_min  sum h / min(n, K)                                   (LensKit's recall)
    precision   sum h / K
    hr          1 if any h
    mrr         1 / r of the first hit within K, else 0
    map         sum_r h_r (hits up to r / r) / min(n, K)
    ndcg        sum_r h_r / log2(r + 1)  /  sum_{r <= min(n, K)} 1 / log2(r + 1)

What other libraries divide by, discount with and call ideal is data, `Rules`; whom they count is in `conventions`.

Letters: Q users, R list, K cut-off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import AfterValidator

from recdistill.errors import UnknownName, UsageError, problem
from recdistill.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Formula = Callable[["_Lists"], NDArray[np.float64]]

__all__ = ["METRICS", "OURS", "Discount", "Metric", "MetricName", "Over", "Rules", "from_rank", "parse", "per_user"]

METRICS: Registry[Formula] = Registry("metric")
"""Name -> formula over lists of hits."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric at a cut-off; `str` gives "ndcg@10"."""

    name: str
    k: int

    def __str__(self) -> str:
        return f"{self.name}@{self.k}"


class Over(StrEnum):
    """What a sum of hits is divided by."""

    TARGETS = "n"
    ACHIEVABLE = "min(n, K)"
    CUTOFF = "K"
    LISTED = "min(length of the list, K)"
    POOLED = "mean of min(n, K)"
    """One number for all users, so that the mean is the hits of all over what all could have had (implicit)."""


class Discount(StrEnum):
    """What a hit at rank r is divided by in DCG."""

    NEXT = "log2(r + 1)"
    AT_LEAST_1 = "max(log2 r, 1)"
    """Ranks 1 and 2 count alike (LensKit)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """In what libraries differ at one user; the defaults are ours."""

    recall: Over = Over.TARGETS
    precision: Over = Over.CUTOFF
    map: Over = Over.ACHIEVABLE
    ideal: Over = Over.ACHIEVABLE
    """How many places the best list of NDCG fills: `ACHIEVABLE`, or `CUTOFF` whatever the user's targets are."""
    discount: Discount = Discount.NEXT


OURS = Rules()


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


def _known(text: str) -> str:
    try:
        parse(text)
    except UsageError as error:
        raise ValueError(str(error)) from None  # settings say which key it is
    return text


MetricName = Annotated[str, AfterValidator(_known)]
"""As a setting."""


def per_user(
    metric: Metric,
    hits: NDArray[np.bool_],
    targets: NDArray[np.int64],
    *,
    rules: Rules = OURS,
    listed: NDArray[np.int64] | None = None,
    everyone: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """The metric of every user.

    Args:
        metric: what to compute; its cut-off may be smaller or greater than the lists are long.
        hits: (Q, R) whether the item at each place, best first, is a target; a place past the end is False.
        targets: (Q,) how many targets each user has, at least 1.
        rules: denominators, ideal and discount.
        listed: (Q,) how long each list is, for `Over.LISTED`; R for all when None.
        everyone: (m,) the targets of all users the mean will run over, for `Over.POOLED`; `targets` when None.

    Returns:
        (Q,) float64; in [0, 1] by our rules.

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
    lists = _Lists(
        hits[:, : metric.k].astype(np.float64),
        targets.astype(np.int64),
        np.full(len(hits), hits.shape[1]) if listed is None else listed,
        targets if everyone is None else everyone,
        metric.k,
        rules,
    )
    return METRICS[metric.name](lists)


def from_rank(metric: Metric, rank: NDArray[np.float64], *, rules: Rules = OURS) -> NDArray[np.float64]:
    """The metric of users with one target each, from where it stands.

    Args:
        metric: what to compute.
        rank: (Q,) ranks from 1; fractional for ties (mid-rank), infinity or NaN for a user who was not served. A hit is
            a rank of at most K; the discount is taken at the fractional rank: NDCG 1 / log2(rank + 1), MRR 1 / rank.
        rules: denominators, ideal and discount; a list is taken to be K long.

    Returns:
        (Q,) float64; in [0, 1] and equal to `per_user` at whole ranks.
    """
    hit = rank <= metric.k
    at = np.where(hit, rank, 1.0)
    one = _Lists.of_one(metric.k, rules)
    value: NDArray[np.float64]
    match metric.name:
        case "ndcg":
            value = _gain(at, rules.discount) / one.ideal()
        case "mrr":
            value = 1 / at
        case "map":
            value = 1 / at / one.over(rules.map)
        case "precision":
            value = np.ones(len(at)) / one.over(rules.precision)
        case "recall":
            value = np.ones(len(at)) / one.over(rules.recall)
        case "recall_min" | "hr":
            value = np.ones(len(at))
        case _:
            raise UsageError(problem("This metric has no formula for a single rank", metric.name))
    return np.where(hit, value, 0.0)


@dataclass(frozen=True, slots=True)
class _Lists:
    """What a formula is given."""

    hits: NDArray[np.float64]
    """(Q, r) 0.0 and 1.0, r <= K."""
    targets: NDArray[np.int64]
    """(Q,) n, at least 1."""
    listed: NDArray[np.int64]
    """(Q,)"""
    everyone: NDArray[np.int64]
    """(m,) n of all users."""
    k: int
    rules: Rules

    @classmethod
    def of_one(cls, k: int, rules: Rules) -> _Lists:
        """One user with one target and a full list: whatever it is divided by, each user of a sampled protocol is."""
        one = np.ones(1, np.int64)
        return cls(np.zeros((1, 0)), one, one * k, one, k, rules)

    def over(self, what: Over) -> NDArray[np.float64]:
        """(Q,) denominators, at least 1."""
        n = self.targets
        match what:
            case Over.TARGETS:
                found = n
            case Over.ACHIEVABLE:
                found = np.minimum(n, self.k)
            case Over.CUTOFF:
                found = np.full(len(n), self.k)
            case Over.LISTED:
                found = np.maximum(np.minimum(self.listed, self.k), 1)  # an empty list has no hits to divide
            case Over.POOLED:
                found = np.full(len(n), np.minimum(self.everyone, self.k).mean())
        return found.astype(np.float64)

    def ideal(self) -> NDArray[np.float64]:
        """(Q,) DCG of the best list."""
        best = np.cumsum(_gain(np.arange(1.0, self.k + 1), self.rules.discount))  # (K,)
        return best[self.over(self.rules.ideal).astype(np.int64) - 1]


def _gain(rank: NDArray[np.float64], discount: Discount) -> NDArray[np.float64]:
    """Ranks from 1 -> what a hit there counts."""
    if discount is Discount.NEXT:
        return 1 / np.log2(rank + 1)
    return 1 / np.maximum(np.log2(rank), 1)


# formulas


def _recall(lists: _Lists) -> NDArray[np.float64]:
    return lists.hits.sum(axis=1) / lists.over(lists.rules.recall)


def _recall_min(lists: _Lists) -> NDArray[np.float64]:
    return lists.hits.sum(axis=1) / lists.over(Over.ACHIEVABLE)


def _precision(lists: _Lists) -> NDArray[np.float64]:
    return lists.hits.sum(axis=1) / lists.over(lists.rules.precision)


def _hr(lists: _Lists) -> NDArray[np.float64]:
    return (lists.hits.sum(axis=1) > 0).astype(np.float64)


def _mrr(lists: _Lists) -> NDArray[np.float64]:
    hits = lists.hits
    if hits.shape[1] == 0:
        return np.zeros(len(hits))
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)


def _map(lists: _Lists) -> NDArray[np.float64]:
    hits = lists.hits
    place = np.arange(1, hits.shape[1] + 1, dtype=np.float64)
    return (hits * np.cumsum(hits, axis=1) / place).sum(axis=1) / lists.over(lists.rules.map)


def _ndcg(lists: _Lists) -> NDArray[np.float64]:
    gain = _gain(np.arange(1.0, lists.hits.shape[1] + 1), lists.rules.discount)
    return (lists.hits * gain).sum(axis=1) / lists.ideal()


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
