"""Measure a ranker on held-out data: full ranking, or the target among sampled negatives.

The population is the users with at least one target. A user the ranker cannot serve (no row, nothing seen to learn
from, an empty answer) counts 0, or is left out with `cold="drop"`; how many there are is always kept.

Letters: m users with a target, n candidates, K list.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from recdistill.errors import DataError, UsageError, problem
from recdistill.evaluation.conventions import Convention, convention, settled
from recdistill.evaluation.evaluation import Evaluation
from recdistill.evaluation.metrics import OURS, Metric, from_rank, parse, per_user
from recdistill.evaluation.protocol import sampled
from recdistill.evaluation.ranking import EncodedRanker, Told, following

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.evaluation.metrics import Rules
    from recdistill.evaluation.ranking import Ranker

__all__ = ["Cold", "Evaluation", "Held", "Negatives", "evaluate", "evaluate_parts"]

Cold = Literal["zero", "drop"]
_LISTED = 1 << 22  # items of lists held at a time


class Held(Told, Protocol):
    """What is read of held-out data."""

    @property
    def name(self) -> Literal["valid", "test"]:
        """Which part."""
        ...

    @property
    def targets(self) -> Csr:
        """U x I: what each user is expected to get."""
        ...

    @property
    def seen(self) -> Csr:
        """U x I: what a ranking leaves out."""
        ...

    @property
    def queries(self) -> NDArray[np.int64]:
        """(m,) user rows with at least one target."""
        ...


class Negatives(Protocol):
    """What is read of candidates."""

    @property
    def items(self) -> NDArray[np.int32]:
        """(U, n) item rows, -1 past the end."""
        ...

    @property
    def n(self) -> int:
        """How many were asked for."""
        ...

    @property
    def digest(self) -> str:
        """Names the drawn items."""
        ...


def evaluate(
    ranker: Ranker,
    held: Held,
    metrics: str | Metric | Sequence[str | Metric] = ("recall@10", "ndcg@10"),
    *,
    protocol: str = "full",
    candidates: Negatives | None = None,
    cold: Cold = "zero",
    like: str | Convention | None = None,
) -> Evaluation:
    """Measure `ranker` on held-out data.

    Args:
        ranker: what orders the items; one that reads histories reads those of `held`.
        held: targets, what a ranking leaves out, and the users with a target.
        metrics: a name with a cut-off, "ndcg@10", or several.
        protocol: "full" ranks all items outside `held.seen`; "sampled(499)" ranks the one target among 499 candidates.
        candidates: of the sampled protocol, one row a user; the other held-out item is not among them.
        cold: users the ranker cannot serve count 0 ("zero"), or are left out ("drop").
        like: another library's convention, "rectools", "lenskit", ... (docs/metrics.md); it says who is counted, so
            `cold` is not given beside it. None for ours.

    Raises:
        UnknownName: a metric or convention that does not exist.
        UsageError: a protocol that does not exist or does not fit the candidates, the targets or the convention; a
            metric that the convention does not have.
        DataError: nothing to measure: no user has a target (or none is served, with `cold="drop"`).
    """
    parts = (held,)
    return evaluate_parts(ranker, parts, metrics, protocol=protocol, candidates=candidates, cold=cold, like=like)[0]


def evaluate_parts(
    ranker: Ranker,
    parts: Sequence[Held],
    metrics: str | Metric | Sequence[str | Metric] = ("recall@10", "ndcg@10"),
    *,
    protocol: str = "full",
    candidates: Negatives | None = None,
    cold: Cold = "zero",
    like: str | Convention | None = None,
) -> list[Evaluation]:
    """`evaluate` for several parts at once, valid and test: a sampled protocol scores their common candidates once.

    Arguments and errors are those of `evaluate`; one evaluation a part comes back, equal to its own call's.
    """
    named = [metrics] if isinstance(metrics, str | Metric) else metrics
    wanted = [m if isinstance(m, Metric) else parse(m) for m in named]
    if not wanted:
        raise UsageError(problem("Nothing to measure: no metric was named", remedy="Name one: metrics=('ndcg@10',)"))
    if cold not in ("zero", "drop"):
        raise UsageError(problem("Unknown rule for users without an answer", cold, allowed=["zero", "drop"]))
    negatives = _negatives(protocol, candidates)
    found = None if like is None else convention(like)
    if found is not None:
        found.check(wanted, protocol)
        if cold != "zero":
            what = f"The convention of {found.library} says which users are counted"
            raise UsageError(problem(what, f"cold={cold!r}", remedy="Leave `cold` out, or `like`"))
    rules = OURS if found is None else found.rules
    asked = [_asked(ranker, held) for held in parts]
    if negatives is None:
        measured = [
            _full(following(ranker, held), held, rows, wanted, rules) for held, rows in zip(parts, asked, strict=True)
        ]
    else:
        alike = all(np.array_equal(held.queries, parts[0].queries) for held in parts)
        alike = alike and not isinstance(ranker, EncodedRanker)  # a user stands elsewhere at each part
        alike = alike and all(np.array_equal(rows, asked[0]) for rows in asked)
        groups = [list(parts)] if alike else [[held] for held in parts]
        ranks = [
            rank
            for group, rows in zip(groups, asked, strict=False)
            for rank in _sampled(following(ranker, group[0]), group, rows, negatives)
        ]
        measured = [(np.isfinite(rank), [from_rank(metric, rank, rules=rules) for metric in wanted]) for rank in ranks]
    return [_evaluation(held, wanted, m, negatives, found or cold) for held, m in zip(parts, measured, strict=True)]


# helpers

_Measured = tuple["NDArray[np.bool_]", "list[NDArray[np.float64]]"]
"""(m,) who got an answer, and for each metric (m,) values."""


def _asked(ranker: Ranker, held: Held) -> NDArray[np.int64]:
    """(m,) the users with a target, -1 for those the ranker has no row for or nothing to go by."""
    queries = np.asarray(held.queries, np.int64)
    if len(queries) == 0:
        remedy = "Hold more out: a larger share, or a shorter minimum history"
        raise DataError(problem(f"No user of the {held.name} part has a target", remedy=remedy))
    if ranker.n_items != held.targets.n_columns:
        sizes = (ranker.n_items, held.targets.n_columns)
        remedy = "Evaluate on the split the ranker was made for"
        raise UsageError(problem("Ranker and held-out data must have the same items", sizes, remedy=remedy))
    able = (queries < ranker.n_users) & (held.seen.degrees[queries] > 0)
    return np.where(able, queries, -1)


def _negatives(protocol: str, candidates: Negatives | None) -> Negatives | None:
    n = sampled(protocol)
    if n is None:
        return None
    if candidates is None or candidates.n != n:
        remedy = f"Draw them once and record them: candidates=draw(split, n={n}, seed=0)"
        value = None if candidates is None else f"{candidates.n} candidates"
        raise UsageError(problem(f"The protocol {protocol!r} needs its candidates", value, remedy=remedy))
    return candidates


def _full(ranker: Ranker, held: Held, asked: NDArray[np.int64], metrics: list[Metric], rules: Rules) -> _Measured:
    queries = np.asarray(held.queries, np.int64)
    k = max(metric.k for metric in metrics)
    n_targets = held.targets.degrees[queries]  # (m,)
    served = np.zeros(len(queries), np.bool_)
    values = [np.empty(len(queries)) for _ in metrics]
    step = max(1024, _LISTED // k)
    for start in range(0, len(queries), step):
        at = slice(start, start + step)
        lists = ranker.top_k(asked[at], min(k, ranker.n_items), held.seen)  # (c, K)
        users = queries[at]
        hits = (lists >= 0) & held.targets.contains(users[:, None], np.maximum(lists, 0))
        served[at] = lists[:, 0] >= 0
        listed = (lists >= 0).sum(axis=1)
        for metric, value in zip(metrics, values, strict=True):
            value[at] = per_user(metric, hits, n_targets[at], rules=rules, listed=listed, everyone=n_targets)
    return served, values


def _sampled(
    ranker: Ranker, parts: list[Held], asked: NDArray[np.int64], negatives: Negatives
) -> list[NDArray[np.float64]]:
    """Parts of the same users -> for each (m,) ranks of its targets."""
    queries = np.asarray(parts[0].queries, np.int64)
    for held in parts:
        several = int((held.targets.degrees[queries] > 1).sum())
        if several:
            what = f"A sampled protocol ranks one target a user; {several:,} users have more"
            remedy = "Use protocol='full', or a split that holds one item out for each user"
            raise UsageError(problem(what, remedy=remedy))
    if len(negatives.items) <= queries.max():
        shape = negatives.items.shape
        raise UsageError(problem("The candidates do not have a row for every user", shape, remedy="Draw them again"))
    targets = [held.targets.indices[held.targets.indptr[queries]].astype(np.int64) for held in parts]
    everyone = len(queries) == len(negatives.items) and bool((queries == np.arange(len(queries))).all())
    others = negatives.items if everyone else negatives.items[queries]  # (m, n)
    if len(targets) == 1:
        return [ranker.ranks_among(asked, targets[0], others)]
    return list(ranker.ranks_among(asked, np.stack(targets, axis=1), others).T)  # (m, parts)


def _evaluation(
    held: Held,
    metrics: list[Metric],
    measured: _Measured,
    negatives: Negatives | None,
    rule: Cold | Convention,
) -> Evaluation:
    served, values = measured
    like, cold = (rule, "zero") if isinstance(rule, Convention) else (None, rule)
    queries = np.asarray(held.queries, np.int64)
    kept = served if cold == "drop" else np.ones_like(served)
    notes: tuple[str, ...] = () if negatives is None else _too_few(held, negatives)
    if like is None:
        queries, values = queries[kept], [value[kept] for value in values]
    else:
        queries, values = _settled(held, like, metrics, served, values)
        notes = (like.words(metrics), *notes)
    if not len(queries):
        remedy = "Use cold='zero', or a ranker that knows these users"
        raise DataError(problem(f"No user of the {held.name} part can be served", remedy=remedy))
    return Evaluation(
        name=held.name,
        protocol="full" if negatives is None else f"sampled({negatives.n})",
        cold=cold,
        queries=queries,
        per_user={str(metric): value for metric, value in zip(metrics, values, strict=True)},
        unserved=int((~served).sum()),
        fingerprint=_fingerprint(held, negatives, cold if like is None else f"{cold} {like.name}"),
        notes=notes,
        like=None if like is None else like.name,
    )


def _settled(
    held: Held,
    like: Convention,
    metrics: list[Metric],
    served: NDArray[np.bool_],
    values: list[NDArray[np.float64]],
) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
    """Values of the users with a target -> the users a library counts, and their values."""
    rows = np.arange(held.targets.n_rows)
    targeted, listed = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    targeted[held.queries], listed[held.queries] = True, served
    whole: list[NDArray[np.float64]] = []
    for value in values:
        of_all = np.zeros(len(rows))
        of_all[held.queries] = value
        whole.append(of_all)
    kept, settled_values = settled(like, metrics, whole, targeted=targeted, listed=listed)
    return rows[kept], settled_values


def _too_few(held: Held, negatives: Negatives) -> tuple[str, ...]:
    """A note on users who have fewer free items than the protocol ranks the target among."""
    queries = np.asarray(held.queries, np.int64)
    short = queries[negatives.items[queries, -1] < 0]  # padding stands at the end
    if not len(short):
        return ()
    free = (negatives.items[short] >= 0).sum(axis=1)
    return (
        f"sampled({negatives.n}): {len(short):,} of {len(queries):,} users have fewer free items, {free.min():,} to "
        f"{free.max():,}, so their target is ranked among fewer and the figures are higher than their name says",
    )


_digests: WeakKeyDictionary[object, str] = WeakKeyDictionary()  # the same objects come every epoch


def _fingerprint(held: Held, negatives: Negatives | None, cold: str) -> str:
    if held not in _digests:
        digest = hashlib.blake2b(held.name.encode(), digest_size=16)
        for part in (held.targets, held.seen):
            digest.update(f" {part.n_rows} {part.n_columns} ".encode())
            digest.update(part.indptr.astype("<i8").tobytes())
            digest.update(part.indices.astype("<i4").tobytes())
        _digests[held] = digest.hexdigest()
    if negatives is not None and negatives not in _digests:
        _digests[negatives] = negatives.digest
    parts = (_digests[held], "full" if negatives is None else f"{negatives.n} {_digests[negatives]}", cold)
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=8).hexdigest()
