"""Learning from interactions alone: the base block, fine-tuning, full-batch, and the floor of popularity.

Letters: U users, I items.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recdistill import rng
from recdistill.continual.batches import EntityBatches, avoiding
from recdistill.continual.entities import begun
from recdistill.continual.learning import Run, learn
from recdistill.continual.margin import begun_within
from recdistill.continual.multinomial import Multinomial
from recdistill.continual.snapshot import Snapshot, blank
from recdistill.data.csr import Csr
from recdistill.data.interactions import Interactions
from recdistill.evaluation.vectors import VectorRanker
from recdistill.objective import Objective, Pass
from recdistill.terms.base import FromInteractions
from recdistill.terms.embedding_l2 import EmbeddingL2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recdistill.continual.learning import Learned
    from recdistill.continual.settings import Initial, ModelSpec, Training
    from recdistill.data.blocks import Block
    from recdistill.objective import Term

__all__ = ["base", "base_pass", "beside", "finetune", "popularity", "together"]


def base(block: Block, spec: ModelSpec, training: Training, *, run: Run) -> Learned:
    """A model from scratch on a block alone: a teacher or a baseline on block 0, full-batch on `together(...)`."""
    train = block.train.csr()
    start = blank(spec, train, seed=rng.key(run.seed, "weights"))
    model = start.model()
    passes = [base_pass(start, block.train, training, avoid=None, run=run)]
    return learn(start, model, passes, training, train=train, valid=block.valid, run=run)


def finetune(
    block: Block, before: Snapshot, training: Training, initial: Initial, *, margin: float | None = None, run: Run
) -> Learned:
    """Go on with the base loss alone, from a model of the block before; `margin` is that of `settings.Update`."""
    train = block.train.csr()
    start = begun(block, train, before, initial, run)
    _, (start,) = begun_within(start, train, margin)
    model = start.model()
    passes = [base_pass(start, block.train, training, avoid=None, run=run)]
    return learn(start, model, passes, training, train=train, valid=block.valid, run=run)


def base_pass(
    start: Snapshot,
    train: Interactions,
    training: Training,
    *,
    avoid: Csr | None,
    run: Run,
    whole: bool = False,
) -> Pass:
    """BPR, or the likelihood of Mult-VAE, over a block's interactions.

    Mult-VAE sees each user once an epoch, `training.batch` of them a step, and has no negatives. Where an optimiser
    cannot tell which rows are touched (a graph, or `whole`), their decay is a term over the batch's raw vectors.
    """
    if start.spec.name == "vae":
        rows = train.csr()
        active = np.flatnonzero(rows.degrees)
        batches = EntityBatches(active, size=training.batch, side="user", seed=run.seed, device=run.runtime.device)
        return Pass("train", batches, Objective(base=(1.0, Multinomial(rows, steps=len(batches)))))
    batches = avoiding(train, training, avoid=avoid, seed=run.seed, device=run.runtime.device)
    terms = {"base": (1.0, FromInteractions("bpr"))}
    by_term = start.spec.name == "lightgcn" or whole
    if by_term and training.decay == "touched" and training.weight_decay:
        return Pass("train", batches, Objective(**terms, decay=(training.weight_decay, EmbeddingL2())))
    return Pass("train", batches, Objective(**terms))


def beside(base: Pass, training: Training, more: Mapping[str, tuple[float, Term]]) -> Pass:
    """A base pass with more terms, each with its weight."""
    own = {name: (training.weight_decay if name == "decay" else 1.0, t) for name, t in base.objective.named_terms()}
    return Pass(base.name, base.batches, Objective(**own, **more))


def together(stream: Sequence[Block]) -> Block:
    """All blocks up to the newest as one, for full-batch; what is held out is the newest block's.

    Validation is still the newest block's, as everywhere; training items of older blocks stay rankable.
    """
    newest = stream[-1]
    user, item = (np.concatenate([getattr(block.train, name) for block in stream]) for name in ("user", "item"))
    return replace(newest, train=Interactions(newest.train.users, newest.train.items, user, item))


def popularity(stream: Sequence[Block]) -> VectorRanker:
    """The floor: everybody gets the items with the most training interactions in `stream`."""
    newest = stream[-1]
    count = np.zeros(newest.n_items, np.float32)
    for block in stream:
        count[: block.n_items] += np.bincount(block.train.item, minlength=block.n_items)
    return VectorRanker(np.ones((newest.n_users, 1), np.float32), count[:, None])
