"""SPMF: a uniform sample of the past is kept, and learned again where the model ranks it badly.

Wang, Yin, Huang et al., Streaming Ranking Based Recommender Systems, SIGIR 2018: the sample is a reservoir (Vitter,
1985), an interaction of sample or block is drawn with weight `exp(rank / n)`, rank by the model's present score, the
worst last.

Letters: n interactions, m kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill import rng
from recdistill.continual.entities import begun
from recdistill.continual.learning import Learned, Run, learn
from recdistill.continual.margin import begun_within
from recdistill.continual.plain import base_pass
from recdistill.data.interactions import Interactions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recdistill.continual.settings import Initial, Reservoir, Training
    from recdistill.continual.snapshot import Snapshot
    from recdistill.data.blocks import Block

__all__ = ["kept", "update_spmf"]

Pairs = tuple["NDArray[np.int64]", "NDArray[np.int64]"]


def kept(before: Pairs | None, block: Block, *, size: int, seed: int) -> Pairs:
    """The reservoir after a block: every interaction of the stream so far is in it with the same chance.

    Each gets a number that its place in the stream decides; the greatest are kept. So no counter is carried.

    Args:
        before: the reservoir after the block before, (m,) users and (m,) items; None at the base block.
        block: what came.
        size: the most that is kept.
        seed: of the chance.
    """
    user, item = block.train.user.astype(np.int64), block.train.item.astype(np.int64)
    if before is not None:
        user, item = np.concatenate([before[0], user]), np.concatenate([before[1], item])
    if len(user) <= size:
        return user, item
    word = rng.bits(rng.key(seed, "reservoir"), user * (1 << 31) + item, 1)[:, 0]
    order = np.sort(np.argpartition(-word, size - 1)[:size])
    return user[order], item[order]


def update_spmf(
    block: Block,
    before: Snapshot,
    sample: Pairs | None,
    settings: Reservoir,
    *,
    training: Training,
    initial: Initial,
    margin: float | None = None,
    run: Run,
) -> Learned:
    """A model on a block and on a sample of the past.

    Args:
        block: k.
        before: the model after block k - 1.
        sample: the reservoir after block k - 1; None for none.
        settings: how many interactions an epoch.
        training: how.
        initial: newcomers.
        margin: that of `settings.Update`.
        run: seed, checkpoint, watches.
    """
    train = block.train.csr()
    _, (start,) = begun_within(begun(block, train, before, initial, run), train, margin)
    past = sample if sample is not None else (np.zeros(0, np.int64), np.zeros(0, np.int64))
    user = np.concatenate([past[0], block.train.user.astype(np.int64)])
    item = np.concatenate([past[1], block.train.item.astype(np.int64)])
    score = _scores(start, user, item)
    rank = np.empty(len(score), np.float64)
    rank[np.argsort(-score, kind="stable")] = np.arange(len(score))
    word = rng.uniform(rng.key(run.seed, "spmf", block.index), np.arange(len(score)), 1)[:, 0]
    chance = np.log(word.astype(np.float64))
    n = min(len(score), max(1, round(settings.share * len(block.train))))
    chosen = np.argsort(-(np.exp(-rank / len(score)) * chance), kind="stable")[:n]  # Efraimidis and Spirakis: u^(1/w)
    who, what = user[chosen].astype(np.int32), item[chosen].astype(np.int32)
    log = Interactions(block.train.users, block.train.items, who, what)
    model = start.model()
    passes = [base_pass(start, log, training, avoid=None, run=run)]
    return learn(start, model, passes, training, train=train, valid=block.valid, run=run)


def _scores(snapshot: Snapshot, user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float32]:
    arrays = snapshot.model().arrays()
    out = np.empty(len(user), np.float32)
    for at in range(0, len(user), 1 << 16):
        part = slice(at, at + (1 << 16))
        np.einsum("nd,nd->n", arrays["user"][user[part]], arrays["item"][item[part]], out=out[part])
    return out
