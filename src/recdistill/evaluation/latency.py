"""How fast a ranker answers on this machine: one user at a time, and whole tables.

Letters: Q queries, K list.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import UsageError, problem
from recdistill.evaluation.blocks import BlockRanker
from recdistill.evaluation.encoded import EncodedRanker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.evaluation.ranking import Ranker

__all__ = ["Latency", "measure"]


@dataclass(frozen=True, slots=True)
class Latency:
    """What was measured; times are wall clock."""

    p50_ms: float
    """Median time of one user's list, in milliseconds, in one thread."""
    p95_ms: float
    p99_ms: float
    users_per_second: float
    """Of lists for whole tables of users, with `threads` threads."""
    k: int
    """How long the lists are."""
    threads: int
    """Of the tables; one user is always answered by one thread. A foreign ranker is taken to use one."""
    n_users_timed: int
    """How many single answers the percentiles are of."""


def measure(
    ranker: Ranker,
    k: int = 10,
    *,
    exclude: Csr | None = None,
    users: NDArray[np.int64] | None = None,
    n_users: int = 1000,
    batch: int = 4096,
    seconds: float = 2.0,
    seed: int = 0,
) -> Latency:
    """Time `ranker.top_k` for one user at a time, then for a table of users.

    The first answers build buffers and load pages; they are not timed. Each part stops after `seconds`, so a slow
    ranker is timed on fewer users; how many is kept.

    Args:
        ranker: what is timed; one that reads histories as its bundle serves it, the vectors of users ready.
        k: how many items a list has.
        exclude: what lists leave out, as in serving.
        users: (Q,) user rows to choose from; None = all.
        n_users: how many single answers to time at most.
        batch: how many users a table has at most.
        seconds: wall clock that each of the two parts may take; at least ten answers and one table are timed.
        seed: of the choice of users.

    Raises:
        UsageError: there is no user to time, or a size is less than 1.
    """
    if min(k, n_users, batch) < 1:
        raise UsageError(problem("`k`, `n_users` and `batch` must be at least 1", (k, n_users, batch)))
    pool = np.arange(ranker.n_users, dtype=np.int64) if users is None else np.asarray(users, np.int64)
    if len(pool) == 0:
        raise UsageError(problem("There is no user to time", remedy="Pass `users`, or a ranker that has some"))
    if isinstance(ranker, EncodedRanker):
        ranker = ranker.settled()
    chosen = np.random.default_rng(seed).choice(pool, max(n_users, batch))
    single = _singles(ranker, k, exclude, chosen[:n_users], seconds)
    p50, p95, p99 = np.percentile(single, [50, 95, 99]).tolist()
    table = chosen[:batch]
    ranker.top_k(table[: max(batch // 8, 1)], k, exclude)
    done, begin = 0, perf_counter_ns()
    while not done or perf_counter_ns() - begin < seconds * 1e9:
        ranker.top_k(table, k, exclude)
        done += len(table)
    rate = done / (perf_counter_ns() - begin) * 1e9
    threads = ranker.threads if isinstance(ranker, BlockRanker) else 1
    return Latency(p50, p95, p99, rate, k, threads, len(single))


def _singles(
    ranker: Ranker, k: int, exclude: Csr | None, users: NDArray[np.int64], seconds: float
) -> NDArray[np.float64]:
    """(<= Q,) milliseconds of single answers. One user is one block: never split."""
    for place in range(min(len(users), 10)):
        ranker.top_k(users[place : place + 1], k, exclude)
    taken = np.empty(len(users), np.int64)
    limit = perf_counter_ns() + int(seconds * 1e9)
    for place in range(len(users)):
        begin = perf_counter_ns()
        ranker.top_k(users[place : place + 1], k, exclude)
        end = perf_counter_ns()
        taken[place] = end - begin
        if end > limit and place >= 9:
            return taken[: place + 1] / 1e6
    return taken / 1e6
