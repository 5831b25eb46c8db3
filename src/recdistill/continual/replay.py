"""Replay: what others remember and the model forgets, drawn for every user known before the block.

    candidates  the first A of a source's list, training items of the last two blocks left out
    weight      w(i) = exp( eps (rank_ref(i|u) - rank_source(i|u)) )        ranks from 0
    draw        n without replacement with probability ~ w                  (Gumbel top-n)
    label       y = sigmoid( score_source(u, i) )

Lee et al., CCD, KDD 2024 (official code); the rule is that of Bidirectional Distillation (Kweon et al., WWW 2021).
An item that the source ranks high and the reference low is one that was forgotten. A rank in the reference is a search
in its sorted scores, so no table of ranks exists: (chunk, I) floats are the most that is ever held.

Letters: U users, I items, A candidates, n drawn, d dims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from typing_extensions import override

from recdistill import rng
from recdistill.continual.batches import SoftBatch
from recdistill.data.csr import Csr
from recdistill.errors import UsageError, problem
from recdistill.evaluation.vectors import VectorRanker
from recdistill.knowledge.view import Kind
from recdistill.losses.soft_labels import soft_bce, soft_hinge
from recdistill.objective import Term
from recdistill.query import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.continual.settings import Replay
    from recdistill.knowledge.view import View
    from recdistill.query import Batch

__all__ = ["Memory", "Remembered", "SoftLabels", "memories", "ranks"]

_SCORES = 1 << 19
"""Scores of a reference at a time (2 MiB)."""

Vectors = tuple["NDArray[np.float32]", "NDArray[np.float32]"]
"""(U, d) and (I, d) whose inner products are scores."""


@dataclass(frozen=True, eq=False)
class Memory:
    """One source: what it lists, and how much is drawn from it."""

    users: NDArray[np.int64]
    """(m,) user rows."""
    items: NDArray[np.integer]
    """(m, A) candidates, best first, -1 past the end."""
    label: NDArray[np.float32]
    """(m, A) in [0, 1]."""
    n: int
    """Drawn a user."""


def memories(
    sources: Sequence[tuple[Vectors | None, int]],
    *,
    depth: int,
    without: Csr,
    users: int | None = None,
    among: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> list[Memory]:
    """Each source's candidates; one that is None, that knows nobody asked, or from which nothing is drawn is left out.

    Args:
        sources: vectors and how many items a user are drawn from them. A source lists items that it has, for users
            that it has.
        depth: A.
        without: U x I training items of the last two blocks.
        users: at most so many of a source's users; None = all.
        among: ascending rows of the users that count; None = all.
        seed: of their choice, which is the same for all sources of one size.
    """
    out: list[Memory] = []
    for vectors, n in sources:
        if vectors is None or n == 0:
            continue
        user, item = vectors
        some = np.arange(len(user), dtype=np.int64) if among is None else among[among < len(user)]
        if users is not None and users < len(some):
            word = rng.bits(rng.key(seed, "remembered"), some, 1)[:, 0]
            some = np.sort(some[np.argpartition(word, users)[:users]])
        if not len(some):
            continue
        inside = _within(without, len(user), len(item))
        lists = VectorRanker(user, item).top_k(some, min(depth, len(item)), inside)
        scores = _scores(user[some], item, lists)
        with np.errstate(over="ignore"):
            label = np.where(lists >= 0, 1 / (1 + np.exp(-scores)), 0).astype(np.float32)
        out.append(Memory(some, lists.astype(np.int32), label, n))
    return out


def ranks(
    reference: Vectors,
    users: NDArray[np.int64],
    items: NDArray[np.integer],
    *,
    without: Csr | None,
    among: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """(m,) users, (m, A) items -> (m, A) how many items the reference scores above each; of equals, none.

    Args:
        reference: vectors; rows beyond `without` are not there.
        users: user rows.
        items: item rows, -1 = none (rank 0).
        without: U x I, what is not counted; None counts everything.
        among: (s,) distinct item rows to count among, scaled up to all; None counts all.
    """
    if among is not None and len(among) < len(reference[1]):
        return _estimated(reference, users, items, without=without, among=among)
    user, item = reference
    out = np.zeros(items.shape, np.int64)
    size = max(1, _SCORES // max(len(item), 1))
    room = np.empty((size, len(item)), np.float32)  # a fresh one costs as much
    for at in range(0, len(users), size):
        some, asked = users[at : at + size], items[at : at + size]
        scores = np.matmul(user[some], item.T, out=room[: len(some)])  # (c, I)
        mine = np.take_along_axis(scores, np.maximum(asked, 0), 1)  # (c, A)
        if without is not None:
            rows = without.select(some)
            scores[np.repeat(np.arange(len(some)), rows.degrees), rows.indices] = -np.inf
        out[at : at + size] = _above(scores, mine, asked >= 0)
    return out


def _above(scores: NDArray[np.float32], mine: NDArray[np.float32], asked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(c, I), (c, A), (c, A) -> (c, A) how many of a row's scores are greater than each asked one.

    Only what beats a row's least asked score is sorted: a model seldom ranks low what a source ranks high.
    """
    low = np.where(asked, mine, np.inf).min(1, initial=np.inf).astype(np.float32)
    out = np.zeros(mine.shape, np.int64)
    for at, row in enumerate(scores):  # a few users rank much, so one table for all would be mostly empty
        over = np.sort(row[row > low[at]])
        out[at] = len(over) - over.searchsorted(mine[at], side="right")
    return np.where(asked, out, 0)


def _estimated(
    reference: Vectors,
    users: NDArray[np.int64],
    items: NDArray[np.integer],
    *,
    without: Csr | None,
    among: NDArray[np.int64],
) -> NDArray[np.int64]:
    """`ranks`, counted among a sample: unbiased over samples, off by I sqrt(p (1 - p) / s) at a share p above."""
    user, item = reference
    some_items = item[among]
    column = np.full(len(item), -1, np.int64)
    column[among] = np.arange(len(among))
    out = np.zeros(items.shape, np.int64)
    size = max(1, _SCORES // max(len(among), 1))
    for at in range(0, len(users), size):
        some, asked = users[at : at + size], items[at : at + size]
        mine = _scores(user[some], item, asked.astype(np.int64))  # (c, A)
        scores = user[some] @ some_items.T  # (c, s)
        share = np.full(len(some), len(item) / len(among))
        if without is not None:
            rows = without.select(some)
            owner, place = np.repeat(np.arange(len(some)), rows.degrees), column[rows.indices]
            owner, place = owner[place >= 0], place[place >= 0]
            scores[owner, place] = -np.inf
            left = len(among) - np.bincount(owner, minlength=len(some))
            share = (len(item) - rows.degrees) / np.maximum(left, 1)
        scores.sort(axis=1)
        found = torch.searchsorted(torch.from_numpy(scores), torch.from_numpy(mine), right=True).numpy()
        above = np.rint((len(among) - found) * share[:, None]).astype(np.int64)
        out[at : at + size] = np.where(asked >= 0, above, 0)
    return out


class Remembered:
    """The pairs that are replayed: n of each memory for each of its users, drawn anew every few epochs.

    They live in the buffers of a term, so that a killed run goes on with the pairs it had drawn.
    """

    def __init__(
        self,
        sources: Sequence[Memory],
        reference: Callable[[], Vectors],
        settings: Replay,
        *,
        n_items: int,
        without: Csr,
        seed: int,
    ) -> None:
        """Draw from `sources`, by the ranks in `reference` at the time of the draw."""
        self.n = sum(len(each.users) * each.n for each in sources)
        self._sources, self._reference, self._c = sources, reference, settings
        self._n_items, self._without, self._seed = n_items, without, seed
        self.term = SoftLabels(self.n, settings)

    def drawn(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """(n,) users, items (-1 = none) and labels as of an epoch."""
        term, due = self.term, epoch - epoch % self._c.redraw
        if int(term.when) != due:
            user, item, label = self.draw(due)
            term.user.copy_(torch.from_numpy(user))
            term.item.copy_(torch.from_numpy(item))
            term.label.copy_(torch.from_numpy(label))
            term.when.fill_(due)
        return term.user, term.item, term.label

    def draw(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """(n,) users, items (-1 = none) and labels, a function of the epoch and the reference."""
        reference = self._reference()
        without = self._without if self._c.masks == "alike" else None
        parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        found = self._ranks(reference, without, epoch)
        for at, (source, there) in enumerate(zip(self._sources, found, strict=True)):  # (m, A)
            weight = self._c.sharpness * (there - np.arange(source.items.shape[1]))
            weight = weight + rng.gumbel(rng.key(self._seed, "replay", epoch, at), source.users, weight.shape[1])
            weight[source.items < 0] = -np.inf
            n = min(source.n, weight.shape[1])
            chosen = np.argpartition(-weight, n - 1, axis=1)[:, :n] if n else np.zeros((len(weight), 0), np.int64)
            chosen.sort(axis=1)
            spare = ((0, 0), (0, source.n - n))
            items = np.pad(np.take_along_axis(source.items, chosen, 1).astype(np.int64), spare, constant_values=-1)
            label = np.pad(np.take_along_axis(source.label, chosen, 1), spare)
            parts.append((np.repeat(source.users, source.n), items.ravel(), label.ravel()))
        user, item, label = (np.concatenate(column) for column in zip(*parts, strict=True))
        return user, merged(user * self._n_items + item, item, label), label

    def _ranks(self, reference: Vectors, without: Csr | None, epoch: int) -> list[NDArray[np.int64]]:
        """(m, A) of each source; those of the same users share one sort of the reference's scores."""
        among = None
        if self._c.among is not None:
            order = rng.permutation(rng.key(self._seed, "among", epoch), len(reference[1]))
            among = np.sort(order[: self._c.among])
        first = self._sources[0].users
        if not all(np.array_equal(source.users, first) for source in self._sources):
            return [ranks(reference, s.users, s.items, without=without, among=among) for s in self._sources]
        items = np.concatenate([source.items for source in self._sources], 1)
        edges = np.cumsum([source.items.shape[1] for source in self._sources])[:-1]
        return np.split(ranks(reference, first, items, without=without, among=among), edges, axis=1)


def merged(key: NDArray[np.int64], item: NDArray[np.int64], label: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n,) items, -1 where another place holds the same pair with a greater label, or the same one earlier."""
    order = np.lexsort((np.arange(len(key)), -label, key))
    again = np.zeros(len(key), np.bool_)
    again[order[1:]] = key[order[1:]] == key[order[:-1]]
    return np.where(again, -1, item)


class SoftLabels(Term):
    """Scores of replayed pairs against their labels; it holds the pairs."""

    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})
    user: Tensor
    item: Tensor
    label: Tensor
    when: Tensor

    def __init__(self, n: int, settings: Replay) -> None:
        super().__init__()
        self._loss = soft_bce if settings.loss == "bce" else soft_hinge
        self.register_buffer("user", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("item", torch.full((n,), -1, dtype=torch.int64))
        self.register_buffer("label", torch.zeros(n))
        self.register_buffer("when", torch.tensor(-1))

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher, clock
        if not isinstance(batch, SoftBatch) or batch.weight is None:
            raise UsageError(problem("Soft labels need batches that hold them", type(batch).__name__))
        scores = student.scores(batch.positive[:, None])[:, 0]  # (B,)
        return Rows(self._loss(scores, batch.label) * batch.weight, of="queries")


def _scores(user: NDArray[np.float32], item: NDArray[np.float32], lists: NDArray[np.int64]) -> NDArray[np.float32]:
    """(U, A) scores of each user's own list."""
    out = np.zeros(lists.shape, np.float32)
    size = max(1, _SCORES // max(lists.shape[1] * user.shape[1], 1))
    for at in range(0, len(lists), size):
        part = slice(at, at + size)
        np.einsum("ud,uad->ua", user[part], item[np.maximum(lists[part], 0)], out=out[part])
    return out


def _within(csr: Csr, n_rows: int, n: int) -> Csr:
    """The values below n of the first rows."""
    indptr, indices = csr.indptr[: n_rows + 1], csr.indices[: csr.indptr[n_rows]]
    keep = indices < n
    kept = np.concatenate([[0], np.cumsum(keep)])
    return Csr(kept[indptr], indices[keep], n)
