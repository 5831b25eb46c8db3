"""What an entity that was never trained begins with: its neighbours of one hop and of two. Lee et al., CCD, KDD 2024.

With R the block's training interactions, for a user u nobody trained (items likewise, R transposed):

    e1(u) = mean of E_I[i] over trained items i that u touched
    B(u)  = the n most active (by training interactions of the block) among trained users who share an item with u,
            filled up to n with the most active trained users of all
    e2(u) = mean of E_U[v] over v in B(u),      e(u) = (e1(u) + e2(u)) / 2

Only the n most active users of each item are looked at, which is exact: whoever is not among them is outranked by n
others who share that very item with u. So the cost is that of the newcomers' own interactions, times n.

`serve.foldin` answers between updates by the same formula: for a handful of people, without looking at the whole block.

Letters: U users, I items, d dims, m newcomers, n neighbours, p pairs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from recdistill import rng
from recdistill.data.csr import Csr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.continual.learning import Run
    from recdistill.continual.settings import Initial
    from recdistill.continual.snapshot import Snapshot
    from recdistill.data.blocks import Block

__all__ = ["begun", "initialised", "prominent"]

_PAIRS = 1 << 22
"""Candidates at a time."""
_TABLES = {"mf": ("user", "item"), "lightgcn": ("user", "item"), "vae": (None, "decoder")}
_MORE = {"vae": ("encoder", "decoder_bias")}


def begun(block: Block, train: Csr, before: Snapshot, how: Initial, run: Run) -> Snapshot:
    """A model of before with rows for everybody of a block, newcomers initialised."""
    grown = before.grown(train, seed=rng.key(run.seed, "growth", block.index))
    return initialised(grown, train, how, old=(block.old_users, block.old_items))


def initialised(grown: Snapshot, train: Csr, how: Initial, *, old: tuple[int, int]) -> Snapshot:
    """A grown snapshot with vectors for its newcomers; nothing else changes.

    Args:
        grown: has rows for all of `train`, see `Snapshot.grown`.
        train: U x I, the block's training interactions.
        how: hops, neighbours and what is done where there are none.
        old: how many users and items were known before the block: no newcomers where `how.who` is "newest".
    """
    if how.hops == "none":
        return grown
    met = [grown.met_users, grown.met_items]
    if how.who == "newest":
        met = [m | (np.arange(len(m)) < n) for m, n in zip(met, old, strict=True)]  # m: by an update inside the block
    names = _TABLES[grown.spec.name]
    weights = dict(grown.weights)
    rows = (train, train.transposed())
    for side, name in enumerate(names):
        newcomers = np.flatnonzero(~met[side])
        if name is None or not len(newcomers):
            continue
        other = names[1 - side]
        one = None if other is None else (np.asarray(grown.weights[other]), met[1 - side])
        most = (
            prominent(rows[side], rows[1 - side], newcomers, met[side], how.neighbours) if how.hops == "two" else None
        )
        for table in (name, *_MORE.get(grown.spec.name, ())):
            own = np.asarray(grown.weights[table])
            found, told = _vectors(rows[side].select(newcomers), own, one, most, zero=how.missing == "zero")
            now = own.copy()
            now[newcomers[told]] = found[told]
            weights[table] = now
    return replace(grown, weights=weights)


def prominent(
    rows: Csr, columns: Csr, newcomers: NDArray[np.int64], met: NDArray[np.bool_], n: int
) -> NDArray[np.int64]:
    """The most active trained entities two hops away, filled up with the most active of all.

    Args:
        rows: U x I of the entities' own side.
        columns: I x U, the same transposed.
        newcomers: (m,) rows asked.
        met: (U,) who was trained.
        n: how many.

    Returns:
        (m, n) rows, most active first, equals by smaller row, those two hops away before the filler; -1 past the end.
    """
    active = rows.degrees
    order = np.lexsort((np.arange(len(active)), -active))
    place = np.empty(len(active), np.int64)  # (U,) 0 = the most active
    place[order] = np.arange(len(active))
    top = order[met[order]][:n]
    # the n most active trained users of each item
    owner = np.repeat(np.arange(columns.n_rows), columns.degrees)
    there = met[columns.indices]
    owner, who = owner[there], columns.indices[there].astype(np.int64)
    by = np.lexsort((place[who], owner))
    owner, who = owner[by], who[by]
    begin = np.searchsorted(owner, np.arange(columns.n_rows + 1))
    first = np.arange(len(owner)) - begin[owner] < n
    short = Csr(
        np.concatenate([[0], np.cumsum(np.bincount(owner[first], minlength=columns.n_rows))]),
        who[first].astype(np.int32),
        columns.n_columns,
    )
    out = np.full((len(newcomers), n), -1, np.int64)
    size = max(1, _PAIRS // max(n, 1))
    degrees = np.cumsum(rows.degrees[newcomers] + 1)  # 1 for those who fill up
    starts = [0]
    while starts[-1] < len(newcomers):  # chunks of newcomers by the pairs that they lead to
        spent = degrees[starts[-1] - 1] if starts[-1] else 0
        starts.append(max(starts[-1] + 1, int(np.searchsorted(degrees, spent + size, side="right"))))
    for a, b in pairwise(starts):
        mine = rows.select(newcomers[a:b])
        asked = np.repeat(np.arange(mine.n_rows), mine.degrees)
        reached = short.select(mine.indices.astype(np.int64))
        asker = np.concatenate([np.repeat(asked, reached.degrees), np.repeat(np.arange(mine.n_rows), len(top))])
        found = np.concatenate([reached.indices.astype(np.int64), np.tile(top, mine.n_rows)])
        tier = np.concatenate([np.zeros(len(reached), np.int64), np.ones(mine.n_rows * len(top), np.int64)])
        rank = tier * len(active) + place[found]
        key = np.lexsort((rank, found, asker))  # each asker's candidates, the better tier first
        first_of = np.append(True, (asker[key][1:] != asker[key][:-1]) | (found[key][1:] != found[key][:-1]))
        key = key[first_of[: len(key)]]
        key = key[np.lexsort((rank[key], asker[key]))]
        begin = np.searchsorted(asker[key], np.arange(mine.n_rows))
        at = np.arange(len(key)) - begin[asker[key]]
        keep = at < n
        out[a + asker[key][keep], at[keep]] = found[key][keep]
    return out


def _vectors(
    mine: Csr,
    own: NDArray[np.float32],
    other: tuple[NDArray[np.float32], NDArray[np.bool_]] | None,
    most: NDArray[np.int64] | None,
    *,
    zero: bool,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(m, ...) vectors of newcomers, and (m,) whether there was anything to go by."""
    parts: list[NDArray[np.float32]] = []
    there: list[NDArray[np.bool_]] = []
    if other is not None:
        table, met = other
        asked = np.repeat(np.arange(mine.n_rows), mine.degrees)
        old = met[mine.indices]
        count = np.bincount(asked[old], minlength=mine.n_rows)
        total = np.zeros((mine.n_rows, table.shape[1]), np.float64)
        np.add.at(total, asked[old], table[mine.indices[old]])
        parts.append((total / np.maximum(count, 1)[:, None]).astype(np.float32))
        there.append(count > 0)
    if most is not None:
        count = (most >= 0).sum(1)
        wide = (slice(None), slice(None), *([None] * (own.ndim - 1)))
        total = np.zeros((len(most), *own.shape[1:]), own.dtype)
        size = max(1, _PAIRS // max(own[:1].size * most.shape[1], 1))
        for at in range(0, len(most), size):  # (c, n, d) at a time
            some = most[at : at + size]
            total[at : at + size] = np.where((some >= 0)[wide], own[np.maximum(some, 0)], 0).sum(1)
        parts.append((total / np.maximum(count, 1).reshape(-1, *([1] * (own.ndim - 1)))).astype(np.float32))
        there.append(count > 0)
    known: NDArray[np.bool_] = np.stack(there)  # (1 or 2, m)
    among = np.full(known.shape[1], len(parts)) if zero else np.maximum(known.sum(0), 1)
    mean = np.sum(parts, axis=0) / among.reshape(-1, *([1] * (own.ndim - 1)))
    told = np.ones(len(mean), np.bool_) if zero else np.asarray(known.any(0))
    return mean.astype(np.float32), told
