"""COLLECT: a closed block as arrays, divided once and for all into what is learned from and what is held out.

Of each user the last pairs of the block are held out, by time: a random split would leak the future. Only some users
are held out (`holdout_users`), so that most of what is new is learned from. A pair is on one side for
ever: one that an earlier block holds out for test is not learned from when it comes again, and one that came before is
held out of nothing.

Letters: n events, U users, I items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recdistill import rng
from recdistill.ledger.objects import Personal
from recdistill.stream.protocol import BlockData, Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from recdistill.data.csr import Csr
    from recdistill.ledger import Block, Stored
    from recdistill.ledger.segments import Rows
    from recdistill.stream.settings import BlockSettings

__all__ = ["block_data", "collected", "frozen", "joined", "relearned"]

_LEAST = 3  # pairs of a user that is held out: one for each part
_PARTS = ("train", "valid", "test")


def collected(
    block: Block, before: Block | None, rows: Rows, settings: BlockSettings, *, known: Csr, held: Csr, seed: int
) -> Output:
    """The arrays of a block: `<part>_user`, `<part>_item` for train, valid and test; of train, times and weights too.

    Args:
        block: the closed block.
        before: the one before it.
        rows: its events.
        settings: the shares.
        known: U x I, the pairs of all events before it that are kept.
        held: U x I, the test pairs of all blocks before it.
        seed: of the choice of users.
    """
    order = np.arange(len(rows)) if rows.timestamp is None else np.lexsort((rows.number, rows.timestamp))
    pair = rows.user[order].astype(np.int64) * block.items + rows.item[order]
    _, last = np.unique(pair[::-1], return_index=True)  # of repeats the last one counts
    order = order[np.sort(len(order) - 1 - last)]
    user, item = rows.user[order].astype(np.int64), rows.item[order].astype(np.int64)
    part = np.where(held.contains(user, item), -1, 0).astype(np.int8)
    new = np.flatnonzero((part == 0) & ~known.contains(user, item))
    part[new] = _parts(rows.user[order[new]], block, settings, seed)
    arrays: dict[str, NDArray[Any]] = {}
    for code, name in enumerate(_PARTS):
        mine = order[part == code]
        arrays[f"{name}_user"], arrays[f"{name}_item"] = rows.user[mine], rows.item[mine]
        if name == "train" and rows.timestamp is not None:
            arrays["train_timestamp"] = rows.timestamp[mine]
        if name == "train" and rows.weight is not None:
            arrays["train_weight"] = rows.weight[mine]
    groups = tuple(tuple(name for name in arrays if name.startswith(part)) for part in _PARTS)
    measured = {
        "number": block.number,
        "first": block.first,
        "last": block.last,
        "events": len(rows),
        "pairs": len(order),
        **{name: len(arrays[f"{name}_user"]) for name in _PARTS},
        "left_out": int((part < 0).sum()),
        "n_users": block.users,
        "n_items": block.items,
        "old_users": 0 if before is None else before.users,
        "old_items": 0 if before is None else before.items,
        "low": None if rows.timestamp is None or not len(rows) else int(rows.timestamp.min()),
        "high": None if rows.timestamp is None or not len(rows) else int(rows.timestamp.max()),
        "late": block.late,
        "why": block.why,
    }
    return Output(arrays, Personal(records=groups), measured)


def frozen(block: Stored) -> Output:
    """The holdout of a block: its test pairs, and of the same users what a ranking leaves out (train and valid)."""
    a, m = block.arrays, block.measured
    held = np.zeros(m["n_users"], np.bool_)
    held[a["test_user"]] = True
    user = np.concatenate([a["train_user"], a["valid_user"]])
    item = np.concatenate([a["train_item"], a["valid_item"]])
    mine = held[user]
    arrays = {
        "test_user": a["test_user"],
        "test_item": a["test_item"],
        "seen_user": user[mine],
        "seen_item": item[mine],
    }
    personal = Personal(records=(("test_user", "test_item"), ("seen_user", "seen_item")))
    return Output(arrays, personal, {name: m[name] for name in ("number", "old_users", "n_users", "n_items")})


def relearned(block: Block, before: Block | None, rows: Rows, held: Csr) -> BlockData:
    """An old block again, from its events: all its pairs but those of any holdout; for a retrain from scratch."""
    keep = np.flatnonzero(~held.contains(rows.user.astype(np.int64), rows.item.astype(np.int64)))
    none = np.zeros(0, np.int32)
    whole = BlockData(
        block.number,
        block.users,
        block.items,
        0 if before is None else before.users,
        0 if before is None else before.items,
        rows.user[keep],
        rows.item[keep],
        None if rows.timestamp is None else rows.timestamp[keep],
        None if rows.weight is None else rows.weight[keep],
        none,
        none,
    )
    return joined([whole])


def block_data(stored: Stored) -> BlockData:
    """What stages may see of a collected block; copies, because torch warns of arrays that cannot be written."""
    a, m = {name: array.copy() for name, array in stored.arrays.items()}, stored.measured
    return BlockData(
        m["number"],
        m["n_users"],
        m["n_items"],
        m["old_users"],
        m["old_items"],
        a["train_user"],
        a["train_item"],
        a.get("train_timestamp"),
        a.get("train_weight"),
        a["valid_user"],
        a["valid_item"],
    )


def joined(blocks: Sequence[BlockData]) -> BlockData:
    """Several blocks as one: their pairs one after the other, the sizes of the newest, what is old by the oldest."""
    newest, oldest = blocks[-1], blocks[0]
    pair = np.concatenate([b.user.astype(np.int64) * newest.n_items + b.item for b in blocks])
    _, last = np.unique(pair[::-1], return_index=True)
    keep = np.sort(len(pair) - 1 - last)

    def column(name: str) -> NDArray[Any] | None:
        parts = [getattr(b, name) for b in blocks]
        return None if any(part is None for part in parts) else np.concatenate(parts)[keep]

    return BlockData(
        newest.number,
        newest.n_users,
        newest.n_items,
        oldest.old_users,
        oldest.old_items,
        np.concatenate([b.user for b in blocks])[keep],
        np.concatenate([b.item for b in blocks])[keep],
        column("timestamp"),
        column("weight"),
        newest.valid_user,
        newest.valid_item,
    )


def _parts(user: NDArray[np.int32], block: Block, settings: BlockSettings, seed: int) -> NDArray[np.int8]:
    """(n,) user rows by time -> (n,) 0 train, 1 valid, 2 test."""
    count = np.bincount(user, minlength=block.users)  # (U,)
    chosen = _chosen(np.flatnonzero(count >= _LEAST), settings.holdout_users, rng.key(seed, "holdout", block.number))
    held = np.zeros(block.users, np.int64)
    held[chosen] = np.maximum((settings.held_out * count[chosen]).astype(np.int64), 1)
    order = np.argsort(user, kind="stable")
    ends = np.cumsum(count)
    back = np.empty(len(user), np.int64)  # how many pairs of the same user follow
    back[order] = np.repeat(ends, count) - 1 - np.arange(len(user))
    quota = held[user]
    return np.where(back < quota, 2, np.where(back < 2 * quota, 1, 0)).astype(np.int8)


def _chosen(users: NDArray[np.int64], most: int, key: int) -> NDArray[np.int64]:
    if len(users) <= most:
        return users
    order = np.argsort(rng.bits(key, users, 1)[:, 0], kind="stable")
    return users[order[:most]]
