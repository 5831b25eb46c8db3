"""Logs that are made up: one with planted structure for demonstrations and tests, one for scale.

Letters: U users, I items, d planted dims, n interactions, u users of a block.
"""

from __future__ import annotations

import numpy as np

from recdistill import rng
from recdistill.data.interactions import Interactions
from recdistill.errors import UsageError, problem
from recdistill.ids import IdTable

__all__ = ["planted", "random_log"]

_BLOCK = 1 << 22  # scores held at a time
_START, _SPAN = 1_577_836_800, 366 * 86_400  # the year 2020, in seconds
_TASTE, _FAME = 4.0, 0.7  # standard deviations of taste and of popularity, where the noise's is pi / sqrt(6)
_LEAST = 5  # interactions of a user
_SPREAD = 0.5  # of the logarithm of a user's number of interactions


def planted(
    *,
    users: int = 1_000,
    items: int = 1_200,
    interactions: int = 40_000,
    dim: int = 24,
    seed: int = 0,
) -> Interactions:
    """A log whose users choose by taste, fame and chance.

    User u takes the items of the greatest `4 * <p_u, q_i> + 0.7 * b_i + Gumbel noise`, where p and q are random unit
    directions scaled so that the product has variance 1, and b is standard normal: draws without replacement from a
    softmax (Gumbel top-k). All d directions carry the same weight, so a model of fewer dims has to lose something:
    that is what makes distillation visible. Ids are text ("u17", "i45"), times are seconds within the year 2020, the
    log is in order of time, and no pair occurs twice. Every user has at least 5 interactions.

    Args:
        users: U, at least 1.
        items: I, at least 10.
        interactions: n, met to within rounding; between 5 and I / 2 a user.
        dim: d, at least 1.
        seed: any integer.

    Raises:
        UsageError: sizes outside these ranges.
    """
    _at_least(users=(users, 1), items=(items, 10), dim=(dim, 1))
    mean = interactions / users
    if not _LEAST <= mean <= items / 2:
        allowed = f"{_LEAST * users} to {users * items // 2} for {users} users and {items} items"
        raise UsageError(
            problem("The number of interactions does not fit users and items", interactions, allowed=allowed)
        )
    taste = _normal(rng.key(seed, "planted users"), users, dim)  # (U, d)
    kind = _normal(rng.key(seed, "planted items"), items, dim)  # (I, d)
    kind *= np.sqrt(dim) * _TASTE / np.linalg.norm(kind, axis=1, keepdims=True)
    taste /= np.linalg.norm(taste, axis=1, keepdims=True)
    fame = _FAME * _normal(rng.key(seed, "planted fame"), items, 1)[:, 0]  # (I,)
    count = _counts(users, items, mean, seed)  # (U,)
    chance = rng.key(seed, "planted choices")
    chosen: list[np.ndarray[tuple[int, ...], np.dtype[np.int32]]] = []
    step = max(1, _BLOCK // items)
    for start in range(0, users, step):
        block = np.arange(start, min(start + step, users), dtype=np.int64)
        score = taste[block] @ kind.T + fame + rng.gumbel(chance, block, items)  # (u, I)
        best = np.argsort(-score, axis=1, kind="stable")[:, : count[block].max()]
        chosen.append(best[np.arange(best.shape[1]) < count[block][:, None]].astype(np.int32))
    item = np.concatenate(chosen)  # (n,) by user, best first
    user = np.repeat(np.arange(users, dtype=np.int32), count)
    when = rng.uniform(rng.key(seed, "planted times"), np.arange(len(user), dtype=np.int64), 1)[:, 0]
    time = _START + (when.astype(np.float64) * _SPAN).astype(np.int64)
    order = np.argsort(time, kind="stable")
    log = Interactions(
        users=_named("u", users),
        items=_named("i", items),
        user=user[order],
        item=item[order],
        timestamp=time[order],
    )
    note = f"Planted log: {dim} directions of taste, seed {seed}"
    return Interactions(log.users, log.items, log.user, log.item, log.timestamp, notes=(note,))


def random_log(users: int, items: int, n: int, seed: int = 0) -> Interactions:
    """Uniform users, skewed items (item row ~ I * x**2 for uniform x), integer ids, no times: for tests of scale.

    Takes 8 bytes an interaction and a block. Pairs may repeat; users and items may have no interaction.

    Raises:
        UsageError: a size below 1.
    """
    _at_least(users=(users, 1), items=(items, 1), n=(n, 1))
    user, item = np.empty(n, np.int32), np.empty(n, np.int32)
    keys = rng.key(seed, "random users"), rng.key(seed, "random items")
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n), dtype=np.int64)
        user[rows] = rng.integers(keys[0], rows, 1, users)[:, 0]
        item[rows] = rng.integers(keys[1], rows, 1, 1 << 31)[:, 0].astype(np.float64) ** 2 * (items / 2.0**62)
    note = f"Random log, seed {seed}"
    return Interactions(
        IdTable.from_ids(np.arange(users)), IdTable.from_ids(np.arange(items)), user, item, notes=(note,)
    )


def _counts(users: int, items: int, mean: float, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(U,) how much each user takes: log-normal about the mean, at least 5, at most half of the items."""
    spread = np.exp(_SPREAD * _normal(rng.key(seed, "planted counts"), users, 1)[:, 0].astype(np.float64))
    share = spread / spread.mean() * (mean - _LEAST)
    return np.minimum(_LEAST + np.floor(share + 0.5).astype(np.int64), max(_LEAST, items // 2))


def _normal(key: int, rows: int, columns: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(rows, columns) standard normal numbers (Box and Muller, 1958)."""
    u = rng.uniform(key, np.arange(rows, dtype=np.int64), 2 * columns)
    return (np.sqrt(-2 * np.log(u[:, :columns])) * np.cos(np.float32(2 * np.pi) * u[:, columns:])).astype(np.float32)


def _named(letter: str, n: int) -> IdTable:
    return IdTable.from_ids([f"{letter}{i}" for i in range(n)])


def _at_least(**sizes: tuple[int, int]) -> None:
    for name, (value, least) in sizes.items():
        if value < least:
            raise UsageError(problem(f"{name} must be at least {least}", value))
