"""The three stages of CCD, each a function of snapshots, lists and one block. Lee et al., KDD 2024, arXiv:2405.19046.

    distil          ensemble's lists -> a fresh student                                    (stage 1)
    update_student  student, proxies, a block -> the student on that block                 (stage 2)
    update_teacher  a member, the student's side, a block -> the member on that block      (stage 3)

Nothing here keeps anything: what goes in is in the arguments, what comes out is in the result.

Letters: U users, I items, K list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recdistill import rng
from recdistill.continual.batches import EntityBatches, PairBatches
from recdistill.continual.entities import begun
from recdistill.continual.learning import Learned, Run, learn
from recdistill.continual.margin import begun_within
from recdistill.continual.plain import base_pass, beside
from recdistill.continual.proxies import remembered
from recdistill.continual.replay import Remembered, memories
from recdistill.continual.snapshot import Snapshot, blank
from recdistill.data.csr import Csr
from recdistill.data.draws import Taken
from recdistill.evaluation.vectors import VectorRanker
from recdistill.objective import Objective, Pass
from recdistill.terms.exact_ranking import ExactRanking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from recdistill.clock import Clock, Schedule
    from recdistill.continual.ensemble import Lists
    from recdistill.continual.replay import Vectors
    from recdistill.continual.settings import Distil, ModelSpec, Replay, Update
    from recdistill.data.blocks import Block
    from recdistill.data.interactions import Interactions
    from recdistill.models.base import Recommender

__all__ = ["Sources", "believed", "cut", "distil", "falling", "remembering", "replayed", "update_student"]


@dataclass(frozen=True, eq=False)
class Sources:
    """The student's side, as far as it is there."""

    stability: Snapshot | None = None
    """SP, the slow proxy."""
    plasticity: Snapshot | None = None
    """PP, the recent one; None in the first cycle, where both are the same."""
    student: Snapshot | None = None
    """The student as updated on the block (for teachers), or as distilled (for itself)."""

    def all(self) -> list[Snapshot]:
        """Those that are there."""
        return [each for each in (self.stability, self.plasticity, self.student) if each is not None]


def distil(
    block: Block,
    spec: ModelSpec,
    lists: Lists,
    settings: Distil,
    *,
    avoid: Csr | None = None,
    warm: Snapshot | None = None,
    past: Csr | None = None,
    run: Run,
) -> Learned:
    """Stage 1: a student from what the ensemble lists, on the users, items and training pairs of one block.

    Args:
        block: d.
        spec: the student.
        lists: of the ensemble T_d.
        settings: how.
        avoid: U x I, what negatives leave alone: the best items of anybody who is believed, see `believed`.
        warm: the student as updated on this block, from which "warm" begins.
        past: U' x I', the interactions before this block, for a student that reads all of them.
        run: seed, checkpoint, watches.
    """
    train, device = block.train.csr(), run.runtime.device
    start = blank(spec, train, past=past, seed=rng.key(run.seed, "weights"))
    if settings.start == "warm" and warm is not None:
        start = warm.grown(train, seed=rng.key(run.seed, "weights"))
    layer = 0 if settings.layer == "raw" else "served"
    by_users = ExactRanking(_near(lists.items, settings.near), _nowhere(train, lists, avoid, device), layer=layer)
    base = base_pass(start, block.train, settings.training, avoid=avoid, run=run)
    passes = [base]
    if settings.weight and settings.passes == "batch":
        passes = [beside(base, settings.training, {"user_lists": (settings.weight, by_users)})]
    elif settings.weight:
        asked = _listed(lists.items, settings.most, seed=run.seed)
        everybody = EntityBatches(asked, size=settings.training.batch, side="user", seed=run.seed, device=device)
        passes.append(Pass("users", everybody, Objective(user_lists=(settings.weight, by_users)), interleave="epoch"))
    if settings.item_weight:
        of_items = ExactRanking(
            _near(lists.users, settings.near),
            Taken.of(train.transposed().union(_listing(lists.items, block.n_items).transposed()), device),
            side="item",
            layer=layer,
        )
        asked = _listed(lists.users, settings.most, seed=run.seed)
        everything = EntityBatches(asked, size=settings.item_batch, side="item", seed=run.seed, device=device)
        passes.append(
            Pass("items", everything, Objective(item_lists=(settings.item_weight, of_items)), interleave="epoch")
        )
    return learn(start, start.model(), passes, settings.training, train=train, valid=block.valid, run=run)


def update_student(
    block: Block,
    before: Csr | None,
    student: Snapshot,
    sources: Sources,
    settings: Update,
    *,
    avoid: Csr | None = None,
    part: Interactions | None = None,
    run: Run,
) -> Learned:
    """Stage 2: the student on new data.

    Args:
        block: k.
        before: the training pairs of block k - 1 (its own sizes), which replay leaves out.
        student: as distilled from the ensemble of block k - 1, or as updated inside this block.
        sources: the proxies; `sources.student` is the student as distilled, the reference "distilled".
        settings: how.
        avoid: what negatives leave alone, see `believed`.
        part: of the block's training pairs, where it is one of several updates; None takes all of them.
        run: seed, checkpoint, watches.
    """
    log = block.train if part is None else part
    train = log.csr()
    start = begun(block, train, student, settings.initial, run)
    margin, (start,) = begun_within(start, train, settings.margin)
    model = start.model()
    known = (block.old_users, block.old_items)
    passes = [base_pass(start, log, settings.training, avoid=avoid, run=run)]
    c = settings.replay
    sides = ((sources.stability, c.stability), (sources.plasticity, c.plasticity))
    asked = [(margin.within(remembered(source)), n) for source, n in sides]
    passes += replayed(
        model,
        asked,
        c,
        known=known,
        distilled=sources.student,
        train=train,
        before=before,
        size=settings.training.batch,
        seed=run.seed,
    )
    return learn(start, model, passes, settings.training, train=train, valid=block.valid, run=run)


def believed(
    n_users: int,
    n_items: int,
    *,
    lists: Lists | None = None,
    models: Sequence[Snapshot] = (),
    k: int,
    without: Csr | None = None,
    users: NDArray[np.int64] | None = None,
) -> Csr | None:
    """U x I: the best k items of each user in the opinion of an ensemble and of models; None where nobody says.

    Args:
        n_users: U; who an opinion does not know has none.
        n_items: I
        lists: of an ensemble.
        models: any snapshots.
        k: how many of each.
        without: training items, which are not listed; None lists them too (official code in stage 2).
        users: whose opinions matter, ascending rows; None = everybody's. Negatives are drawn for those who learn alone.
    """
    out: Csr | None = None
    if k and lists is not None:
        rows = np.arange(len(lists.items)) if users is None else users[users < len(lists.items)]
        out = _listing(lists.items[rows, :k], n_items, n_users, rows)
    for each in models if k else ():
        user, item = _asked(each)
        rows = np.arange(len(user), dtype=np.int64) if users is None else users[users < len(user)]
        left = None if without is None else cut(without, len(user), len(item))
        one = _listing(VectorRanker(user, item).top_k(rows, min(k, len(item)), left), n_items, n_users, rows)
        out = one if out is None else out.union(one)
    return out


def replayed(
    model: Recommender,
    asked: Sequence[tuple[Vectors | None, int]],
    settings: Replay,
    *,
    known: tuple[int, int],
    distilled: Snapshot | None,
    train: Csr,
    before: Csr | None,
    size: int,
    seed: int,
) -> list[Pass]:
    """The pass that replays, or none where there is nothing to replay.

    Args:
        model: who learns.
        asked: sources, and how many items a user are drawn from each.
        settings: how.
        known: how many users and items the reference may rank.
        distilled: the reference "distilled".
        train: U x I of the block.
        before: training pairs of the block before.
        size: pairs a step, where the settings do not say.
        seed: of the draws.
    """
    if not settings.weight:
        return []
    pairs = remembering(model, asked, settings, known=known, distilled=distilled, train=train, before=before, seed=seed)
    if pairs is None:
        return []
    batches = PairBatches(pairs, size=settings.batch or size, seed=seed)
    weight = (falling(settings), pairs.term)
    return [Pass("replay", batches, Objective(replay=weight), interleave="epoch")]


def remembering(
    model: Recommender,
    asked: Sequence[tuple[Vectors | None, int]],
    settings: Replay,
    *,
    known: tuple[int, int],
    distilled: Snapshot | None,
    train: Csr,
    before: Csr | None,
    seed: int,
) -> Remembered | None:
    """The pairs that `replayed` learns; None where there is nothing to remember."""
    n_users, n_items = known
    without = cut(
        train if before is None else train.union(before.widened(train.n_rows, train.n_columns)), n_users, n_items
    )
    sources = memories(
        [(None if vectors is None else _head(vectors, known), n) for vectors, n in asked],
        depth=settings.depth,
        without=without,
        users=settings.users,
        among=None if settings.who is None else np.flatnonzero((train.degrees > 0) == (settings.who == "active")),
        seed=seed,
    )
    if not sources:
        return None
    now = _current(model) if settings.reference == "current" or distilled is None else _fixed(_asked(distilled))
    return Remembered(sources, lambda: _head(now(), known), settings, n_items=n_items, without=without, seed=seed)


def falling(settings: Replay) -> Schedule:
    """The weight of replay by epoch."""

    def at(clock: Clock) -> float:
        return settings.weight * (1.0 if settings.period is None else math.exp(-clock.epoch / settings.period))

    return at


def _current(model: Recommender) -> Callable[[], Vectors]:
    def now() -> Vectors:
        arrays = model.arrays()
        return arrays["user"], arrays["item"]

    return now


def _head(vectors: Vectors, sizes: tuple[int, int]) -> Vectors:
    return vectors[0][: sizes[0]], vectors[1][: sizes[1]]


def _fixed(vectors: Vectors) -> Callable[[], Vectors]:
    return lambda: vectors


def _asked(snapshot: Snapshot) -> Vectors:
    arrays = snapshot.model().arrays()
    return arrays["user"], arrays["item"]


def _listed(lists: NDArray[np.int32], most: int | None, *, seed: int) -> NDArray[np.int64]:
    """(m,) whose lists are learned: all rows, or at most so many of those that are not empty."""
    if most is None:
        return np.arange(len(lists), dtype=np.int64)
    there = np.flatnonzero((lists >= 0).any(1)).astype(np.int64)
    chance = rng.permutation(rng.key(seed, "listed"), len(there))
    return np.sort(there[chance[:most]])


def _near(lists: NDArray[np.int32], k: int) -> torch.Tensor:
    return torch.from_numpy(lists[:, :k].astype(np.int64))


def _nowhere(train: Csr, lists: Lists, avoid: Csr | None, device: torch.device) -> Taken:
    """What is neither in a user's list nor below it: training items, what is believed, and items that list the user."""
    out = train.union(_listing(lists.users, train.n_rows).transposed())
    return Taken.of(out if avoid is None else out.union(avoid), device)


def _listing(
    lists: NDArray[np.integer], n_columns: int, n_rows: int | None = None, rows: NDArray[np.int64] | None = None
) -> Csr:
    """(R, K) lists, -1 = none, of `rows` or of the first R -> n_rows x C."""
    row = np.repeat(np.arange(len(lists)) if rows is None else rows, lists.shape[1])
    flat = lists.ravel()
    there = flat >= 0
    return Csr.from_pairs(row[there], flat[there], len(lists) if n_rows is None else n_rows, n_columns)


def cut(csr: Csr, n_rows: int, n_columns: int) -> Csr:
    """The head of `csr`; rows that it does not have are empty."""
    n = min(n_rows, csr.n_rows)
    indptr, indices = csr.indptr[: n + 1], csr.indices[: csr.indptr[n]]
    keep = indices < n_columns
    kept = np.concatenate([[0], np.cumsum(keep)])[indptr]
    return Csr(np.concatenate([kept, np.full(n_rows - n, kept[-1])]), indices[keep], n_columns)
