"""A log in train, valid and test.

    given               the split column of the log
    leave-last-out      each user's last interaction is test, the last but one valid
    leave-random-out    one random interaction of each user is test, another valid
    ratio               a random share of each user's interactions is test, another valid
    time                the last share of the whole log is test, the share before it valid

Last means by time; ties, and logs without times, go by the order of the log. Users and items keep the rows of the whole
log, so what occurs only in valid or test ("cold") has a row too.

Letters: n interactions, U users, I items.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from recdistill import rng
from recdistill.data.csr import Csr
from recdistill.data.formats.roles import naming
from recdistill.data.histories import Histories
from recdistill.data.interactions import HeldOut, Interactions, Split
from recdistill.errors import DataError, UnknownName, UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["HOWS", "split"]

HOWS = ("given", "leave-last-out", "leave-random-out", "ratio", "time")
_TRAIN, _VALID, _TEST = 0, 1, 2
_MIN_HISTORY = 3  # one interaction for each part


def split(
    log: Interactions,
    how: str = "leave-last-out",
    *,
    seed: int = 0,
    valid: float = 0.1,
    test: float = 0.1,
    min_history: int | None = None,
) -> Split:
    """Divide a log.

    Every interaction goes to exactly one part. Where a log holds a pair of user and item more than once, a target may
    also be in train and then cannot be found by a ranking that leaves out what was seen: the notes say how many.

    Args:
        log: the log.
        how: one of `HOWS`; see the module.
        seed: of `leave-random-out` and `ratio`.
        valid: share of `ratio` (of each user's interactions, rounded to the nearest, halves up) and `time` (of the
            log), in [0, 1).
        test: the same, in (0, 1).
        min_history: users with fewer interactions keep all of them in train; 3 when None. Not for `given` and `time`.

    Raises:
        UnknownName: no such `how`.
        UsageError: shares outside their range, `min_history` below 3 or where it has no meaning.
        DataError: `given` without a split column, `time` without times, or no test interaction comes out.
    """
    seed = rng.check_seed(seed)
    if how not in HOWS:
        raise UnknownName("split", how, HOWS)
    if not 0 <= valid < 1 or not 0 < test < 1 or valid + test >= 1:
        allowed = "0 <= valid, 0 < test, valid + test < 1"
        raise UsageError(
            problem("The shares of a split must leave something to train on", (valid, test), allowed=allowed)
        )
    if min_history is not None and how in ("given", "time"):
        raise UsageError(problem(f"The split {how!r} takes no min_history", min_history, remedy="Leave it out"))
    least = _MIN_HISTORY if min_history is None else min_history
    if least < _MIN_HISTORY:
        remedy = "A user needs one interaction for each of train, valid and test"
        raise UsageError(problem("min_history must be at least 3", least, remedy=remedy))
    ways: dict[str, Callable[[], tuple[NDArray[np.int8], list[str]]]] = {
        "given": lambda: _given(log),
        "leave-last-out": lambda: _leave_out(log, log.in_time(), least, _order_note(log)),
        "leave-random-out": lambda: _leave_out(log, _shuffled(log, seed, "leave-random-out"), least, []),
        "ratio": lambda: _ratio(log, _shuffled(log, seed, "ratio"), least, valid, test),
        "time": lambda: _time(log, valid, test),
    }
    part, notes = ways[how]()  # (n,) int8
    if how != "given" and log.split is not None:
        notes = ["The split that the log itself gives is ignored; split(log, 'given') takes it", *notes]
    return _assembled(log, part, how, seed, notes)


def _given(log: Interactions) -> tuple[NDArray[np.int8], list[str]]:
    if log.split is None:
        remedy = f"Name the column: {naming({'split': None})}, or choose another split"
        raise DataError(problem("The log has no split column, so its split cannot be 'given'", remedy=remedy))
    return log.split, []


def _leave_out(
    log: Interactions, order: NDArray[np.int64], least: int, notes: list[str]
) -> tuple[NDArray[np.int8], list[str]]:
    """`order` (n,) groups the rows by user, the test row last and the valid row before it."""
    count = np.bincount(log.user, minlength=log.n_users)  # (U,)
    end = np.cumsum(count)
    enough = count >= least
    part = np.zeros(len(log), np.int8)
    part[order[end[enough] - 1]] = _TEST
    part[order[end[enough] - 2]] = _VALID
    return part, [*notes, *_too_few(count, least)]


def _ratio(
    log: Interactions, order: NDArray[np.int64], least: int, valid: float, test: float
) -> tuple[NDArray[np.int8], list[str]]:
    count = np.bincount(log.user, minlength=log.n_users)  # (U,)
    n_test, n_valid = (np.floor(count * share + 0.5).astype(np.int64) for share in (test, valid))  # (U,) halves up
    n_valid -= np.clip(n_test + n_valid - (count - 1), 0, n_valid)  # one interaction stays in train
    n_test -= np.clip(n_test + n_valid - (count - 1), 0, n_test)
    n_test[count < least] = n_valid[count < least] = 0
    user = log.user[order]
    back = np.cumsum(count)[user] - np.arange(len(log))  # (n,) 1 = the last of its user
    part = np.zeros(len(log), np.int8)
    part[order[back <= (n_test + n_valid)[user]]] = _VALID
    part[order[back <= n_test[user]]] = _TEST
    none = int(((n_test == 0) & (count >= least)).sum())
    notes = _too_few(count, least)
    if none:
        notes.append(f"{none:,} users have too few interactions for a share of {test:g}: no test interaction")
    return part, notes


def _time(log: Interactions, valid: float, test: float) -> tuple[NDArray[np.int8], list[str]]:
    if log.timestamp is None:
        said = naming({"timestamp": None})
        remedy = f"Name the column: {said}, or use leave-last-out, which then goes by the log's order"
        raise DataError(problem("The log has no times to split by", remedy=remedy))
    order = np.argsort(log.timestamp, kind="stable")
    n_test = round(len(log) * test)
    n_valid = round(len(log) * valid)
    part = np.zeros(len(log), np.int8)
    part[order[len(log) - n_test - n_valid :]] = _VALID
    part[order[len(log) - n_test :]] = _TEST
    return part, []


def _assembled(log: Interactions, part: NDArray[np.int8], how: str, seed: int, notes: list[str]) -> Split:
    kept = replace(log.take(np.flatnonzero(part == _TRAIN)), split=None)
    if not len(kept):
        raise DataError(problem(f"The split {how!r} leaves nothing to train on", remedy="Give a longer log"))
    train = kept.csr()
    valid, test = (_pairs(log, part == code) for code in (_VALID, _TEST))
    if not len(test):
        remedy = "Give a longer log, or a split that holds something out of this one"
        raise DataError(problem(f"The split {how!r} leaves nothing for the test", log.describe(), remedy=remedy))
    seen = train.union(valid)
    for name, targets, before in (("valid", valid, train), ("test", test, seen)):
        notes += _overlap(name, targets, before) + _cold(name, targets, train)
    notes = [f"Split {how}: train {len(kept):,}, valid {len(valid):,}, test {len(test):,}", *notes]
    given = replace(kept, notes=(*log.notes, *notes))
    return Split(
        train=given,
        valid=HeldOut("valid", log.users, log.items, valid, train, given.histories),
        test=HeldOut("test", log.users, log.items, test, seen, partial(_before, log, part)),
        how=how,
        seed=seed,
        notes=tuple(notes),
    )


def _pairs(log: Interactions, here: NDArray[np.bool_]) -> Csr:
    return Csr.from_pairs(log.user[here], log.item[here], log.n_users, log.n_items)


def _before(log: Interactions, part: NDArray[np.int8]) -> Histories:
    """What is known when the test is asked: everything but the test."""
    return Histories.of(log.take(np.flatnonzero(part != _TEST)))


def _shuffled(log: Interactions, seed: int, purpose: str) -> NDArray[np.int64]:
    """(n,) rows grouped by user, each group in random order."""
    drawn = rng.bits(rng.key(seed, f"split {purpose}"), np.arange(len(log), dtype=np.int64), 1)[:, 0]
    return np.lexsort((drawn, log.user))


def _order_note(log: Interactions) -> list[str]:
    return [] if log.timestamp is not None else ["The log has no times: last means last in the order of the log"]


def _too_few(count: NDArray[np.int64], least: int) -> list[str]:
    few = int(((count > 0) & (count < least)).sum())
    return [f"{few:,} users with fewer than {least} interactions keep all of them in train"] if few else []


def _overlap(name: str, targets: Csr, before: Csr) -> list[str]:
    twice = int(np.isin(targets.keys, before.keys, assume_unique=True).sum())
    if not twice:
        return []
    remedy = "a ranking that leaves out what was seen cannot find them; deduplicated() keeps one of each pair"
    return [f"{twice:,} {name} pairs also occur earlier: {remedy}"]


def _cold(name: str, targets: Csr, train: Csr) -> list[str]:
    warm = np.zeros(train.n_columns, np.bool_)
    warm[train.indices] = True
    cold = int((~warm[targets.indices]).sum())
    return [f"{cold:,} {name} targets are items that never occur in train"] if cold else []
