"""A stream in blocks: what each brings to learn from, what it holds out, and how many entities are known by then.

Ids only grow: rows are handed out in the order in which users and items appear, so a table of an older block is the
head of a younger one, and "new in block k" is `U_{k-1} <= row < U_k`. Lee et al., CCD, KDD 2024, arXiv:2405.19046.

Letters: K blocks after the base block, U_k and I_k users and items known by the end of block k, n interactions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from recdistill import rng
from recdistill.data.csr import Csr
from recdistill.data.interactions import HeldOut, Interactions
from recdistill.errors import DataError, UsageError, problem
from recdistill.ids import IdTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["OFFICIAL", "Block", "blocks", "cleaned", "halves", "held_out", "official", "widened"]

_SPLITS = ("train", "valid", "test")

OFFICIAL: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "ccd_gowalla": ((19668, 21266, 24107, 26840, 29106, 29858), (39354, 39809, 40381, 40689, 40908, 40988)),
    "ccd_yelp": ((12248, 13367, 13896, 14399, 14761, 14950), (10822, 11345, 11634, 11970, 12197, 12261)),
}
"""U_k and I_k of the published blocks. They are a little above the greatest id that a block still holds, because ids
were handed out before each block's interactions were filtered."""


@dataclass(frozen=True, eq=False)
class Block:
    """One slice of a stream. Its tables have a row for everybody known by its end, whether active in it or not."""

    index: int
    """0 is the base block."""
    train: Interactions
    """U_k users and I_k items."""
    valid: HeldOut
    """Chooses epochs; a ranking leaves out this block's training and test items."""
    test: HeldOut
    """A ranking leaves out this block's training and validation items; items of older blocks stay rankable."""
    old_users: int
    """U_{k-1}: how many users were known before; 0 of the base block."""
    old_items: int
    """I_{k-1}."""

    @property
    def n_users(self) -> int:
        """U_k."""
        return self.train.n_users

    @property
    def n_items(self) -> int:
        """I_k."""
        return self.train.n_items

    def __repr__(self) -> str:
        new = f"{self.n_users - self.old_users:,} new users, {self.n_items - self.old_items:,} new items"
        return f"Block({self.index}: {len(self.train):,} to learn from, {len(self.test):,} to find, {new})"


def blocks(
    log: Interactions,
    block: NDArray[np.integer],
    *,
    users: Sequence[int] | None = None,
    items: Sequence[int] | None = None,
) -> tuple[Block, ...]:
    """Cut a log whose interactions say which block and which part they belong to.

    Args:
        log: rows in order of appearance (`in_order` of the stream); its `split` says train, valid or test.
        block: (n,) the block of each interaction, 0 and up, none left out.
        users: U_k for each block, ascending; counted from the greatest row that occurs when None.
        items: I_k likewise.

    Raises:
        DataError: the log has no split, a block is empty, or a block holds a row that is not yet known in it.
        UsageError: `users` or `items` has another length than there are blocks.
    """
    if log.split is None:
        raise DataError(problem("The blocks of a log need to know what is held out", remedy="Give a column 'split'"))
    number = np.asarray(block, np.int64)
    count = int(number.max(initial=-1)) + 1
    sizes = [_sizes(rows, number, count, given) for rows, given in ((log.user, users), (log.item, items))]
    out: list[Block] = []
    for k in range(count):
        here = np.flatnonzero(number == k)
        if not len(here):
            raise DataError(problem(f"Block {k} of the stream is empty", remedy="Number the blocks without a gap"))
        known = [int(size[k]) for size in sizes]
        out.append(
            _block(
                k,
                (_head(log.users, known[0]), _head(log.items, known[1])),
                *(_rows(log, here[log.split[here] == part], known, k) for part in range(3)),
                old=(0, 0) if k == 0 else (int(sizes[0][k - 1]), int(sizes[1][k - 1])),
            )
        )
    return tuple(out)


def official(folder: Path, *, clean: bool = False) -> tuple[Block, ...]:
    """The published blocks of `ccd_gowalla` or `ccd_yelp`, as converted: `interactions.parquet` with `block`, `split`.

    Args:
        folder: of the data; its name chooses the published sizes, any other name has them counted.
        clean: without the repeats that leak, see `cleaned`.

    Raises:
        DataError: there is no such file, or a column is missing.
    """
    import polars as pl  # noqa: PLC0415 - only where a file is read

    path = folder / "interactions.parquet"
    if not path.is_file():
        remedy = "Give the folder that holds it, or set RECDISTILL_DATA"
        raise DataError(problem(f"There is no interactions.parquet in {folder}", remedy=remedy))
    table = pl.read_parquet(path)
    needed = ("user_id", "item_id", "block", "split")
    if missing := [name for name in needed if name not in table.columns]:
        raise DataError(problem(f"The blocks in {path} have no column", missing, allowed=needed))
    user, item, block = (table[name].to_numpy().astype(np.int64) for name in needed[:3])
    part = (
        table["split"].cast(pl.String).replace_strict(dict(zip(_SPLITS, range(3), strict=True)), return_dtype=pl.Int8)
    )
    users, items = OFFICIAL.get(folder.name, (None, None))
    n_users, n_items = (
        max(int(rows.max(initial=-1)) + 1, *(sizes or (0,))) for rows, sizes in ((user, users), (item, items))
    )
    log = Interactions(
        IdTable.from_ids(np.arange(n_users)),
        IdTable.from_ids(np.arange(n_items)),
        user.astype(np.int32),
        item.astype(np.int32),
        split=part.to_numpy().astype(np.int8),
    )
    found = blocks(log, block, users=users, items=items)
    return cleaned(found) if clean else found


def cleaned(stream: Sequence[Block]) -> tuple[Block, ...]:
    """Without the repeats that make a held-out item unfindable or known.

    A pair counts once: a repeat inside a block's training part goes, and so does a held-out pair that the user already
    has in training, in the other held-out part (validation goes first), or in an earlier block in any part.
    """
    out: list[Block] = []
    before: NDArray[np.int64] = np.zeros(0, np.int64)  # ascending `user << 32 | item` of all that went before
    for block in stream:
        train = block.train.csr()
        user, item = _pairs(train)
        parts = [_pairs(held.targets) for held in (block.test, block.valid)]
        taken = np.union1d(before, _joined(user, item))
        kept: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for pair in parts:  # the test keeps what both held out
            new = ~np.isin(_joined(*pair), taken)
            kept.append((pair[0][new], pair[1][new]))
            taken = np.union1d(taken, _joined(*pair))
        first = np.flatnonzero(~np.isin(_joined(user, item), before))
        before = taken
        tables, old = (block.train.users, block.train.items), (block.old_users, block.old_items)
        out.append(_block(block.index, tables, (user[first], item[first]), kept[1], kept[0], old=old))
    return tuple(out)


def held_out(
    log: Interactions, *, how: Literal["random", "last"] = "random", share: float = 0.1, seed: int = 0
) -> NDArray[np.int8]:
    """(n,) which part of a block each interaction goes to: 0 train, 1 valid, 2 test.

    Of a user's n interactions `q = max(floor(share n), 1)` are the test and the next q validation, so that one
    interaction is a test and nothing else (official code). Then what nobody has in training leaves validation and test
    (as -1), and a user for whom either becomes empty leaves both.

    Args:
        log: one block's interactions.
        how: "random" as published; "last" holds out each user's last interactions, so that no future leaks.
        share: of each held-out part, in (0, 0.5].
        seed: of "random".

    Returns:
        (n,) with -1 for what is left out.
    """
    if not 0 < share <= 0.5:
        raise UsageError(problem("The share that a block holds out must be in (0, 0.5]", share))
    n = len(log)
    if how == "last":
        order = log.in_time()[::-1]
        order = order[np.argsort(log.user[order], kind="stable")]
    else:
        chance = rng.bits(rng.key(seed, "held out"), np.arange(n, dtype=np.int64), 1)[:, 0]
        order = np.lexsort((chance, log.user))
    degrees = np.bincount(log.user, minlength=log.n_users)
    place = np.arange(n) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    each = np.maximum((share * degrees + 1e-9).astype(np.int64), 1)[log.user[order]]
    part = np.empty(n, np.int8)
    part[order] = np.where(place < each, 2, np.where(place < 2 * each, 1, 0))
    known = np.zeros(log.n_items, np.bool_)
    known[log.item[part == 0]] = True
    part[(part > 0) & ~known[log.item]] = -1
    both = np.ones(log.n_users, np.bool_)
    for held in (1, 2):
        both &= np.bincount(log.user[part == held], minlength=log.n_users) > 0
    part[(part > 0) & ~both[log.user]] = -1
    return part


def halves(block: Block, n: int, *, seed: int = 0) -> tuple[Interactions, ...]:
    """A block's training interactions in n consecutive parts, for n student updates inside it.

    In the order of time; in a random order where the log has no times, as the published files lost theirs.

    Raises:
        UsageError: n is under 1, or above the number of interactions.
    """
    size = len(block.train)
    if not 1 <= n <= size:
        raise UsageError(problem("A block has at least one and at most as many updates as interactions", n))
    times = block.train.timestamp
    order = (
        rng.permutation(rng.key(seed, "parts", block.index), size)
        if times is None
        else np.argsort(times, kind="stable")
    )
    if n == 1:
        return (block.train,)
    return tuple(block.train.take(np.sort(part)) for part in np.array_split(order, n))


def widened(held: HeldOut, users: IdTable, items: IdTable) -> HeldOut:
    """Held-out data of an older block for a model that has learned since: all of its items are candidates.

    Raises:
        UsageError: the tables are smaller than those of `held`.
    """
    n_users, n_items = len(users), len(items)
    if n_users < held.targets.n_rows or n_items < held.targets.n_columns:
        sizes = (n_users, n_items)
        raise UsageError(
            problem(
                "Held-out data grows and does not shrink",
                sizes,
                allowed=f"at least {held.targets.n_rows} users and {held.targets.n_columns} items",
            )
        )
    return replace(
        held,
        users=users,
        items=items,
        targets=held.targets.widened(n_users, n_items),
        seen=held.seen.widened(n_users, n_items),
    )


def _block(
    index: int,
    tables: tuple[IdTable, IdTable],
    train: tuple[NDArray[np.int64], NDArray[np.int64]],
    valid: tuple[NDArray[np.int64], NDArray[np.int64]],
    test: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    old: tuple[int, int],
) -> Block:
    users, items = tables
    size = (len(users), len(items))
    of = [Csr.from_pairs(*pairs, *size) for pairs in (train, valid, test)]
    log = Interactions(users, items, train[0].astype(np.int32), train[1].astype(np.int32))
    return Block(
        index,
        log,
        HeldOut("valid", users, items, of[1], of[0].union(of[2])),
        HeldOut("test", users, items, of[2], of[0].union(of[1])),
        *old,
    )


def _sizes(
    rows: NDArray[np.int32], number: NDArray[np.int64], count: int, given: Sequence[int] | None
) -> NDArray[np.int64]:
    """(K + 1,) how many rows are known by the end of each block."""
    if given is not None:
        if len(given) != count:
            raise UsageError(problem(f"A stream of {count} blocks needs as many sizes", len(given)))
        return np.asarray(given, np.int64)
    most = np.full(count, -1, np.int64)
    np.maximum.at(most, number, rows)
    return np.maximum.accumulate(most) + 1


def _rows(
    log: Interactions, here: NDArray[np.int64], known: list[int], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    user, item = log.user[here].astype(np.int64), log.item[here].astype(np.int64)
    for name, rows, size in (("user", user, known[0]), ("item", item, known[1])):
        if len(rows) and int(rows.max()) >= size:
            remedy = "Number users and items in the order in which they first appear"
            raise DataError(
                problem(f"Block {k} holds a {name} that is not known in it", int(rows.max()), remedy=remedy)
            )
    return user, item


def _head(table: IdTable, n: int) -> IdTable:
    return table if n == len(table) else IdTable.from_ids(table.external(np.arange(n)))


def _pairs(csr: Csr) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.repeat(np.arange(csr.n_rows), csr.degrees), csr.indices.astype(np.int64)


def _joined(user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.int64]:
    return (user << 32) | item
