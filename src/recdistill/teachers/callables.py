"""Any Python callable as a teacher: users -> lists, or users -> scores of items.

Letters: Q users asked at once, U users, I' items of the callable, n listed pairs, K list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill.errors import DataError, problem
from recdistill.evaluation.blocks import default_threads
from recdistill.external import as_ids
from recdistill.teachers.reading import Pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from recdistill.data.csr import Csr

    Answer = Callable[[NDArray[Any]], Any]
    """(Q,) external user ids -> (Q, I') scores, Q lists of item ids, or such lists with their scores."""

__all__ = ["Scorer", "listed", "name_of"]

_AT_ONCE = 1024
_NUMBERS = 1 << 22
_LISTS = "Return one list of item ids for each user, best first, empty where it knows nothing, or (lists, scores)"


def name_of(call: Answer) -> str:
    """How reports call it: its own name where it has one."""
    return str(getattr(call, "__name__", type(call).__name__))


def listed(call: Answer, users: NDArray[Any], source: str) -> Pairs:
    """Ask for the lists of all users, once.

    Args:
        call: (Q,) users -> Q sequences of item ids, best first, or a pair of those and of their scores.
        users: (U,) external ids.
        source: how errors call it.

    Raises:
        DataError: an answer of another form.
    """
    items: list[Any] = []
    scores: list[NDArray[np.float32]] = []
    lengths: list[int] = []
    for start in range(0, len(users), _AT_ONCE):
        asked = users[start : start + _AT_ONCE]
        lists, of_lists = _parts(call(asked), len(asked), source)
        if len(lists) != len(asked) or (of_lists is not None and len(of_lists) != len(asked)):
            what = f"{source} must answer {len(asked)} users with {len(asked)} lists"
            raise DataError(problem(what, len(lists), remedy=_LISTS))
        for row, line in enumerate(lists):
            if not _in_order(line):
                what = f"{source}: the list of user {asked[row]!r} must be a sequence of item ids"
                raise DataError(problem(what, str(line)[:60], remedy=_LISTS))
            items += list(line)
            lengths.append(len(line))
            if of_lists is not None:
                scores.append(_scores(of_lists[row], len(line), asked[row], source))
    if scores and len(scores) != len(users):
        what = f"{source} gives {len(scores):,} of {len(users):,} users scores"
        raise DataError(problem(what, remedy="Give everybody's lists scores, or nobody's"))
    if not items:
        remedy = "Check that it knows users by the ids of the log"
        raise DataError(problem(f"{source} lists nothing for any of {len(users):,} users", remedy=remedy))
    ids = as_ids(items)
    distinct, place = np.unique(ids, return_inverse=True)
    degrees = np.array(lengths, np.int64)
    user = np.repeat(np.arange(len(users)), degrees)
    rank = np.arange(len(user)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    has = degrees > 0
    renumbered = np.cumsum(has) - 1  # users without a list are not known to it
    whole = np.concatenate(scores) if scores else None
    return Pairs(users[has], distinct, renumbered[user], place.reshape(-1).astype(np.int64), whole, rank)


def _parts(answer: Any, asked: int, source: str) -> tuple[Any, Any]:  # noqa: ANN401 - whatever a callable returns
    """Lists, and their scores or None; two lists of ids for two users are lists, whatever holds them."""
    paired = isinstance(answer, tuple) and len(answer) == 2
    if paired and (asked != 2 or (_in_order(answer[0]) and len(answer[0]) == 2 and all(map(_in_order, answer[0])))):
        lists, scores = answer
    else:
        lists, scores = answer, None
    for each in (lists, scores) if scores is not None else (lists,):
        if not _in_order(each):
            what = f"{source} must answer with a list for each user"
            raise DataError(problem(what, type(each).__name__, remedy=_LISTS))
    return lists, scores


def _in_order(value: object) -> bool:
    """Whether it has places: neither text, a mapping nor a set."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, str | bytes | Mapping)


def _scores(given: Any, n: int, user: object, source: str) -> NDArray[np.float32]:  # noqa: ANN401
    """(n,) of one user's list."""
    try:
        scores = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        scores = np.full(n, np.nan, np.float32)
    if scores.shape != (n,) or not np.isfinite(scores).all():
        what = f"{source}: the scores of user {user!r} must be {n} finite numbers"
        raise DataError(problem(what, str(given)[:60], remedy="Give one number for each item of the list"))
    return scores


class Scorer:
    """A callable's scores as a ranker over the rows of `users` and `items`; asked again whenever they are needed."""

    def __init__(self, call: Answer, users: NDArray[Any], items: NDArray[Any], source: str) -> None:
        """Keep a callable.

        Args:
            call: (Q,) external user ids -> (Q, I') finite scores, greater is better, in the order of `items`; the same
                answer each time.
            users: (U,) external ids.
            items: (I',) external ids.
            source: how errors call it.

        Raises:
            DataError: an answer of another shape, or another answer to the same question.
        """
        self._call, self._users, self._items, self._source = call, users, items, source
        self.n_users, self.n_items, self.threads = len(users), len(items), default_threads()
        self._step = max(1, _NUMBERS // max(len(items), 1))
        if len(users) and not np.array_equal(self._asked(np.arange(1)), self._asked(np.arange(1))):
            what = f"{source} answers the same user differently when asked again"
            raise DataError(problem(what, remedy="Put the model in evaluation: no dropout, no sampling"))

    @property
    def digest(self) -> str:
        """Of its scores for up to 32 users, spread over all: for checkpoints and lineage."""
        rows = np.unique(np.linspace(0, self.n_users - 1, min(32, self.n_users)).astype(np.int64))
        found = hashlib.blake2b(digest_size=16)
        for row in rows:
            found.update(self._asked(row[None]).tobytes())
        return found.hexdigest()

    def top_k(self, queries: NDArray[np.int64], k: int, exclude: Csr | None = None) -> NDArray[np.int64]:
        """(Q,) rows -> (Q, K) items, best first, equal scores by smaller row, -1 past the end or for nobody."""
        out = np.full((len(queries), k), -1, np.int64)
        places = np.flatnonzero((queries >= 0) & (queries < self.n_users))
        for start in range(0, len(places), self._step):
            at = places[start : start + self._step]
            scores = self._asked(queries[at])
            if exclude is not None:
                gone = exclude.select(queries[at])
                scores[np.repeat(np.arange(len(at)), gone.degrees), gone.indices] = -np.inf
            out[at] = _best(scores, k)
        return out

    def scores_of(self, queries: NDArray[np.int64], items: NDArray[np.integer]) -> NDArray[np.float32]:
        """(Q,), (Q, n) -> (Q, n) scores, -inf where the user or the item is unknown."""
        out = np.full(items.shape, -np.inf, np.float32)
        places = np.flatnonzero((queries >= 0) & (queries < self.n_users))
        for start in range(0, len(places), self._step):
            at = places[start : start + self._step]
            wanted = items[at]
            found = np.take_along_axis(self._asked(queries[at]), np.maximum(wanted, 0), 1)
            out[at] = np.where(wanted >= 0, found, -np.inf)
        return out

    def ranks_among(
        self, queries: NDArray[np.int64], target: NDArray[np.int64], others: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """(Q,), (Q,) or (Q, t), (Q, n; -1 = none) -> rank of each target: 1 + #greater + #equal / 2."""
        asked = target.reshape(len(target), -1)  # (Q, t)
        own, rest = self.scores_of(queries, asked)[:, :, None], self.scores_of(queries, others)[:, None]
        rank = 1 + (rest > own).sum(2) + ((rest == own) & (others >= 0)[:, None]).sum(2) / 2
        return np.where(np.isfinite(own[:, :, 0]), rank, np.inf).reshape(target.shape)

    def _asked(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(q,) rows -> (q, I') scores, a copy."""
        answer = self._call(self._users[rows])
        try:
            given = np.array(answer)
        except ValueError:  # rows of unequal length
            given = np.empty(0, object)
        if given.shape != (len(rows), self.n_items) or given.dtype.kind not in "iuf":
            what = f"{self._source} must answer {len(rows)} users with scores of all {self.n_items:,} items"
            remedy = "Return an array (users, items) in the order of `items`; leave `items` out to return lists"
            raise DataError(problem(what, f"{given.dtype} {given.shape}", remedy=remedy))
        found = given.astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(wrong):
            user = self._users[rows[wrong[0]]]
            raise DataError(problem(f"{self._source} gives user {user!r} a score that is not finite"))
        return found


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(q, I') -> (q, k) columns of the greatest, equal ones by smaller column; -inf is none."""
    q, size = scores.shape
    out = np.full((q, k), -1, np.int64)
    most = min(k, size)
    if most == 0:
        return out
    least = np.partition(scores, size - most, axis=1)[:, size - most]  # (q,) the k-th greatest
    row, column = np.nonzero((scores >= least[:, None]) & (scores > -np.inf))
    order = np.lexsort((column, -scores[row, column], row))
    row, column = row[order], column[order]
    first = np.searchsorted(row, np.arange(q))
    place = np.arange(len(row)) - first[row]
    kept = place < k
    out[row[kept], place[kept]] = column[kept]
    return out
